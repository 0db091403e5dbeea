"""What the device does while a pair is timed: looked at between rounds, now and then. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

EVERY_S = 0.1  # at least between two glances: a glance takes time that the budget then lacks


class Watch:
    """Glances at the device when called, unless it did so a moment ago; gives the medians of what it saw.

    It is called between two rounds, when nothing is timed. A thread would see more, and hold the interpreter while a
    request launches.
    """

    def __init__(self, glance: Callable[[], Mapping[str, Any]], now_s: Callable[[], float]) -> None:
        self._glance = glance
        self._now_s = now_s
        self._due_s = now_s()
        self._seen: list[Mapping[str, Any]] = []

    def __call__(self) -> None:
        """Glance, if it is time."""
        if self._now_s() >= self._due_s:
            self._seen.append(self._glance())
            self._due_s = self._now_s() + EVERY_S

    def median(self, key: str) -> float | None:
        """The median of what was seen of ``key``, in its unit; None where the device does not tell it."""
        values = [state[key] for state in self._seen if key in state]
        return float(median(values)) if values else None
