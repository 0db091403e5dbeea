"""Limits that a deployment sets, and how they and the figures they bound are written. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pytest_vq.wording import milliseconds, size

_DECIMAL_UNITS = ((10**9, "GB"), (10**6, "MB"))


class Quantity(StrEnum):
    """What can be limited, in the order in which it is asked about."""

    LATENCY = "median latency"
    PERCENTILE = "latency percentile"
    MEMORY = "peak memory"
    TOP1 = "accuracy / FP32's"
    SQNR = "SQNR"

    @property
    def unit(self) -> str:
        """Of its figures and limits."""
        units = {Quantity.MEMORY: "bytes", Quantity.TOP1: "fraction", Quantity.SQNR: "dB"}
        return units.get(self, "ms")


@dataclass(frozen=True, slots=True)
class Constraint:
    """A limit on one quantity: milliseconds, bytes, a fraction of FP32's accuracy, or decibels."""

    quantity: Quantity
    limit: float
    percentile: float | None = None  # of a request's latency, 0 ... 100
    under_load: bool = False  # asked of rows under load, and not of single requests to a quiet model

    @property
    def is_upper(self) -> bool:
        """Whether the figure must be below the limit; else at least it."""
        return self.quantity in {Quantity.LATENCY, Quantity.PERCENTILE, Quantity.MEMORY}

    @property
    def name(self) -> str:
        """What is limited: ``p99 latency``."""
        return str(self.quantity) if self.percentile is None else f"p{self.percentile:g} latency"

    @property
    def text(self) -> str:
        """``median latency < 16 ms``."""
        where = " under load" if self.under_load else ""
        return f"{self.name} {'<' if self.is_upper else '≥'} {self._limit_shown()}{where}"

    def shown(self, value: float) -> str:
        """A figure of that quantity with its unit."""
        if self.quantity is Quantity.MEMORY:
            return size(value)
        if self.quantity is Quantity.TOP1:
            return f"{value:.4f}"
        if self.quantity is Quantity.SQNR:
            return decibels(value)
        return milliseconds(value)

    def _limit_shown(self) -> str:
        if self.quantity is Quantity.TOP1:
            return f"{self.limit:g}"
        if self.quantity is Quantity.SQNR:
            return f"{self.limit:g} dB"
        return limit_in_bytes(self.limit) if self.quantity is Quantity.MEMORY else f"{self.limit:g} ms"


def decibels(sqnr_db: float) -> str:
    """An SQNR; FP32 itself has an infinite one."""
    return "lossless" if math.isinf(sqnr_db) else f"{sqnr_db:.1f} dB"


def limit_in_bytes(limit: float) -> str:
    """A limit on memory; one in decimal megabytes says what that is in MiB, in which figures are told."""
    for unit, name in _DECIMAL_UNITS:
        if limit % unit == 0 and limit % 2**20 != 0:
            return f"{limit / unit:,.0f} {name} ({size(limit)})"
    return size(limit)
