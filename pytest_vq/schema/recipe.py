"""A recipe: a precision for each layer of one model, what it was chosen for, and what it was found to do.

It is plain JSON. Written by hand it needs ``schema_version``, ``model``, ``rest`` and ``layers`` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_vq.schema.record import Environment
from pytest_vq.schema.spec import EAGER

SCHEMA_VERSION = 1
PREFIX = "recipe:"  # before a file's name, where a precision may be named
TARGETS = ("latency", "memory", "size")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked of a choice: the least fidelity or accuracy that is good enough, and what to save under it."""

    schemes: tuple[str, ...]  # precisions that a layer may have; FP32 is always another
    target: str = TARGETS[0]
    min_sqnr_db: float | None = None
    min_top1: float | None = None  # accuracy over FP32's, on labelled images
    execution: str = EAGER
    batch: int = 1
    weights: str = "random"


@dataclass(frozen=True, slots=True)
class ChoiceFigures:
    """What a choice is expected to do, or was measured to; None where that was not asked for."""

    sqnr_db: float | None = None
    top1: float | None = None  # accuracy over FP32's
    latency_ms: float | None = None
    speedup: float | None = None  # FP32's time over this one's, paired
    speedup_low: float | None = None
    speedup_high: float | None = None
    model_size_bytes: int | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A precision for each linear layer outside the head; layers that are not named are as the rest is."""

    model: str
    rest: str  # a precision that only casts: fp32, bf16, fp16
    layers: Mapping[str, str]  # dotted name -> precision
    chosen_for: Wish | None = None
    predicted: ChoiceFigures | None = None  # of the inputs that it was chosen on
    measured: ChoiceFigures | None = None  # on inputs that were held out
    environment: Environment | None = None
    schema_version: int = SCHEMA_VERSION
