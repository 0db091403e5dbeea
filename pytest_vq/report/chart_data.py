"""The rows that charts draw: one a pair, with its figures as numbers and in words. Pure.

Whatever text comes from elsewhere is made harmless here; it enters a chart as data alone, never as part of an
expression that a renderer would evaluate. A figure that was not measured is None, and so is one that a logarithmic axis
cannot show: there is no place on it for zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_vq.report.chart_schemes import SchemeKind
from pytest_vq.report.escaping import plain
from pytest_vq.report.scheme_order import SchemePlace, setup_place
from pytest_vq.schema.figures import present
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.wording import between, figure, milliseconds, plain_percent, size, times

_MIB = 2**20
ChartRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChartRows:
    """The pairs of a run as rows, and what stands on the axes, in order."""

    rows: tuple[ChartRow, ...]  # by model, largest first, then from the widest precision to the narrowest
    models: tuple[str, ...]  # with the batch where a run has several
    schemes: tuple[str, ...]
    kinds: tuple[SchemeKind, ...]  # of each of them
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
    places = {setup_place(record.setup): record.setup for record in pairs}
    schemes = {plain(places[place].scheme): places[place] for place in sorted(places)}
    return ChartRows(
        rows=rows,
        models=tuple(dict.fromkeys(row["model"] for row in rows)),
        schemes=tuple(schemes),
        kinds=tuple(SchemeKind(setup.precision, setup.execution) for setup in schemes.values()),
        categories=tuple(dict.fromkeys(sorted(row["category"] for row in rows))),
    )


def ordered_pairs(records: Sequence[Record]) -> list[Record]:
    """The last record of each pair, largest model first, then by batch and from the widest precision down.

    Callables are none: they have neither a model nor anything that a scheme could be compared with. Nor are pairs under
    load, whose times are of another kind.
    """
    last: dict[CaseId, Record] = {record.case_id: record for record in records if record.setup.is_pair}
    sizes: dict[str, float] = {}
    for record in last.values():
        name = record.identity.model
        sizes[name] = max(sizes.get(name, 0), _parameters(record))

    def place(record: Record) -> tuple[float, str, int, SchemePlace]:
        name = record.identity.model
        return -sizes[name], name, record.setup.batch, setup_place(record.setup)

    return sorted(last.values(), key=place)


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
        "parameters_m": _positive(_parameters(record) / 1e6),
        "parameters_text": f"{figure(_parameters(record) / 1e6)} million",
        "sqnr_db": sqnr_db,
        "sqnr_text": "the reference" if is_reference else "" if sqnr_db is None else f"{sqnr_db:.1f} dB",
        "verdict": str(record.verdict or ""),
    }


def _parameters(record: Record) -> float:
    return present(record.identity.parameters)  # every pair has its model's


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None
