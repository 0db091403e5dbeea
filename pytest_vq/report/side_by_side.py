"""Two sides, pair by pair and metric by metric, and what that comes to over all pairs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from pytest_vq.errors import ResultsError
from pytest_vq.gate.noise import learn_noise
from pytest_vq.report.escaping import plain
from pytest_vq.report.side_matching import match_sides, name_of, ordered
from pytest_vq.report.side_metrics import (
    AT_REST,
    LATENCY,
    METRICS,
    PEAK,
    Metric,
    MetricComparison,
    compare_metric,
)
from pytest_vq.report.side_serving import ServingComparison, compare_serving
from pytest_vq.report.side_verdicts import Decision, decide_pair
from pytest_vq.schema.side import Side, SideKind, SidePair
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import TO_KEEP_IT, count, listed

_NAMED = 8  # pairs, where an error says what a side holds


@dataclass(frozen=True, slots=True)
class PairComparison:
    """One pair on both sides."""

    case_id: CaseId
    name: str  # the pair's id; with its setup where a side holds several of that id
    category: str
    precision: str
    processes: tuple[int, int]  # of A and of B; none of published figures
    metrics: tuple[MetricComparison, ...]
    decision: Decision

    def metric(self, metric: Metric) -> MetricComparison | None:
        """What was compared of ``metric``; None where neither side has it."""
        return next((found for found in self.metrics if found.metric == metric), None)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One metric over several pairs: the geometric mean of the ratios, or the mean of the differences."""

    metric: Metric
    category: str | None  # None: all pairs
    changes: tuple[float, ...]
    left_out: tuple[str, ...]  # pairs that have the metric on one side only, or no ratio of it

    @property
    def mean(self) -> float | None:
        """That mean; None of no pair."""
        if not self.changes:
            return None
        return fmean(self.changes) if self.metric.is_difference else math.exp(fmean(map(math.log, self.changes)))


@dataclass(frozen=True, slots=True)
class SideComparison:
    """Side B against side A."""

    a: Side
    b: Side
    pairs: tuple[PairComparison, ...]
    only_a: tuple[str, ...]  # pairs that A alone measured
    only_b: tuple[str, ...]
    metrics_of_a: tuple[str, ...]  # metrics that A alone has, of all pairs in common
    metrics_of_b: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    serving: tuple[ServingComparison, ...] = ()  # pairs under load, on which nothing is decided

    @property
    def regressed(self) -> tuple[PairComparison, ...]:
        """The pairs that FAIL."""
        return tuple(pair for pair in self.pairs if pair.decision.status is Status.FAIL)


def compare_two(a: Side, b: Side) -> SideComparison:
    """Side ``b`` against side ``a``. Raises ResultsError where they have no pair in common."""
    matches, only_a, only_b = match_sides(a, b)
    serving = compare_serving(a, b)
    if not matches and not any(one.is_common for one in serving):
        raise ResultsError(plain(f"no pair in common: {_holds(a)}; {_holds(b)}"))
    noise = learn_noise([pair.entry for pair in a.pairs if pair.entry is not None])
    measured = _metrics_of(a, b)
    shared = [m for m in measured if m == LATENCY or any(_has(x, m) and _has(y, m) for x, y in matches)]
    pairs = []
    for mine, theirs in matches:
        decision = decide_pair(mine, theirs, noise, len(matches))
        if a.kind is not SideKind.BASELINES:  # then there is no anchor to accept
            decision = Decision(decision.status, decision.reason.replace(TO_KEEP_IT, ""), decision.metrics)
        pairs.append(
            PairComparison(
                case_id=mine.case_id,
                name=max(name_of(mine, a), name_of(theirs, b), key=len),  # one of them may need its setup too
                category=mine.category or theirs.category or "unknown",
                precision=mine.precision,
                processes=(len(mine.processes), len(theirs.processes)),
                metrics=tuple(compare_metric(m, mine, theirs) for m in shared if _has(mine, m) or _has(theirs, m)),
                decision=decision,
            )
        )
    lonely = [m for m in measured if m not in shared]
    return SideComparison(
        a=a,
        b=b,
        pairs=tuple(pairs),
        only_a=tuple(name_of(pair, a) for pair in only_a),
        only_b=tuple(name_of(pair, b) for pair in only_b),
        metrics_of_a=tuple(m.name for m in lonely if any(_has(mine, m) for mine, _ in matches)),
        metrics_of_b=tuple(m.name for m in lonely if any(_has(theirs, m) for _, theirs in matches)),
        aggregates=tuple(_aggregates(pairs, shared)),
        serving=serving,
    )


def _has(pair: SidePair, metric: Metric) -> bool:
    return metric.figure in pair.figures


def _metrics_of(a: Side, b: Side) -> list[Metric]:
    """The metrics to compare; memory at rest only where a side does not know the peak, which says more."""
    peaks = all(any(_has(pair, PEAK) for pair in side.pairs) for side in (a, b))
    return [metric for metric in METRICS if not (peaks and metric == AT_REST)]


def _holds(side: Side) -> str:
    names = [name_of(pair, side) for pair in ordered(side.pairs)]
    names += [f"{served.case_id} ({served.figures.scenario})" for served in side.serving]
    held = f"{count(len(names), 'pair')}: {listed(names, _NAMED)}" if names else "nothing"
    return f"{side.label} ({side.name}) holds {held}"


def _aggregates(pairs: Sequence[PairComparison], metrics: Sequence[Metric]) -> Iterator[Aggregate]:
    """Each metric over all pairs, then over those of each category."""
    for metric in metrics:
        for category in (None, *sorted({pair.category for pair in pairs})):
            found = [
                (pair.name, compared)
                for pair in pairs
                if category in (None, pair.category) and (compared := pair.metric(metric)) is not None
            ]
            changes = tuple(compared.change for _, compared in found if compared.change is not None)
            left_out = tuple(name for name, compared in found if compared.change is None)
            if found:
                yield Aggregate(metric, category, changes, left_out)
