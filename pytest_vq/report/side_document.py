"""What a comparison says, as blocks of raw text: the same in every format. Pure.

What fails comes first; then what differs between the sides; then the figures; what they come to over all pairs, last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_vq.gate.policy import DEFAULT
from pytest_vq.report.document_blocks import NOT_MEASURED, Block, Heading, Lines, Table
from pytest_vq.report.scheme_notes import scheme_notes
from pytest_vq.report.side_by_side import Aggregate, PairComparison, SideComparison
from pytest_vq.report.side_metrics import IntervalKind, MetricComparison, ratio
from pytest_vq.report.side_serving_document import blocks_of_serving
from pytest_vq.schema.side import Side
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import count

NOT_RECORDED = "not recorded"
WITHIN = "within"
_WITHIN_LEGEND = (
    f"{WITHIN}: an interval from single processes' own samples, which tells nothing of how processes differ: measure "
    "both sides with --vq-runs 2 or more for that"
)


def blocks_of(comparisons: Sequence[SideComparison], *, only_regressed: bool = False) -> list[Block]:
    """The document of one or more sides against one and the same side A."""
    sides = [comparisons[0].a, *(comparison.b for comparison in comparisons)]
    blocks: list[Block] = [*_failing(comparisons), *_sides(sides)]
    for comparison in comparisons:
        labels = comparison.a.label, comparison.b.label
        blocks += _comparison(comparison, only_regressed) if comparison.pairs else [*_alone(comparison)]
        blocks += [] if only_regressed else blocks_of_serving(labels, comparison.serving)
    return blocks


def _alone(comparison: SideComparison) -> Iterator[Block]:
    """What is said where the sides have only pairs under load in common."""
    missing = tuple(_missing(comparison))
    if missing:
        yield Lines(("no pair by itself in common", *missing))


def _failing(comparisons: Sequence[SideComparison]) -> Iterator[Block]:
    for comparison in comparisons:
        if comparison.regressed:
            regressed, pairs = len(comparison.regressed), len(comparison.pairs)
            yield Heading(f"{regressed} of {count(pairs, 'pair')} regressed in {comparison.b.label}")
            yield Lines(tuple(f"FAIL {pair.name}: {pair.decision.reason}" for pair in comparison.regressed))


def _sides(sides: Sequence[Side]) -> Iterator[Block]:
    yield Lines(tuple(f"{side.label}: {side.name} ({side.kind}), {_held(side)}" for side in sides))
    faults = [f"known fault of {side.label}: {fault}" for side in sides for fault in side.faults]
    if faults:
        yield Lines(tuple(faults))
    names = differing_facts(sides)
    # What one side alone records is no difference, and would fill the table.
    told = [name for name in names if sum(name in side.facts for side in sides) > 1]
    if told:
        rows = [(name, *(side.facts.get(name, NOT_RECORDED) for side in sides)) for name in told]
        headers = ("what differs", *(side.label for side in sides))
        yield Table(headers, ("left",) * len(headers), tuple(rows))
    untold = {side.label: [n for n in names if n not in told and n not in side.facts] for side in sides}
    if any(untold.values()):
        yield Lines(tuple(f"{NOT_RECORDED} in {label}: {', '.join(them)}" for label, them in untold.items() if them))


def _held(side: Side) -> str:
    return count(len(side.pairs), "pair") + (f" and {len(side.serving)} under load" if side.serving else "")


def differing_facts(sides: Sequence[Side]) -> list[str]:
    """The names of the facts that are not the same on all sides, in the order of the side that knows most."""
    names = dict.fromkeys(name for side in sorted(sides, key=lambda s: -len(s.facts)) for name in side.facts)
    return [name for name in names if len({side.facts.get(name) for side in sides}) > 1]


def _comparison(comparison: SideComparison, only_regressed: bool) -> Iterator[Block]:
    yield Heading(f"{comparison.b.label} against {comparison.a.label}")
    yield Lines((_summary(comparison), *_not_judged(comparison)))
    shown = comparison.regressed if only_regressed else comparison.pairs
    if shown:
        yield _figures(comparison, shown)
        yield Lines(tuple(_legend(comparison, shown)))
    else:
        yield Lines(("nothing to show: no pair regressed",))
    missing = list(_missing(comparison))
    if missing:
        yield Lines(tuple(missing))
    yield from _aggregates(comparison, only_regressed)
    reasons = [] if only_regressed else list(_reasons(comparison))
    if reasons:
        yield Heading("Why neither PASS nor FAIL")
        yield Lines(tuple(reasons))


def _summary(comparison: SideComparison) -> str:
    pairs = comparison.pairs
    found = Counter(pair.decision.status for pair in pairs)
    verdicts = ", ".join(f"{found[status]} {status}" for status in Status if found[status])
    regressed = len(comparison.regressed)
    start = f"{count(len(pairs), 'pair')} in common"
    if not verdicts:
        return f"{start}, and no verdict on any of them: the ratios alone"
    unjudged = f", {found[None]} without a verdict" if found[None] else ""
    return f"{start}: {'no pair regressed' if not regressed else f'{regressed} regressed'} ({verdicts}{unjudged})"


def _not_judged(comparison: SideComparison) -> list[str]:
    """A line for each reason that there is no verdict: sixty-four times the same one would hide the figures."""
    reasons = Counter(pair.decision.reason for pair in comparison.pairs if pair.decision.status is None)
    return [f"no verdict on {count(number, 'pair')}: {reason}" for reason, number in reasons.items()]


def _figures(comparison: SideComparison, pairs: Sequence[PairComparison]) -> Table:
    judged = any(pair.decision.status is not None for pair in comparison.pairs)
    a, b = comparison.a.label, comparison.b.label
    headers = ("pair", "metric", a, b, "ratio", "95 % interval", *(("verdict",) if judged else ()))
    align = ("left", "left", "right", "right", "right", "left", *(("left",) if judged else ()))
    rows = []
    for pair in pairs:
        for number, metric in enumerate(pair.metrics):
            first = number == 0
            verdict = (str(pair.decision.status or "") if first else "",) if judged else ()
            rows.append((pair.name if first else "", *_cells(metric), *verdict))
    return Table(headers, align, tuple(rows))


def _cells(compared: MetricComparison) -> tuple[str, ...]:
    metric = compared.metric
    figures = (NOT_MEASURED if value is None else metric.shown(value) for value in (compared.a, compared.b))
    change = "" if compared.change is None else metric.change_shown(compared.change)
    return metric.name, *figures, change, _interval(compared)


def _interval(compared: MetricComparison) -> str:
    if compared.low is None or compared.high is None:
        return ""
    suffix = f" {WITHIN}" if compared.interval is IntervalKind.WITHIN else ""
    return f"{ratio(compared.low)} … {ratio(compared.high)}{suffix}"


def _legend(comparison: SideComparison, pairs: Sequence[PairComparison]) -> Iterator[str]:
    """What the table's words mean."""
    b = comparison.b.label
    yield f"ratio: above 1 {b} is better, whatever the metric; with a unit it is a difference: above 0 {b} is better"
    if any(metric.interval is IntervalKind.WITHIN for pair in pairs for metric in pair.metrics):
        yield _WITHIN_LEGEND
    yield from scheme_notes(pair.precision for pair in pairs)


