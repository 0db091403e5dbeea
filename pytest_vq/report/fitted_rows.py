"""Rows of Markdown tables as far as they fit: what GitHub takes has a size, and a row cut in two says nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_vq.report.escaping import markdown
from pytest_vq.report.facts import verdict_counts
from pytest_vq.report.serving_claims import late_words
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import STUDY, TABLE, Results
from pytest_vq.wording import figure, milliseconds, size, times

NOT_MEASURED = "not measured"
OPEN = (Status.FAIL, Status.INCONCLUSIVE)  # what somebody should look at
_LONGEST_CELL = 1500  # characters: one endless reason must not take the place of all other rows
_PAIRS_HEAD = (
    "| pair | verdict | reason | median latency | speedup | peak memory |\n| --- | --- | --- | ---: | ---: | ---: |\n"
)
_SERVING_HEAD = (
    "| pair under load | verdict | reason | scenario | rate sent | p99.5 | late |\n"
    "| --- | --- | --- | --- | ---: | ---: | ---: |\n"
)
_FAILURES_HEAD = "| pair | error | message |\n| --- | --- | --- |\n"


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that stand together: what comes before and after them, and what a reader calls them."""

    name: str
    head: str
    rows: tuple[str, ...]
    tail: str = ""


def counts(results: Results) -> str:
    """How many pairs got each verdict, the worst first, and how many could not be measured: ``1 FAIL, 3 PASS``."""
    words = [f"{found.pairs} {found.name}" for found in verdict_counts(results.records)]
    words += [f"{len(results.failures)} {NOT_MEASURED}"] if results.failures else []
    return ", ".join(words) or "nothing was measured"


def devices(results: Results) -> str:
    """What it was measured on, as Markdown."""
    return ", ".join(cell(name) for name in dict.fromkeys(e.device_name for e in results.environments))


def cell(text: str) -> str:
    """``text`` as Markdown, harmless and of bounded length."""
    further = len(text) - _LONGEST_CELL
    return markdown(text) if further <= 0 else f"{markdown(text[:_LONGEST_CELL])} … ({further} more characters)"


def pairs_group(name: str, records: Sequence[Record], head: str, tail: str = "") -> RowGroup:
    """A table of measured pairs, and callables, below ``head``."""
    return RowGroup(name, head + _PAIRS_HEAD, tuple(_row(_cells(record)) for record in records), tail)


def serving_group(name: str, records: Sequence[Record], head: str, tail: str = "") -> RowGroup:
    """A table of pairs under load below ``head``."""
    return RowGroup(name, head + _SERVING_HEAD, tuple(_row(_serving_cells(record)) for record in records), tail)


def by_load(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Those of pairs by themselves and of callables, and those of pairs under load."""
    told = list(records)
    return [r for r in told if r.setup.serving is None], [r for r in told if r.setup.serving is not None]


def open_groups(results: Results) -> list[RowGroup]:
    """What somebody should look at, a table each: pairs that FAIL, that are undecided, that could not be measured."""
    groups = []
    for status in OPEN:
        alone, served = by_load(record for record in results.records if record.verdict is status)
        groups.append(pairs_group(str(status), alone, f"### {status}\n\n", "\n"))
        groups.append(serving_group(f"{status} under load", served, f"### {status} under load\n\n", "\n"))
    rows = tuple(_row(_failure_cells(failure)) for failure in results.failures)
    return [*groups, RowGroup(NOT_MEASURED, f"### Could not be measured\n\n{_FAILURES_HEAD}", rows, "\n")]


def fitted(head: str, groups: Sequence[RowGroup], limit_bytes: int) -> str | None:
    """``head`` and as many rows of ``groups``, the first ones, as fit; where some were cut, a line that says which.

    None where there is no room for ``head`` and that line.
    """
    left = limit_bytes - _bytes(head) - _bytes(_cut_line({group.name: len(group.rows) for group in groups}))
    if left < 0:
        return None
    parts, cut = [head], dict[str, int]()
    for group in groups:
        room = left - _bytes(group.head) - _bytes(group.tail)
        kept = 0
        # After the first row that found no place none is written: a shorter one below would hide the gap.
        while not cut and kept < len(group.rows) and _bytes(group.rows[kept]) <= room:
            room -= _bytes(group.rows[kept])
            kept += 1
        if kept:
            parts += [group.head, *group.rows[:kept], group.tail]
            left = room
        if kept < len(group.rows):
            cut[group.name] = len(group.rows) - kept
    return "".join(parts) + (_cut_line(cut) if cut else "")


def _cut_line(cut: Mapping[str, int]) -> str:
    told = ", ".join(f"{rows} {name}" for name, rows in cut.items())
    return f"\nCut here, for GitHub takes no more; rows left out: {told}. {TABLE} and {STUDY} have them all.\n"


def _cells(record: Record) -> tuple[str, ...]:
    timing, peak = record.timing, record.memory.peak_memory_bytes
    is_reference = record.setup.is_reference
    return (
        record.id,
        str(record.verdict or ""),
        record.reason,
        milliseconds(timing.latency_ms),
        "" if is_reference or timing.speedup is None else times(timing.speedup),
        "" if peak is None else size(peak),
    )


def _serving_cells(record: Record) -> tuple[str, ...]:
    figures = record.serving
    return (
        record.id,
        str(record.verdict or ""),
        record.reason,
        figures.scenario or "",
        "" if figures.target_qps is None else f"{figure(figures.target_qps)}/s",
        "" if figures.p995_ms is None else milliseconds(figures.p995_ms),
        "" if figures.violation_rate is None else late_words(figures),
    )


def _failure_cells(failure: Failure) -> tuple[str, ...]:
    return failure.id, failure.error, failure.message


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |\n"


def _bytes(text: str) -> int:
    return len(text.encode())
