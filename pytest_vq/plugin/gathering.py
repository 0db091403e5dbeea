"""What reports tell, one by one, to the process that runs no test itself: what there is, what began, what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from pytest_vq.plugin import xdist
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.store.results import Row, read_results
from pytest_vq.store.results_writer import ResultsWriter


@dataclass(slots=True)
class Gathering:
    """The tests that measure something, as their reports come in from workers, or from this process itself."""

    _begun: dict[str, list[str]] = field(default_factory=dict)  # node id -> what it measures: its id, and model
    _ended: set[str] = field(default_factory=set)  # node ids of those that came to an end, whatever it was
    _places: dict[str, int] = field(default_factory=dict)  # node id -> its place in a run without workers
    _selected: int = 0  # how many there are, as workers told it; without workers 0

    def hear(self, report: pytest.TestReport) -> bool:
        """Note what ``report`` tells; True where it is of a test that measures something."""
        case: list[str] | None = getattr(report, "vq_case", None)
        if case is not None:
            self._begun[report.nodeid] = case
            if hasattr(report, "vq_place"):
                self._places[report.nodeid], self._selected = report.vq_place
        if report.when == "teardown" or self.is_crash(report):
            self._ended.add(report.nodeid)
        return case is not None

    def is_crash(self, report: pytest.TestReport) -> bool:
        """True where a worker died measuring what ``report`` is about."""
        return xdist.is_crash(report) and report.nodeid in self._begun

    def crash_in(self, report: pytest.TestReport) -> Failure | None:
        """The failure of what a worker died measuring, if that is what ``report`` says."""
        if not self.is_crash(report):
            return None
        case_id, model = self._begun[report.nodeid]
        return Failure(case_id, "WorkerCrashed", str(report.longrepr), model)

    def lost_note(self) -> str | None:
        """How many were handed to workers and never came to an end; None where all did."""
        lost = self._selected - len(self._ended & self._begun.keys())
        if self._selected == 0 or lost <= 0:
            return None
        return f"ERROR: {lost} of {self._selected} selected were not measured: the workers that had them died"

    @staticmethod
    def checkouts_note(outcomes: Iterable[Outcome]) -> str | None:
        """What says that rows were measured in checkouts that differ: each host judges by the baselines of its own."""
        commits = sorted({outcome.environment.commit or "none" for outcome in outcomes})
        if len(commits) < 2:
            return None
        return f"WARNING: the workers' hosts have different commits checked out: {', '.join(commits)}"

    def serial_order(self, node_ids: Sequence[str]) -> list[int]:
        """The places of ``node_ids`` in the order of a run without workers."""
        return sorted(range(len(node_ids)), key=lambda number: self._places.get(node_ids[number], number))


def put_in_order(writer: ResultsWriter, outcomes: Sequence[Outcome]) -> ResultsWriter:
    """The writer of the same files with the rows of ``outcomes`` in that order, behind those of an earlier run."""
    stored = read_results(writer.directory)
    places = {Row.of(outcome).key: place for place, outcome in enumerate(outcomes)}
    rows = sorted(stored.rows, key=lambda row: places.get(row.key, -1))
    return ResultsWriter(writer.directory, stored.options, replace(stored, rows=tuple(rows)))
