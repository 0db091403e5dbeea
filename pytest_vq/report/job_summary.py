"""The summary that GitHub shows on a job's page: verdict counts first, passes folded. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_vq.report.escaping import markdown
from pytest_vq.report.fitted_rows import (
    OPEN,
    RowGroup,
    by_load,
    cell,
    counts,
    devices,
    fitted,
    open_groups,
    pairs_group,
    serving_group,
)
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results

LIMIT_BYTES = 2**20 - 1  # GitHub drops a step's whole summary above 1 MiB


def job_summary(results: Results, notes: Sequence[str] = (), limit_bytes: int = LIMIT_BYTES) -> str | None:
    """The summary of a run, cut on a row to fit into ``limit_bytes``; None where not even its head does.

    ``notes`` are what the run's own summary says beside its rows.
    """
    return fitted("".join(_head(results, notes)), [*open_groups(results), *_folded(results)], limit_bytes)


def _head(results: Results, notes: Sequence[str]) -> Iterator[str]:
    where = devices(results)
    yield f"## pytest-vq: {markdown(counts(results))}\n\n"
    yield f"Measured on {where}.\n\n" if where else ""
    yield "" if results.complete else "The run was interrupted: what it had measured until then is here.\n\n"
    remarks = [*notes, *notes_on(results.records)]
    yield "".join(f"- {cell(remark)}\n" for remark in remarks) + ("\n" if remarks else "")


def _folded(results: Results) -> Iterator[RowGroup]:
    """The pairs that nobody has to look at, worst first, in a table that opens at a click."""
    order: list[Status | None] = [*Status, None]
    others = sorted((r for r in results.records if r.verdict not in OPEN), key=lambda r: order.index(r.verdict))
    alone, served = by_load(others)
    if alone:
        yield pairs_group("others", alone, *_fold(alone))
    if served:
        yield serving_group("others under load", served, *_fold(served, " under load"))


def _fold(records: Sequence[Record], where: str = "") -> tuple[str, str]:
    """What stands around a table that opens at a click."""
    found = Counter(str(record.verdict or "not judged") for record in records)
    told = ", ".join(f"{pairs} {name}{where}" for name, pairs in found.items())
    return f"<details><summary>{told}</summary>\n\n", "\n</details>\n"
