"""Pairs under load on two sides, side by side: figures, and no verdict, which a run gives at its stored rate. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pytest_vq.report.document_blocks import NOT_MEASURED, Block, Heading, Lines, Table
from pytest_vq.report.serving_claims import bracket_words, late_words
from pytest_vq.report.side_serving import ServingComparison
from pytest_vq.schema.serving import ServingFigures
from pytest_vq.wording import figure, milliseconds

_NOT_STORED = "baselines store no bounds on the share of late requests"


def _rate(read: Callable[[ServingFigures], float | None]) -> Callable[[ServingFigures], str]:
    def shown(figures: ServingFigures) -> str:
        value = read(figures)
        return NOT_MEASURED if value is None else f"{figure(value)}/s"

    return shown


_SHOWN: tuple[tuple[str, Callable[[ServingFigures], str]], ...] = (
    ("rate sent", _rate(lambda found: found.target_qps)),
    ("late", late_words),
    ("p99.5", lambda found: NOT_MEASURED if found.p995_ms is None else milliseconds(found.p995_ms)),
    ("highest rate", lambda found: bracket_words(found.max_qps_low, found.max_qps_high) or "not searched"),
    ("offline rate", _rate(lambda found: found.offline_qps)),
)


def blocks_of_serving(labels: tuple[str, str], served: Sequence[ServingComparison]) -> Iterator[Block]:
    """The pairs under load of two sides with these labels; nothing where neither has any."""
    if not served:
        return
    a, b = labels
    yield Heading(f"Under load: {b} against {a}")
    rows = []
    for one in served:
        name = f"{one.known.case_id} ({one.known.figures.scenario})"
        for number, (what, shown) in enumerate(_SHOWN):
            cells = (NOT_MEASURED if side is None else shown(side.figures) for side in (one.a, one.b))
            rows.append((name if number == 0 else "", what, *cells))
    yield Table(("pair under load", "figure", a, b), ("left", "left", "right", "right"), tuple(rows))
    yield Lines(tuple(_remarks(served)))


def _remarks(served: Sequence[ServingComparison]) -> Iterator[str]:
    yield (
        "no verdict here: a run judges them at the rate that its baseline stores. Late: the share of requests late or "
        "not answered (bounds at 99.9 % a side); at one and the same rate, bounds that lie apart differ clearly"
    )
    sides = [side for one in served for side in (one.a, one.b) if side is not None]
    if any(side.figures.violation_rate is not None and side.figures.violation_high is None for side in sides):
        yield _NOT_STORED
    for one in served:
        if one.differing:
            yield f"{one.known.case_id} was not served alike: {', '.join(one.differing)}"


def serving_json(labels: tuple[str, str], served: Sequence[ServingComparison]) -> list[dict[str, Any]]:
    """The same as JSON's values, figures to the last digit."""
    return [
        {
            "side": labels[1],
            "pair": str(one.known.case_id),
            "scenario": one.known.figures.scenario,
            "a": None if one.a is None else asdict(one.a.figures),
            "b": None if one.b is None else asdict(one.b.figures),
            "differing": list(one.differing),
        }
        for one in served
    ]
