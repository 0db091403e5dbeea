"""The figures of a baseline's processes as cells: those of pairs and callables, and those of pairs under load. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.serving import ServingEstimates
from pytest_vq.schema.setup import Setup

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a process."""

    title: str
    read: Callable[[Estimates], float | None]
    spread_of: str | None = None  # its name where the spread between processes is told, relative to it
    unit_of_difference: str | None = None  # where a change is told in that unit: of what is relative, or a logarithm

    def typical(self, processes: Sequence[Estimates]) -> float | None:
        """The median over ``processes``; None where none has the figure."""
        values = [value for process in processes if (value := self.read(process)) is not None]
        return statistics.median(values) if values else None


def _scaled(name: str, unit: int) -> Callable[[Estimates], float | None]:
    def read(process: Estimates) -> float | None:
        value = getattr(process, name)
        return None if value is None else value / unit

    return read


def _served(read: Callable[[ServingEstimates], float | None]) -> Callable[[Estimates], float | None]:
    return lambda process: None if process.serving is None else read(process.serving)


_OF_PAIRS = (
    Figure("latency (ms)", _scaled("latency_ms", 1), spread_of="latency_ms"),
    Figure("speedup", _scaled("speedup", 1), spread_of="speedup"),
    Figure("peak memory (MiB)", _scaled("peak_memory_bytes", _MIB)),
    Figure("size (MiB)", _scaled("model_size_bytes", _MIB)),
    Figure("SQNR (dB)", _scaled("sqnr_db", 1), unit_of_difference="dB"),
)
_UNDER_LOAD = (
    Figure("sent (queries/s)", _served(lambda s: s.target_qps)),
    Figure("p99.5 (ms)", _served(lambda s: s.p995_ms), spread_of="p995_ms"),
    Figure("late (%)", _served(lambda s: 100 * s.late / s.requests), unit_of_difference="points"),
    Figure("requests", _served(lambda s: s.requests)),
    Figure("offline (queries/s)", _served(lambda s: s.offline_qps), spread_of="offline_qps"),
    Figure("highest rate from", _served(lambda s: s.max_qps_low)),
    Figure("to (queries/s)", _served(lambda s: s.max_qps_high)),
)


def figures_of(setup: Setup) -> tuple[Figure, ...]:
    """The figures that processes measured with ``setup`` have."""
    return _OF_PAIRS if setup.serving is None else _UNDER_LOAD


def process_cells(figures: Sequence[Figure], process: Estimates) -> list[str]:
    """A cell for each of ``figures``; empty where the process has none."""
    return [_number(figure.typical([process])) for figure in figures]


def change_cells(figures: Sequence[Figure], old: Sequence[Estimates], new: Sequence[Estimates]) -> list[str]:
    """What becomes of each of ``figures`` from the processes ``old`` to ``new``: ``10.0 -> 11.0 (+10.0 %)``."""
    cells = []
    for figure in figures:
        before, after = figure.typical(old), figure.typical(new)
        if before is None or after is None:
            cells.append(f"{_number(before) or 'none'} -> {_number(after) or 'none'}" if before is not after else "")
        elif figure.unit_of_difference is not None:
            change = f"{after - before:+.1f} {figure.unit_of_difference}"
            cells.append(f"{_number(before)} -> {_number(after)} ({change})")
        else:
            percent = f"{(after / before - 1) * 100:+.1f} %" if before else "was 0"
            cells.append(f"{_number(before)} -> {_number(after)} ({percent})")
    return cells


def spread_text(figures: Sequence[Figure], processes: Sequence[Estimates]) -> str:
    """The standard deviation between ``processes`` of those ``figures`` that have one: ``latency_ms 0.52 %``."""
    parts = []
    for figure in figures:
        values = [value for process in processes if (value := figure.read(process))]
        if figure.spread_of and values:  # of a callable there is no speedup
            logs = [math.log(value) for value in values]
            spread = f"{statistics.stdev(logs) * 100:.2f} %" if len(logs) > 1 else "unknown"
            parts.append(f"{figure.spread_of} {spread}")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.{3 if abs(value) < 10 else 2 if abs(value) < 1000 else 1}f}"
