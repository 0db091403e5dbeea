"""One run as its reporting process sees it: rows come in, files and baselines go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vq.errors import ResultsError
from pytest_vq.files import acquire, lock_of, write_together
from pytest_vq.plugin import benchmark, xdist
from pytest_vq.plugin.gathering import Gathering, put_in_order
from pytest_vq.plugin.resumption import Resumption
from pytest_vq.plugin.session import VqSession
from pytest_vq.processes.fresh import run_afresh
from pytest_vq.report.hollow_green import hollow_error, is_compared
from pytest_vq.report.report_callables import rows_in_words
from pytest_vq.schema.outcome import Failure, Outcome, Profile
from pytest_vq.schema.setup import Setup
from pytest_vq.store.durations import record_durations
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.resuming import earlier_results
from pytest_vq.store.saved_run import REPORT_FOLDER, read_saved_run
from pytest_vq.store.selection_file import write_selection

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(slots=True)
class Run:
    """Rows and failures of this run, in the order they came."""

    session: VqSession
    rows: list[tuple[str, Outcome]] = field(default_factory=list)  # (node id, outcome)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the summary must say beside the rows
    complete: bool = False  # once it is finished: that it was not interrupted
    gathering: Gathering = field(default_factory=Gathering)
    _writer: ResultsWriter | None = None
    _resumption: Resumption | None = None  # where it takes up an earlier run
    _claim: BaseFileLock | None = None

    def open(self) -> ResultsWriter:
        """The writer of this run's files, opened at first use. Raises ``ResultsError`` where it cannot write."""
        if self._writer is None:
            options = self.session.options
            self._claim = _claimed(options.output)
            earlier = earlier_results(options)
            self._writer = ResultsWriter(options.output, options.to_json(), earlier)
            self._resumption = Resumption(earlier) if options.resume else None
            write_selection(options.output, self.session.selection)
        return self._writer

    def run_others(self) -> None:
        """Measure the same selection, without pairs under load, in the other fresh processes of ``--vq-runs``."""
        session = self.session
        for number in range(2, session.options.runs + 1):
            run_afresh(session.invocation, session.options, session.config.args, session.run_output(number))

    def take(self, report: pytest.TestReport) -> Outcome | None:
        """Store what a test's report carries, and return it if it is a row."""
        if self.gathering.hear(report):
            self.open()  # under xdist this is the first this process hears of it: still before it is measured
        text = getattr(report, "vq_outcome", None)
        if text is not None:
            outcome = Outcome.from_json(text)
            self.rows.append((report.nodeid, outcome))
            self.open().add(outcome)
            if self._resumption is not None:
                self._resumption.take(outcome)
            return outcome
        failure = self._failure_in(report)
        if failure is not None:
            self.failures.append(failure)
            self.open().fail(failure)
            if self._resumption is not None:
                self._resumption.take_failure(failure.id)
        return None

    def _failure_in(self, report: pytest.TestReport) -> Failure | None:
        text = getattr(report, "vq_failure", None)
        return self.gathering.crash_in(report) if text is None else Failure.from_json(text)

    def finish(self, exitstatus: int, stopped: bool) -> int:
        """Close the files and, where every test passed, record the baselines. Returns the run's exit code.

        ``stopped`` says that tests were left out after a failure: no exit code does.
        """
        exitstatus = self._settle_shard(exitstatus)
        if self._writer is None:
            return exitstatus
        ended = exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
        lost = self.gathering.lost_note() if ended and not stopped else None
        checkouts = self.gathering.checkouts_note(outcome for _, outcome in self.rows)
        self.notes += [note for note in (lost, checkouts) if note]
        self.complete = ended and not stopped and lost is None
        if self._resumption is not None:
            self.complete = self.complete and not self._resumption.leaves_a_gap
            self.notes += self._resumption.notes(self.session.options.output)
        try:
            self._put_in_order()
            self._writer.close(complete=self.complete)
        finally:
            if self._claim is not None:
                self._claim.release()
        if xdist.is_controller(self.session.config):
            rows = [(node_id, outcome.record, outcome.samples_ms) for node_id, outcome in self.rows]
            benchmark.write_benchmark_json(self.session.options.output / benchmark.FILE, self.session.config, rows)
        self._note_undecided_time()
        code = exitstatus
        if self.session.options.save:
            self._save(exitstatus)
        elif exitstatus == pytest.ExitCode.OK and self.session.options.shard.is_whole and self._is_hollow():
            code = pytest.ExitCode.TESTS_FAILED
        if self.session.options.report:
            self._write_report()
        return code

    def _put_in_order(self) -> None:
        """Put rows that came from workers, as these had finished them, into the order of a run without workers."""
        order = self.gathering.serial_order([node_id for node_id, _ in self.rows])
        if order != sorted(order) and self._writer is not None:
            self.rows = [self.rows[number] for number in order]
            self._writer = put_in_order(self._writer, [outcome for _, outcome in self.rows])

    def _settle_shard(self, exitstatus: int) -> int:
        """Keep what a sharded run selected, and return its exit code: an empty shard has nothing to do, and did it."""
        selection, config = self.session.selection, self.session.config
        if selection is None:
            return exitstatus
        is_empty = selection.total > 0 and not selection.here
        none_ran = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if selection.total and not config.getoption("collectonly") and (self._writer or none_ran):
            self.open()  # under xdist an empty shard had no row to open it for
            write_selection(self.session.options.output, selection)  # there it is known now
            self.notes.append(f"{selection.words}{': there are more shards than pairs' if is_empty else ''}")
        return int(pytest.ExitCode.OK) if is_empty and none_ran else exitstatus

    def _write_report(self) -> None:
        """Write the report from the files of this run, as ``pytest-vq report`` would."""
        if not self.rows:
            self.notes.append("no report: nothing was measured")
            return
        # It imports what draws and renders, which only this option needs.
        from pytest_vq.report.report_files import PAGE, report_files

        output = self.session.options.output
        folder = output / REPORT_FOLDER
        write_together(folder, report_files(read_saved_run(output)))
        self.notes.append(f"report: {folder / PAGE}")

    def _save(self, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.OK:
            self.notes.append("nothing was recorded into the baselines: this run failed or was interrupted")
            return
        profiles = self._profile_the_rest()
        devices = {(o.environment.device_slug, o.environment.device_name) for _, o in self.rows}
        worth_recording = self._worth_recording()
        for slug, name in sorted(devices):
            outcomes = [outcome for outcome in worth_recording if outcome.environment.device_slug == slug]
            taken = [(*_key(outcome), estimates) for outcome in outcomes for estimates in outcome.estimates]
            operators = {_key(o): o.operators for o in outcomes if o.operators is not None}
            operators |= {_key(o): profiles[o.record.id].operators for o in outcomes if o.record.id in profiles}
            files = self.session.store.append(slug, name, taken, operators)
            self.notes.append(f"recorded {len(taken)} lines in {len(files)} files of {self.session.store.root / slug}")
        record_durations(self.session.store.root, [(outcome.record, outcome.environment) for _, outcome in self.rows])

    def _worth_recording(self) -> list[Outcome]:
        """The rows but for those that leave nothing to compare with, which are named."""
        worth, rateless = list[Outcome](), list[str]()
        for _, outcome in self.rows:
            if self._lacks_rate(outcome):
                rateless.append(outcome.record.id)
            else:
                worth.append(outcome)
        if rateless:
            named = ", ".join(rateless)
            self.notes.append(f"WARNING: not recorded, for want of a rate to store: {named}; measure again")
        return worth

    def _lacks_rate(self, outcome: Outcome) -> bool:
        """True for a pair under load of which neither this run knows a rate to store nor the baseline has one."""
        terms = outcome.record.setup.serving
        if terms is None or not terms.asks_for_rate or outcome.record.serving.max_qps_low is not None:
            return False
        from pytest_vq.serve.serving_verdict import stored_qps

        return stored_qps(self.session.store.entry(outcome.environment.device_slug, *_key(outcome))) is None

    def _profile_the_rest(self) -> Mapping[str, Profile]:
        """Pair -> its profile, for pairs that nobody profiled yet and whose baselines want operators.

        Only now, and in another process: where the device keeps a profiler, none may run before the last pair.
        """
        lacking = {o.record.id: node_id for node_id, o in self.rows if o.operators is None and self._wants_operators(o)}
        if not lacking:
            return {}
        profiled = self.session.profile_afresh(list(lacking.values()))
        missing = sorted(lacking.keys() - profiled.profiles.keys())
        if missing:
            self.notes.append(
                f"WARNING: recorded without operators, so that a later FAIL cannot name what changed inside: "
                f"{', '.join(missing)}; {profiled.ending}"
            )
        return profiled.profiles

    def _wants_operators(self, outcome: Outcome) -> bool:
        """True where no operators are stored yet: those of the first process since the anchor are kept."""
        if outcome.record.setup.serving is not None:  # its explanation is that of the pair by itself
            return False
        entry = self.session.store.entry(outcome.environment.device_slug, *_key(outcome))
        return entry is None or not entry.operators

    def _note_undecided_time(self) -> None:
        """Say it loudly where rows were compared and the time of not one was decided: on a card never seen, say."""
        outcomes = [outcome for _, outcome in self.rows if outcome.time_decided is not None]
        if outcomes and not any(outcome.time_decided for outcome in outcomes):
            compared = rows_in_words([outcome.record for outcome in outcomes])
            self.notes.append(
                f"WARNING: this run says nothing about speed: of {compared} compared, the time of none was decided; "
                "see the reasons above (--vq-strict makes that a failure)"
            )

    def _is_hollow(self) -> bool:
        """Green, with baselines for this device, and yet not one row compared: that is no green."""
        options = self.session.options
        if options.gate != "fail" or any(is_compared(o.record.verdict) for _, o in self.rows):
            return False
        measured = rows_in_words([outcome.record for _, outcome in self.rows])
        store, environments = self.session.store, [outcome.environment for _, outcome in self.rows]
        error = hollow_error(measured, environments, store.root, store.has_baselines)
        self.notes += [error] if error else []
        return error is not None


def _key(outcome: Outcome) -> tuple[str, Setup]:
    """What a baseline's entry is found by."""
    return outcome.record.identity.model, outcome.record.setup


def _claimed(output: Path) -> BaseFileLock:
    """Keep other runs out of ``output``: two in one directory would lose each other's rows."""
    lock, wait = lock_of(output, "results"), "wait for it, or give --vq-output another directory"
    acquire(lock, ResultsError, f"another run is writing its results to {output}: {wait}")
    return lock
