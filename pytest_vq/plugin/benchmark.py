"""Our samples in pytest-benchmark's table and JSON, through its public interface alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_vq.errors import ResultsError
from pytest_vq.files import replace_file
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CALLABLE, CaseId
from pytest_vq.store.results import TABLE

FILE = "benchmark.json"
_EXTRA = ("model", "precision", "method", "device", "batch", "weights", "speedup", "peak_memory_bytes", "verdict")


class ReplayTimer:
    """A timer that gives back recorded durations: pytest-benchmark reads it before and after each round."""

    def __init__(self) -> None:
        self._readings: list[float] = []

    def load(self, samples_ms: Sequence[float]) -> None:
        """Queue the readings that make the rounds last exactly ``samples_ms``."""
        self._readings = [reading for ms in reversed(samples_ms) for reading in (ms / 1e3, 0.0)]

    def __call__(self) -> float:
        """The next reading, in seconds."""
        return self._readings.pop()


TIMER = pytest.StashKey[ReplayTimer]()


def narrow_table(config: pytest.Config) -> None:
    """Let pytest-benchmark print few columns, unless they were asked for: ours is the table that says most."""
    # It read its option when it was configured, before a test of ours was known, and offers no other way in: where a
    # release of it has no such attribute, its table is wide again.
    session = getattr(config, "_benchmarksession", None)
    if session is not None and config.getoption("benchmark_columns") is None:
        session.columns = ["min", "median", "iqr", "rounds"]


def group_of(case_id: CaseId | None) -> str:
    """What its table groups a test under: the model of a pair; all callables together."""
    if case_id is None:
        return "pytest-vq"
    return "callables" if case_id.scheme == CALLABLE else case_id.model


def prepare(item: pytest.Item, group: str) -> None:
    """At collection: give ``item`` an empty replay timer, so that pytest-benchmark selects it like any benchmark."""
    timer = item.stash[TIMER] = ReplayTimer()
    own = item.get_closest_marker("benchmark")
    kwargs = {"group": group, **(own.kwargs if own else {}), "timer": timer}
    item.add_marker(pytest.mark.benchmark(**kwargs), append=False)  # the first is the one that counts
    # A pair that cannot be measured has nothing to replay, and says so itself.
    item.add_marker(pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"))


def replay(benchmark: Any, item: pytest.Item, samples_ms: Sequence[float], record: Record) -> None:
    """Put ``samples_ms`` into pytest-benchmark's table and JSON, as measured."""
    item.stash[TIMER].load(samples_ms)
    benchmark.extra_info.update(extra_info(record))
    benchmark.pedantic(lambda: None, rounds=len(samples_ms), iterations=1)


def extra_info(record: Record) -> dict[str, Any]:
    """What identifies a row beyond its name, as plain JSON values."""
    cells = record.cells()
    values = {name: cells[name] for name in _EXTRA}
    return values | {"verdict": str(record.verdict) if record.verdict else None}


def _name_of(node_id: str) -> str:
    test, bracket, parameters = node_id.partition("[")  # which may hold anything
    return test.rpartition("::")[2] + bracket + parameters


def write_benchmark_json(
    path: Path, config: pytest.Config, rows: Sequence[tuple[str, Record, Sequence[float]]]
) -> None:
    """Write ``(node id, record, samples in ms)`` rows in pytest-benchmark's format: it turns itself off under xdist.

    Raises ``ResultsError`` where it cannot be written.
    """
    from pytest_benchmark import __version__
    from pytest_benchmark.stats import Stats

    benchmarks = []
    for node_id, record, samples_ms in rows:
        stats: Any = Stats()  # type: ignore[no-untyped-call]
        for ms in samples_ms:
            stats.update(ms / 1e3)
        benchmarks.append(
            {
                "group": group_of(record.case_id),
                "name": _name_of(node_id),
                "fullname": node_id,
                "params": None if record.setup.is_callable else {"vq_case": record.id},
                "param": None if record.setup.is_callable else record.id,
                "extra_info": extra_info(record),
                "options": {"timer": "pytest_vq replay"},
                "stats": {**stats.as_dict(), "data": stats.data, "iterations": 1},
            }
        )
    document = {
        "machine_info": config.hook.pytest_benchmark_generate_machine_info(config=config),
        "commit_info": config.hook.pytest_benchmark_generate_commit_info(config=config),
        "benchmarks": benchmarks,
        "datetime": datetime.now(UTC).isoformat(),
        "version": __version__,
    }
    try:
        replace_file(path, (json.dumps(document, indent=4) + "\n").encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}; {TABLE} beside it is complete") from error
