"""A report's section on pairs under load: their figures, what each bound comes to, what fell short. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_vq.report.document_blocks import Table
from pytest_vq.report.serving_claims import claim_words
from pytest_vq.report.serving_rows import LEGEND, ordered_serving, serving_rows, terms_in_words
from pytest_vq.schema.load_run import OK
from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import OFFLINE
from pytest_vq.wording import count, figure, milliseconds, plain_percent, size

UNIT_NOTE = "rates are queries a second"
METHOD = (
    "Under load, a row's times are from the moment that a request was due, in fresh processes; its bounds hold at "
    "99.9 % a side, with requests that depend on each other counted as fewer"
)


def figures_table(records: Sequence[Record]) -> Table:
    """A row a pair under load."""
    found = serving_rows(records)
    return Table(found.titles, found.align, found.rows)


def remarks(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """What is to be said beside the figures, a sentence each, by title; titles without any are left out."""
    found = {
        "What the bounds come to": claims(records),
        "Requests that were not answered": shortfalls(records),
        "Processes that did not count": repeats(records),
    }
    return {title: lines for title, lines in found.items() if lines}


def claims(records: Sequence[Record]) -> tuple[str, ...]:
    """What the row of each pair under load shows of its latency bound, a sentence each.

    Where all requests come at once, most wait by intention: of that there is a rate, and no bound to keep.
    """
    served = [(record, terms) for record in ordered_serving(records) if (terms := record.setup.serving) is not None]
    served = [(record, terms) for record, terms in served if terms.scenario != OFFLINE]
    return tuple(f"{served_name(record)}: {claim_words(record, terms)}" for record, terms in served)


def shortfalls(records: Sequence[Record]) -> tuple[str, ...]:
    """What became of requests that were not answered, and what was said of the first of each kind, a sentence each."""
    return tuple(line for record in ordered_serving(records) for line in _shortfalls_of(record))


def _shortfalls_of(record: Record) -> Iterator[str]:
    load = record.load
    for outcome, number in sorted(load.outcomes.items()) if load is not None else ():
        if outcome != OK and number and load is not None:
            said = load.messages.get(outcome, "")
            told = f"; the first: {said}" if said else ""
            yield f"{served_name(record)}: {count(number, 'request')} {outcome}{told}"


def repeats(records: Sequence[Record]) -> tuple[str, ...]:
    """How many processes of each pair gave way to others, a sentence each; of a pair without any, nothing."""
    return tuple(
        f"{served_name(record)}: {count(load.repeats, 'process', 'processes')} did not count, because what sent the "
        "load lagged; another one took the place of each"
        for record in ordered_serving(records)
        if (load := record.load) is not None and load.repeats
    )


def sweep_table(records: Sequence[Record]) -> Table:
    """What a full batch takes by its size, a row each; none where nothing of it was measured."""
    rows, previous = [], None
    for record in ordered_serving(records):
        for batch in record.load.batch_times if record.load is not None else ():
            name = served_name(record)
            cells = (str(batch.batch), milliseconds(batch.execution_ms), figure(batch.images_per_s))
            rows.append(("" if name == previous else name, *cells))
            previous = name
    return Table(("pair under load", "batch", "a batch", "images/s"), ("left", "right", "right", "right"), tuple(rows))


def fallback_table(records: Sequence[Record]) -> Table:
    """What it costs to fall back on FP32, of those pairs that it was measured of."""
    rows = []
    for record in ordered_serving(records):
        found = record.serving
        if found.fallback_p995_ms is None and found.fallback_memory_bytes is None:
            continue
        rows.append(
            (
                served_name(record),
                "" if found.fallback_p995_ms is None else milliseconds(found.fallback_p995_ms),
                "" if found.fallback_violation_rate is None else plain_percent(found.fallback_violation_rate),
                "" if found.fallback_memory_bytes is None else size(found.fallback_memory_bytes),
            )
        )
    headers = ("pair under load", "p99.5 with FP32 alone", "late", "memory that FP32 keeps")
    return Table(headers, ("left", "right", "right", "right"), tuple(rows))


def served_name(record: Record) -> str:
    """The id of its row, with the scenario, for one pair may be served in several: ``net-int8-serving (Server)``."""
    return f"{record.id} ({record.serving.scenario})" if record.serving.scenario else record.id


def introduction(records: Sequence[Record]) -> tuple[str, ...]:
    """How they were served, and what the table's columns mean, a sentence each."""
    return (*terms_in_words(ordered_serving(records)), UNIT_NOTE, *LEGEND)
