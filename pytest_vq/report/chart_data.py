"""The rows that charts draw: one a pair, with its figures as numbers and in words. Pure.

Whatever text comes from elsewhere is made harmless here; it enters a chart as data alone, never as part of an
expression that a renderer would evaluate. A figure that was not measured is None, and so is one that a logarithmic axis
cannot show: there is no place on it for zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_vq.precision.precisions import precision_place
from pytest_vq.report.escaping import plain
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import EAGER, CaseId
from pytest_vq.wording import between, figure, milliseconds, plain_percent, size, times

_MIB = 2**20
ChartRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChartRows:
    """The pairs of a run as rows, and what stands on the axes, in order."""

    rows: tuple[ChartRow, ...]  # by model, largest first, then from the widest precision to the narrowest
    models: tuple[str, ...]  # with the batch where a run has several
    schemes: tuple[str, ...]
    categories: tuple[str, ...]
    drawn: dict[str, list[ChartRow]] = field(default_factory=dict)  # what a chart of them draws, by name

    def values(self, name: str) -> list[float]:
        """The figures of ``name`` that there are."""
        return [row[name] for row in self.having(name)]

    def having(self, *names: str) -> list[ChartRow]:
        """The rows that have a figure in all of ``names``."""
        return [row for row in self.rows if all(row[name] is not None for name in names)]


def chart_rows(records: Sequence[Record]) -> ChartRows:
    """The rows of ``records``; of a pair that was measured twice the last one counts."""
    pairs = ordered_pairs(records)
    several_batches = len({record.setup.batch for record in pairs}) > 1
    rows = tuple(_row(record, several_batches) | {"place": place} for place, record in enumerate(pairs))
    schemes = sorted({_scheme_place(record) for record in pairs})
    return ChartRows(
        rows=rows,
        models=tuple(dict.fromkeys(row["model"] for row in rows)),
        schemes=tuple(dict.fromkeys(plain(name) for *_, name in schemes)),
        categories=tuple(dict.fromkeys(sorted(row["category"] for row in rows))),
    )


def ordered_pairs(records: Sequence[Record]) -> list[Record]:
    """The last record of each pair, largest model first, then by batch and from the widest precision down."""
    last: dict[CaseId, Record] = {record.case_id: record for record in records}
    sizes: dict[str, int] = {}
    for record in last.values():
        name = record.identity.model
        sizes[name] = max(sizes.get(name, 0), record.identity.parameters)

    def place(record: Record) -> tuple[int, str, int, tuple[int, bool, str]]:
        name = record.identity.model
        return -sizes[name], name, record.setup.batch, _scheme_place(record)

    return sorted(last.values(), key=place)


def _scheme_place(record: Record) -> tuple[int, bool, str]:
    """Sorts schemes: the catalog's precisions from the widest to the narrowest, each with eager execution first."""
    setup = record.setup
    return precision_place(setup.precision), setup.execution != EAGER, setup.scheme


def _row(record: Record, several_batches: bool) -> ChartRow:
    timing, memory, setup = record.timing, record.memory, record.setup
    is_reference, peak = setup.is_reference, _positive(memory.peak_memory_bytes)
    speedup, throughput = _positive(timing.speedup), _positive(timing.throughput_ips)
    saved = None if is_reference else memory.memory_reduction
    sqnr_db = record.fidelity.sqnr_db
    batch = f" (batch {setup.batch})" if several_batches else ""
    return {
        "model": plain(record.identity.model) + batch,
        "scheme": plain(setup.scheme),
        "category": plain(record.identity.category),
        "is_reference": is_reference,
        "fill": 0 if timing.launch_bound else 1,  # an open mark is a pair whose time its launches set
        "launches": "launch-bound" if timing.launch_bound else "",
        "speedup": None if is_reference else speedup,
        "speedup_text": "" if is_reference or speedup is None else times(speedup),
        "speedup_interval": between(timing.speedup_low, timing.speedup_high, times),
        "latency_ms": _positive(timing.latency_ms),
        "latency_text": milliseconds(timing.latency_ms),
        "throughput_ips": throughput,
        "throughput_text": "" if throughput is None else f"{figure(throughput)} images/s",
        "peak_mib": None if peak is None else peak / _MIB,
        "peak_text": "" if peak is None else size(peak),
        "saved": saved,
        "saved_text": "" if saved is None else plain_percent(saved),
        "peak_share": None if saved is None or saved >= 1 else 1 - saved,
        "parameters_m": _positive(record.identity.parameters / 1e6),
        "parameters_text": f"{figure(record.identity.parameters / 1e6)} million",
        "sqnr_db": sqnr_db,
        "sqnr_text": "the reference" if is_reference else "" if sqnr_db is None else f"{sqnr_db:.1f} dB",
        "verdict": str(record.verdict or ""),
    }


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def on_the_front(rows: Sequence[ChartRow]) -> list[ChartRow]:
    """The rows with a latency, a peak and a fidelity, filled where no other scheme of its model beats it.

    One beats another that is no worse in all three and better in one. FP32 is the most faithful by definition.
    """
    known = [row for row in rows if row["latency_ms"] and row["peak_mib"] and _likeness(row) is not None]
    by_model: dict[str, list[tuple[float, ...]]] = {}
    for row in known:
        by_model.setdefault(row["model"], []).append(_costs(row))
    return [row | {"fill": int(not any(_beats(o, _costs(row)) for o in by_model[row["model"]]))} for row in known]


def _likeness(row: ChartRow) -> float | None:
    return float("inf") if row["is_reference"] else row["sqnr_db"]


def _costs(row: ChartRow) -> tuple[float, ...]:
    likeness = _likeness(row)
    return row["latency_ms"], row["peak_mib"], -(likeness if likeness is not None else 0.0)


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
