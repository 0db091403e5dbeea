"""What a recommendation says of rows under load: the answer to a question about traffic, and what it costs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_vq.report.constraints import Answer
from pytest_vq.report.deployment_cost import serving_formulas
from pytest_vq.report.document_blocks import NOT_MEASURED, Block, Heading, Lines, Table
from pytest_vq.report.serving_claims import bracket_words, late_words
from pytest_vq.report.under_load import ServedAnswer
from pytest_vq.wording import between, figure, milliseconds

if TYPE_CHECKING:
    from pytest_vq.report.recommendation import Recommendation

_ABSENT = "-"
_LEGEND = (
    "holds: yes where the upper bound on the share of late requests is within what may be late, no where the lower one "
    "is above it (99.9 % each), else undecided; nothing is said of other rates than the one that was sent",
    "a latency limit is kept or not: of those that keep it the highest confirmed rate comes first, for latencies at "
    "different rates do not compare",
)


def blocks_under_load(found: Recommendation) -> Iterator[Block]:
    """The rows under load, and their costs; nothing where none were asked."""
    if not found.served:
        return
    yield Heading("Under load")
    first = found.served[0]
    yield Lines((_first_words(first), *_LEGEND))
    headers = ("row", "sent", "late", "p99.5", "highest rate", "holds", "why")
    align = ("left", "right", "left", "right", "right", "left", "left")
    yield Table(headers, align, tuple(_row(served) for served in found.served))
    hints = dict.fromkeys(one.hint for served in found.served for one in served.checks if one.hint)
    if hints:
        yield Lines(tuple(hints))
    if found.request.prices.asks:
        yield from _costs(found)


def _first_words(first: ServedAnswer) -> str:
    if first.answer is not Answer.YES or first.cost is None:
        return "no row under load holds"
    return f"highest confirmed rate: {first.pair}, {figure(first.cost.confirmed_qps)} queries/s"


def _row(served: ServedAnswer) -> tuple[str, ...]:
    figures = served.record.serving
    return (
        served.name,
        NOT_MEASURED if figures.target_qps is None else f"{figure(figures.target_qps)}/s",
        late_words(figures),
        NOT_MEASURED if figures.p995_ms is None else milliseconds(figures.p995_ms),
        bracket_words(figures.max_qps_low, figures.max_qps_high) or "not searched",
        str(served.answer),
        "; ".join(one.shown for one in served.checks if one.answer is not Answer.YES),
    )


def _costs(found: Recommendation) -> Iterator[Block]:
    yield Heading("What it costs under load")
    yield Lines((*serving_formulas(found.request.prices), f"a {_ABSENT} stands for a row whose bound is not confirmed"))
    headers = ("row", "confirmed rate", "per million requests", "its range", "instances")
    rows = [_cost_row(served) for served in found.served]
    used = [i for i in range(len(headers)) if i < 2 or any(row[i] for row in rows)]
    cells = tuple(tuple(row[i] or _ABSENT for i in used) for row in rows)
    yield Table(tuple(headers[i] for i in used), ("left", *["right"] * (len(used) - 1)), cells)


def _cost_row(served: ServedAnswer) -> tuple[str, ...]:
    cost = served.cost
    if cost is None:
        return served.name, "", "", "", ""
    return (
        served.name,
        f"{figure(cost.confirmed_qps)}/s",
        "" if cost.per_million is None else figure(cost.per_million),
        between(cost.per_million_low, cost.per_million_high, figure),
        "" if cost.instances is None else str(cost.instances),
    )
