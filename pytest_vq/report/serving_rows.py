"""Pairs under load as rows of a table, for the terminal and for documents alike. Pure.

Loaded by every run that measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_vq.report.report_callables import serving_in
from pytest_vq.report.scheme_order import SchemePlace, setup_place
from pytest_vq.report.serving_claims import bracket_words
from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import ServingFigures
from pytest_vq.wording import figure, plain_percent

LEGEND = (
    "late %: the share of requests late or not answered, and the upper bound on it (99.9 %)",
    "used: the rate sent, of the offline rate; wait / run: median ms of a request in the queue, and of a batch",
)


@dataclass(frozen=True, slots=True)
class ServingColumn:
    """One column: its head, how its cells are made, and how they stand."""

    title: str
    cell: Callable[[Record], str]
    align: str = "right"
    is_optional: bool = False  # left out where no row has anything in it


@dataclass(frozen=True, slots=True)
class ServingRows:
    """A table of pairs under load; each model is named once."""

    titles: tuple[str, ...]
    align: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def serving_rows(records: Sequence[Record]) -> ServingRows:
    """The rows of those of ``records`` under load: models in the order of the run."""
    served = ordered_serving(records)
    columns = [c for c in COLUMNS if not c.is_optional or any(c.cell(record) for record in served)]
    rows, previous = [], None
    for record in served:
        name = record.identity.model
        cells = [column.cell(record) for column in columns]
        rows.append(("" if name == previous else name, *cells[1:]))
        previous = name
    return ServingRows(tuple(c.title for c in columns), tuple(c.align for c in columns), tuple(rows))


def ordered_serving(records: Sequence[Record]) -> list[Record]:
    """The rows of ``records`` under load, each once: models as the run met them, then batch, scheme and scenario."""
    served = serving_in(records)
    models = {name: place for place, name in enumerate(dict.fromkeys(record.identity.model for record in served))}

    def place(record: Record) -> tuple[int, int, SchemePlace, str]:
        setup = record.setup
        return models[record.identity.model], setup.batch, setup_place(setup), record.serving.scenario or ""

    return sorted(served, key=place)


def terms_in_words(records: Sequence[Record]) -> list[str]:
    """How each of ``records`` was served, once each: ``served (Server, batches up to 8, 99.5 % within 10 ms)``."""
    return list(dict.fromkeys(r.setup.serving.words for r in records if r.setup.serving is not None))


def _of(read: Callable[[ServingFigures], float | None], shown: Callable[[float], str] = figure) -> Callable[..., str]:
    def cell(record: Record) -> str:
        value = read(record.serving)
        return "" if value is None else shown(value)

    return cell


def _late(record: Record) -> str:
    figures = record.serving
    if figures.violation_rate is None:
        return ""
    most = "" if figures.violation_high is None else f" (≤ {100 * figures.violation_high:.3g})"
    return f"{100 * figures.violation_rate:.3g}{most}"


def _medians(record: Record) -> str:
    pair = record.serving.queue_ms, record.serving.execution_ms
    return "" if None in pair else " / ".join(figure(value) for value in pair if value is not None)


COLUMNS = (
    ServingColumn("model", lambda record: record.identity.model, "left"),
    ServingColumn("scheme", lambda record: record.setup.scheme, "left"),
    ServingColumn("scenario", lambda record: record.serving.scenario or "", "left"),
    ServingColumn("sent/s", _of(lambda found: found.target_qps)),
    ServingColumn(
        "highest/s",
        lambda record: bracket_words(record.serving.max_qps_low, record.serving.max_qps_high),
        "right",
        True,
    ),
    ServingColumn("p99.5 ms", _of(lambda found: found.p995_ms)),
    ServingColumn("late %", _late),
    ServingColumn("used", _of(lambda found: found.utilisation, plain_percent)),
    ServingColumn("batch", _of(lambda found: found.mean_batch_size)),
    ServingColumn("wait / run", _medians),
    ServingColumn("verdict", lambda record: str(record.verdict or ""), "left", True),
)
