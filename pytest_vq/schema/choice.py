"""What a choice came to: the recipe and how it was reached, or why there is none. Handed from process to process."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_vq.schema.recipe import ChoiceFigures, Recipe, Wish


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """What to choose for, and the file that the answer goes into."""

    model: str
    wish: Wish
    answer: str  # a path
    progress_fd: int | None = None  # where a line is written for each step


@dataclass(frozen=True, slots=True)
class Contender:
    """A scheme that was built and measured on held-out inputs."""

    name: str
    words: str  # its layers: "20 int8wo, 4 bf16, fp32 rest"
    predicted: ChoiceFigures
    figures: ChoiceFigures
    within: bool  # the budget


@dataclass(frozen=True, slots=True)
class Choice:
    """The best of what was measured. ``recipe`` is None where nothing but FP32 is within the budget."""

    recipe: Recipe | None
    chosen: str  # name of a contender
    why: str
    contenders: tuple[Contender, ...]
    reverted: tuple[str, ...] = ()  # layers that were given back to FP32 after the first measurement
    refused: tuple[str, ...] = ()  # what could not be had, and why


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """What the process that chooses leaves: a choice, or an error and the exit code that it means."""

    choice: Choice | None = None
    error: str | None = None
    code: int = 0
