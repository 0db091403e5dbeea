"""Every pair's figures, what it took to prepare, and what its scheme did to the layers: tables of ``report.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_vq.report.document_blocks import Table
from pytest_vq.report.pareto import Standing
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.wording import between, count, figure, listed, milliseconds, plain_percent, size, times

_HEADERS = (
    "model",
    "scheme",
    "median latency",
    "95 % interval",
    "speedup",
    "95 % interval",
    "throughput",
    "peak memory",
    "saved",
    "size",
    "fidelity",
    "Pareto",
    "verdict",
)
_ALIGN = ("left", "left", *("right", "left") * 2, *("right",) * 5, "left", "left")
_CALLABLE_HEADERS = ("callable", "what ran", "median latency", "95 % interval", "p95", "device time", "peak memory")
_CALLABLE_ALIGN = ("left", "left", "right", "left", "right", "right", "right", "left")
_NAMED_LAYERS = 3  # of those left for one reason


def models_table(records: Sequence[Record], standings: Mapping[CaseId, Standing]) -> Table:
    """A row a pair, each model named once; ``standings`` has each of them."""
    rows, previous = [], None
    for record in records:
        model = record.identity.model
        cells = (*_cells(record), standings[record.case_id].shown, str(record.verdict or ""))
        rows.append((model if model != previous else "", *cells))
        previous = model
    return Table(_HEADERS, _ALIGN, tuple(rows))


def _cells(record: Record) -> tuple[str, ...]:
    timing, memory, setup = record.timing, record.memory, record.setup
    is_reference = setup.is_reference
    scheme = setup.scheme if setup.batch == 1 else f"{setup.scheme}, batch {setup.batch}"
    return (
        scheme + (" (launch-bound)" if timing.launch_bound else ""),
        milliseconds(timing.latency_ms),
        between(timing.latency_low_ms, timing.latency_high_ms, milliseconds),
        "" if is_reference or timing.speedup is None else times(timing.speedup),
        "" if is_reference else between(timing.speedup_low, timing.speedup_high, times),
        "" if timing.throughput_ips is None else f"{figure(timing.throughput_ips)} images/s",
        "" if memory.peak_memory_bytes is None else size(memory.peak_memory_bytes),
        "" if is_reference or memory.memory_reduction is None else plain_percent(memory.memory_reduction),
        "" if memory.model_size_bytes is None else size(memory.model_size_bytes),
        _fidelity(record),
    )


def _fidelity(record: Record) -> str:
    fidelity = record.fidelity
    parts = [] if fidelity.sqnr_db is None else [f"{fidelity.sqnr_db:.1f} dB"]
    parts += [] if fidelity.accuracy is None else [f"{plain_percent(fidelity.accuracy)} right"]
    return ", ".join(parts)


def callables_table(records: Sequence[Record]) -> Table:
    """A row a callable."""
    rows = tuple((*_callable_cells(record), str(record.verdict or "")) for record in records)
    return Table((*_CALLABLE_HEADERS, "verdict"), _CALLABLE_ALIGN, rows)


def _callable_cells(record: Record) -> tuple[str, ...]:
    timing, peak = record.timing, record.memory.peak_memory_bytes
    return (
        record.id,
        record.identity.method,
        milliseconds(timing.latency_ms),
        between(timing.latency_low_ms, timing.latency_high_ms, milliseconds),
        "" if timing.latency_p95_ms is None else milliseconds(timing.latency_p95_ms),
        "" if timing.device_time_ms is None else milliseconds(timing.device_time_ms),
        "" if peak is None else size(peak),
    )


def launches_table(records: Sequence[Record]) -> Table:
    """The pairs whose time is set by launches: what the device itself needs, and how much faster it is at that."""
    rows = [
        (
            record.id,
            milliseconds(record.timing.latency_ms),
            "" if record.timing.device_time_ms is None else milliseconds(record.timing.device_time_ms),
            "" if record.timing.speedup is None else times(record.timing.speedup),
            "" if record.timing.device_speedup is None else times(record.timing.device_speedup),
        )
        for record in records
    ]
    headers = ("pair", "median latency", "device time", "speedup", "device speedup")
    return Table(headers, ("left", "right", "right", "right", "right"), tuple(rows))


def preparation_table(records: Sequence[Record]) -> Table:
    """What it took to make each pair ready to run, of those that were prepared at all."""
    rows = [
        (
            record.id,
            f"{figure(prepared.prepare_s)} s",
            prepared.prepare_cache or "",
            *("" if number is None else str(number) for number in _graphs(record)),
            "" if record.memory.graph_pool_bytes is None else size(record.memory.graph_pool_bytes),
        )
        for record in records
        if (prepared := record.preparation).prepare_s is not None
    ]
    headers = ("pair", "prepared in", "cache", "graphs", "graph breaks", "recompiles", "graph pool")
    return Table(headers, ("left", "right", "left", *("right",) * 4), tuple(rows))


def _graphs(record: Record) -> tuple[int | None, ...]:
    prepared = record.preparation
    return prepared.graphs, prepared.graph_breaks, prepared.recompiles


def coverage_table(records: Sequence[Record]) -> Table:
    """What ran, how many of the linear layers outside the head the scheme holds, and why not the others."""
    rows = [
        (record.id, record.identity.method, f"{record.coverage.quantized} of {record.coverage.eligible}", _left(record))
        for record in records
        if record.coverage.quantized or record.coverage.left
    ]
    return Table(
        ("pair", "method", "quantized layers", "left, and why"), ("left", "left", "right", "left"), tuple(rows)
    )


def _left(record: Record) -> str:
    reasons: dict[str, list[str]] = {}
    for layer, reason in record.coverage.left.items():
        reasons.setdefault(reason, []).append(layer)
    told = []
    for reason, layers in reasons.items():
        told.append(f"{count(len(layers), 'layer')}, {reason}: {listed(layers, _NAMED_LAYERS)}")
    return "; ".join(told)
