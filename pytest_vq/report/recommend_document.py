"""What a recommendation says, as blocks of raw text: the same in every format. Pure.

The answer comes first; then what it rests on: the pairs, the limits, the tree, the costs; what is missing, last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_vq.report.constraints import Answer, Check
from pytest_vq.report.decision_tree import Path
from pytest_vq.report.deployment_cost import DeploymentCost, formulas
from pytest_vq.report.document_blocks import NOT_MEASURED, Block, Heading, Lines, Table
from pytest_vq.report.limits import decibels
from pytest_vq.report.pareto import Axes
from pytest_vq.report.recommendation import Assessment, NearestMiss, Recommendation
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.report.tiers import Pick
from pytest_vq.report.under_load_document import blocks_under_load
from pytest_vq.schema.record import Record
from pytest_vq.wording import between, count, figure, milliseconds, plain_percent, size

_NONE = "-"
_PER_MODEL = (
    "balanced and accurate are told per model: fidelity is that to the model's own FP32, and not which model answers "
    "better"
)


def blocks_of_recommendation(found: Recommendation) -> list[Block]:
    """The document."""
    of_pairs = [*_pairs(found), *_limits(found), *_tree(found)] if found.assessments else []
    return [*_answer(found), *blocks_under_load(found), *of_pairs, *_costs(found), *_missing(found)]


def _answer(found: Recommendation) -> Iterator[Block]:
    request = found.request
    yield Heading("Which pair to deploy")
    asked = "; ".join(limit.text for limit in request.constraints) or "no limits"
    named = f" ({request.scenario.name})" if request.scenario else ""
    yield Lines((f"asked for{named}: {asked}; what matters most: {request.objective}", _told(found)))
    if found.advice:
        yield Lines(found.advice)
    if not found.qualified:
        yield Lines(("nothing qualifies; the nearest misses:", *map(miss_shown, found.nearest_misses)))
    if not found.tiers:
        return
    headers = ("model", "fast", "balanced", "accurate", "the same pair")
    rows = [(t.model, *map(_pick, (t.fast, t.balanced, t.accurate)), t.coincidence or _NONE) for t in found.tiers]
    yield Table(headers, ("left",) * len(headers), tuple(rows))
    speed, best = ("throughput", "highest") if _by_throughput(found) else ("latency", "lowest")
    legend = (
        f"fast: {best} {speed}; accurate: highest fidelity, the fastest of those that noise cannot tell from it; "
        f"balanced: the Pareto-best with the smallest distance to the best {speed}, peak memory and fidelity, each "
        "scaled to 0 … 1"
    )
    foremost = found.foremost
    first = (f"{foremost.by} of all that hold: {foremost.pick.shown}",) if foremost else ()
    several = (_PER_MODEL,) if len(found.paths) > 1 else ()
    yield Lines((*first, legend, *several))


def _told(found: Recommendation) -> str:
    if not found.assessments:
        return f"{count(len(found.served), 'row')} under load"
    pairs = count(len(found.assessments), "pair")
    if not found.request.constraints:
        return f"{pairs} measured"
    answers = [assessment.answer for assessment in found.assessments]
    others = [answer for answer in (Answer.NO, Answer.UNDECIDED, Answer.NOT_MEASURED) if answer in answers]
    listed = ", ".join(f"{answers.count(answer)} {answer}" for answer in others)
    return f"{answers.count(Answer.YES)} of {pairs} hold" + (f" ({listed})" if listed else "")


def _by_throughput(found: Recommendation) -> bool:
    return any(assessment.axes.by_throughput for assessment in found.assessments)


def _pick(pick: Pick | None) -> str:
    return NOT_MEASURED if pick is None else pick.shown


def miss_shown(miss: NearestMiss) -> str:
    """The nearest miss of one limit, in words."""
    limit = miss.constraint
    if miss.is_held_by_all:
        return f"{limit.text}: held by every pair"
    held = f"held by {count(miss.held_by, 'pair')}; " if miss.held_by else ""
    if miss.name is None or miss.check is None or miss.excess is None:
        return f"{limit.text}: {held}{miss.hint}"
    return f"{limit.text}: {held}nearest: {miss.name}, {_beyond(miss)}; {miss.check.shown}"


def _beyond(miss: NearestMiss) -> str:
    limit, excess = miss.constraint, miss.excess or 0.0
    if excess == 0:
        return "within it, but not for sure"
    share = f" ({plain_percent(excess / limit.limit)})" if limit.limit > 0 else ""
    return f"{'above' if limit.is_upper else 'short'} by {limit.shown(excess)}{share}"


def _pairs(found: Recommendation) -> Iterator[Block]:
    yield Heading("The pairs, and which are Pareto-best of their model")
    headers = ("pair", "median latency", "95 % interval", "images/s", "peak memory", "fidelity", "Pareto")
    align = ("left", "right", "left", "right", "right", "right", "left")
    yield Table(headers, align, tuple(_pair_row(assessment) for assessment in found.assessments))
    speed = "throughput" if _by_throughput(found) else "latency"
    told = "no pair is at least as good on every axis and clearly better on one"
    lines = [
        f"best: over {speed}, peak memory and fidelity, {told}",
        "tie: wherever it is better than that pair their 95 % intervals overlap, so it may be best by noise alone; a "
        "latency without an interval counts as it is",
    ]
    several = sum(assessment.candidate.processes > 1 for assessment in found.assessments)
    lines.append(
        "95 % interval: of one process's samples, which tell nothing of how processes differ"
        + (f"; where several measured a pair ({count(several, 'pair')}), of their mean too" if several else "")
    )
    lines += notes_on(assessment.candidate.record for assessment in found.assessments)
    if _by_throughput(found):
        lines.append("throughput, peak memory and SQNR have no interval: the least difference counts")
    yield Lines(tuple(lines))


def _pair_row(assessment: Assessment) -> tuple[str, ...]:
    record = assessment.candidate.record
    timing, peak = record.timing, record.memory.peak_memory_bytes
    interval = assessment.candidate.latency_interval_ms
    return (
        assessment.candidate.name,
        milliseconds(timing.latency_ms),
        NOT_MEASURED if interval is None else between(*interval, milliseconds),
        NOT_MEASURED if timing.throughput_ips is None else figure(timing.throughput_ips),
        NOT_MEASURED if peak is None else size(peak),
        _fidelity(record, assessment.axes),
        assessment.standing.shown,
    )


def _fidelity(record: Record, axes: Axes) -> str:
    fidelity = record.fidelity
    if axes.by_accuracy and fidelity.accuracy is not None:
        return f"{fidelity.accuracy:.1%} right"
    if record.setup.is_reference:
        return "lossless"
    return NOT_MEASURED if fidelity.sqnr_db is None else decibels(fidelity.sqnr_db)


def _limits(found: Recommendation) -> Iterator[Block]:
    limits = found.request.constraints
    if not limits:
        return
    yield Heading("Which pairs hold the limits")
    rows = [
        (assessment.candidate.name, *(one.shown for one in assessment.checks), assessment.answer)
        for assessment in found.assessments
    ]
    headers = ("pair", *(limit.text for limit in limits), "holds all")
    yield Table(headers, ("left",) * len(headers), tuple(rows))
    undecided = (
        "undecided: the 95 % interval straddles the limit (of a percentile: its one-sided 95 % bounds, by order "
        "statistics); what other machines, or other days, would give no interval covers"
    )
    yield Lines((undecided, *_hints(check for assessment in found.assessments for check in assessment.checks)))


def _hints(checks: Iterable[Check]) -> tuple[str, ...]:
    """How to measure what was not, once each."""
    return tuple(dict.fromkeys(check.hint for check in checks if check.hint))


def _tree(found: Recommendation) -> Iterator[Block]:
    yield Heading("The decision tree")
    rows, answers = [], {assessment.candidate.name: assessment.answer for assessment in found.assessments}
    for path in found.paths:
        steps = " → ".join(branch.shown for branch in path.branches)
        rows.append(f"path of {path.model}: {steps} → what matters most? {path.objective} → {_pick(path.pick)}")
        answer = answers[path.pick.candidate.name] if path.pick else Answer.YES
        rows[-1] += "" if answer is Answer.YES else f" (does it hold the limits? {answer})"
    yield Lines(tuple(rows))
    questions = tuple(branch.question.text for branch in found.paths[0].branches)  # the same for every model
    evidence = tuple(row for path in found.paths for row in _evidence(path))
    yield Table(("pair", *questions), ("left",) * (1 + len(questions)), evidence)
    hints = _hints(check for path in found.paths for branch in path.branches for _, check in branch.checks)
    yield Lines((f"a {_NONE} stands for a pair that an earlier question left out", *hints))


def _evidence(path: Path) -> Iterator[tuple[str, ...]]:
    """A row a pair: its answer to each question that it came to."""
    answers = [{candidate.name: check.shown for candidate, check in branch.checks} for branch in path.branches]
    for name in answers[0]:
        yield (name, *(answer.get(name, _NONE) for answer in answers))


def _costs(found: Recommendation) -> Iterator[Block]:
    if not found.costs:
        return
    yield Heading("What it costs, requests back to back" if found.served else "What it costs")
    yield Lines(formulas(found.request.prices))
    headers = ("pair", "images/s", "per million", "instances", "saving an hour", "payback", "three-year return")
    columns = [_cost_row(cost) for cost in found.costs]
    used = [i for i in range(len(headers)) if any(row[i] for row in columns)]
    rows = tuple(tuple(row[i] or _NONE for i in used) for row in columns)
    yield Table(tuple(headers[i] for i in used), ("left", *["right"] * (len(used) - 1)), rows)


def _cost_row(cost: DeploymentCost) -> tuple[str, ...]:
    return (
        cost.candidate.name,
        NOT_MEASURED if cost.throughput_ips is None else figure(cost.throughput_ips),
        "" if cost.per_million is None else figure(cost.per_million),
        "" if cost.instances is None else str(cost.instances),
        "" if cost.saving_per_hour is None else figure(cost.saving_per_hour),
        cost.payback_shown,
        "" if cost.three_year_return is None else f"{100 * cost.three_year_return:+,.0f} %",
    )


def _missing(found: Recommendation) -> Iterator[Block]:
    if found.unmeasured:
        yield Heading("Not measured")
        yield Lines(found.unmeasured)
