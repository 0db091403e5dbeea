"""What is decided about a pair: tolerances asked for, verdicts given. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """A verdict's status. ``Status.worst`` orders them as the contract does."""

    FAIL = "FAIL"
    INCOMPARABLE = "INCOMPARABLE"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_BASELINE = "NO_BASELINE"
    IMPROVED = "IMPROVED"
    PASS = "PASS"

    @staticmethod
    def worst(statuses: list[Status]) -> Status:
        """The worst of ``statuses``; PASS when there is none."""
        order = list(Status)
        return min(statuses, key=order.index, default=Status.PASS)


def fails(status: Status | None, *, strict: bool, saves: bool) -> bool:
    """True where a row of ``status`` fails its test, and with it its run, under a gate that fails.

    ``strict`` and ``saves`` are the run's ``--vq-strict`` and ``--vq-save``.
    """
    doubtful = {Status.INCOMPARABLE, Status.INCONCLUSIVE}
    if not saves:  # what is being recorded for the first time has no baseline yet
        doubtful.add(Status.NO_BASELINE)
    return status is Status.FAIL or (strict and status in doubtful)


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The smallest change worth failing for, relative to the baseline; the last two are absolute lower bounds.

    ``None`` leaves the choice to the gate (it depends on how well the baseline is known).
    """

    latency_tolerance: float | None = None
    speedup_tolerance: float | None = None
    memory_tolerance: float | None = None
    size_tolerance: float | None = None
    min_sqnr_db: float | None = None
    min_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """The decision on one metric. ``effect`` is relative, positive = worse; so are its interval and the tolerance."""

    metric: str
    status: Status
    reason: str
    baseline: float | None = None
    current: float | None = None
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    tolerance: float | None = None
    detectable: float | None = None  # the smallest slowdown this comparison could have seen


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on a pair: the worst of its metrics' verdicts, and why."""

    status: Status
    reason: str
    metrics: tuple[MetricVerdict, ...] = ()
    more_processes: int = 0  # fresh ones to measure, then to decide on all of them; none where this is the last word

    @classmethod
    def of(cls, metrics: list[MetricVerdict]) -> Verdict:
        """The worst of ``metrics``; the reason names each that is not PASS, worst first."""
        order = list(Status)
        speaking = sorted((m for m in metrics if m.status is not Status.PASS), key=lambda m: order.index(m.status))
        return cls(
            status=Status.worst([m.status for m in metrics]),
            reason="; ".join(m.reason for m in speaking),
            metrics=tuple(metrics),
        )
