"""What is compared of a pair, metric by metric: both figures, which side is better and by how much. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median, variance

from pytest_vq.gate import stats
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.side import SidePair
from pytest_vq.wording import milliseconds, size, times

_CONFIDENCE = 0.975  # two-sided 95 %


class IntervalKind(StrEnum):
    """What a ratio's 95 % interval covers."""

    BETWEEN = "between processes"
    WITHIN = "within a process"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a pair, and how two of it are compared."""

    name: str
    figure: str  # of `schema.side.FIGURES`
    more_is_better: bool
    shown: Callable[[float], str]
    bounds: tuple[str, str] | None = None  # of the figure's interval within one process; None: it is deterministic
    unit_of_difference: str | None = None  # of a figure that is compared by its difference; None: by the ratio
    scale: float = 1.0  # from the figure's difference to that unit

    @property
    def is_difference(self) -> bool:
        """Whether it is compared by its difference instead of the ratio."""
        return self.unit_of_difference is not None

    def change_shown(self, change: float) -> str:
        """A ratio, or a signed difference with its unit."""
        if self.unit_of_difference is not None:
            return f"{change * self.scale:+.1f} {self.unit_of_difference}"
        return ratio(change)

    def typical(self, values: Sequence[float]) -> float:
        """One figure for the processes' ``values``; the ratio of two is the one that their logs' means give."""
        if self.bounds is None or min(values) <= 0:
            return median(values)
        return math.exp(fmean(map(math.log, values)))


def ratio(value: float) -> str:
    """Three decimals, more where the value is small, and never in powers of ten: ``0.951``, ``12.340``, ``0.01325``."""
    return f"{value:.{5 if value < 0.1 else 3 if value < 1000 else 0}f}"


LATENCY = Metric("median latency", "latency_ms", False, milliseconds, ("latency_low_ms", "latency_high_ms"))
PEAK = Metric("peak memory", "peak_memory_bytes", False, size)
AT_REST = Metric("memory at rest", "resting_memory_bytes", False, size)
METRICS = (
    LATENCY,
    Metric("speedup", "speedup", True, times, ("speedup_low", "speedup_high")),
    PEAK,
    AT_REST,
    Metric("model size", "model_size_bytes", False, size),
    Metric("SQNR", "sqnr_db", True, "{:.1f} dB".format, unit_of_difference="dB"),
    Metric("accuracy", "accuracy", True, "{:.1%}".format, unit_of_difference="points", scale=100.0),
)


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of one pair on both sides. What a side did not measure is None."""

    metric: Metric
    a: float | None
    b: float | None
    change: float | None = None  # the ratio, above 1 where B is better; or the difference, above 0 where B is better
    low: float | None = None  # the change's 95 % interval
    high: float | None = None
    interval: IntervalKind | None = None


def compare_metric(metric: Metric, a: SidePair, b: SidePair) -> MetricComparison:
    """``metric`` of a pair, side B against side A."""
    before, now = (side.figures.get(metric.figure, ()) for side in (a, b))
    typical = [metric.typical(values) if values else None for values in (before, now)]
    found = MetricComparison(metric, typical[0], typical[1])
    if found.a is None or found.b is None:
        return found
    sign = 1 if metric.more_is_better else -1
    if metric.is_difference:
        return MetricComparison(metric, found.a, found.b, sign * (found.b - found.a))
    if min(*before, *now) <= 0:  # resident memory that did not grow has no ratio
        return found
    effect = sign * math.log(found.b / found.a)
    half, kind = _half_width(metric, a, b)
    if half is None:
        return MetricComparison(metric, found.a, found.b, math.exp(effect))
    low, high = math.exp(effect - half), math.exp(effect + half)
    return MetricComparison(metric, found.a, found.b, math.exp(effect), low, high, kind)


def _half_width(metric: Metric, a: SidePair, b: SidePair) -> tuple[float | None, IntervalKind | None]:
    """Half of the 95 % interval of the ratio's logarithm, and what it covers; None where nothing is known of it."""
    if metric.bounds is None:
        return None, None
    logs = [[math.log(value) for value in side.figures[metric.figure]] for side in (a, b)]
    if min(map(len, logs)) > 1:
        return welch_half_width(*logs), IntervalKind.BETWEEN
    halves = [_within(metric.bounds, side.processes) for side in (a, b)]
    known = [half for half in halves if half is not None]
    return (math.hypot(*known), IntervalKind.WITHIN) if len(known) == len(halves) else (None, None)


def welch_half_width(a: Sequence[float], b: Sequence[float]) -> float:
    """Half of the 95 % interval of the difference of two means, at least two values each, by Welch's t."""
    shares = [(variance(values) / len(values), len(values) - 1) for values in (a, b)]
    squares = sum(share for share, _ in shares)
    if squares == 0:
        return 0.0
    df = squares**2 / sum(share**2 / own for share, own in shares)
    return math.sqrt(squares) * float(stats.quantile(_CONFIDENCE, df))


def _within(bounds: tuple[str, str], processes: Sequence[Estimates]) -> float | None:
    """Half of the 95 % interval, in logs, that the processes' own ones leave in their mean; None where one has none."""
    halves = []
    for process in processes:
        low, high = (getattr(process, name) for name in bounds)
        if low is None or high is None or low <= 0:
            return None
        halves.append(math.log(high / low) / 2)
    return math.sqrt(sum(half**2 for half in halves)) / len(halves) if halves else None