def _reasons(comparison: SideComparison) -> Iterator[str]:
    """What would decide more, and the reason of each verdict that the top did not give."""
    speaking = [pair for pair in comparison.pairs if pair.decision.status not in (None, Status.PASS, Status.FAIL)]
    doubtful = [pair.processes for pair in speaking if pair.decision.status is Status.INCONCLUSIVE]
    enough = ((comparison.a, DEFAULT.min_processes), (comparison.b, DEFAULT.confirming_look))
    for (side, needed), taken in zip(enough, zip(*doubtful, strict=True), strict=False):
        if min(taken) < needed:
            yield f"{side.label}: {needed} processes of each pair, or more, would decide more (--vq-runs {needed})"
    yield from (f"{pair.decision.status} {pair.name}: {pair.decision.reason}" for pair in speaking)


def _missing(comparison: SideComparison) -> Iterator[str]:
    """What only one side has, by name."""
    for side, pairs, metrics in (
        (comparison.a, comparison.only_a, comparison.metrics_of_a),
        (comparison.b, comparison.only_b, comparison.metrics_of_b),
    ):
        if pairs:
            yield f"only {side.label} measured {count(len(pairs), 'pair')}: {', '.join(pairs)}"
        if metrics:
            yield f"of the pairs in common only {side.label} has: {', '.join(metrics)}"
        if side.failures:
            yield f"{side.label} failed to measure {count(len(side.failures), 'pair')}: {', '.join(side.failures)}"


def _aggregates(comparison: SideComparison, only_regressed: bool) -> Iterator[Block]:
    whole = " (of all pairs in common, not only of those above)" if only_regressed else ""
    yield Heading(f"Geometric mean of the ratios, mean of the differences{whole}")
    headers = ("metric", "category", "pairs", "ratio", "range", "left out")
    rows = tuple(_aggregate_row(aggregate) for aggregate in comparison.aggregates)
    yield Table(headers, ("left", "left", "right", "right", "left", "right"), rows)
    left_out: dict[tuple[str, ...], list[str]] = {}
    for aggregate in comparison.aggregates:
        if aggregate.left_out and aggregate.category is None:
            left_out.setdefault(aggregate.left_out, []).append(aggregate.metric.name)
    if left_out:
        lines = (f"left out of {', '.join(metrics)}: {', '.join(pairs)}" for pairs, metrics in left_out.items())
        yield Lines(tuple(lines))


def _aggregate_row(aggregate: Aggregate) -> tuple[str, ...]:
    metric, changes = aggregate.metric, aggregate.changes
    mean = "" if aggregate.mean is None else metric.change_shown(aggregate.mean)
    span = f"{metric.change_shown(min(changes))} … {metric.change_shown(max(changes))}" if changes else ""
    is_whole = aggregate.category is None
    return (
        metric.name if is_whole else "",
        "all" if is_whole else str(aggregate.category),
        str(len(changes)),
        mean,
        span,
        str(len(aggregate.left_out) or ""),
    )
