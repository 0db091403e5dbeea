"""What a test's report carries from the process that ran it, and what the process that reports makes of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NoReturn

import pytest

from pytest_vq.errors import ResultsError, VqError
from pytest_vq.plugin import xdist
from pytest_vq.plugin.items import case_of, measured_by
from pytest_vq.plugin.live import Progress, compiling_line
from pytest_vq.plugin.run import Run
from pytest_vq.plugin.session import OUTCOME, VqSession
from pytest_vq.plugin.terminal import left_out_lines, write_summary
from pytest_vq.schema.outcome import Failure
from pytest_vq.store.resuming import earlier_results
from pytest_vq.wording import count


def error_of(raised: BaseException) -> BaseException:
    """The error that failed a test: ``pytest.fail`` only carries its text."""
    cause = raised.__context__
    return cause if isinstance(raised, pytest.fail.Exception) and isinstance(cause, VqError) else raised


def _is_compiled(item: pytest.Item) -> bool:
    case = case_of(item)
    return case is not None and case.scheme.execution.compiles


class ReportingHooks:
    """Hooks of every process that runs tests."""

    def __init__(self, session: VqSession) -> None:
        self._session = session

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the report carry what was measured, or why nothing was: builtin types only, workers send reports."""
        report = yield
        case_id = measured_by(item)
        carried: dict[str, object] = {} if case_id is None else {"vq_case": [str(case_id), case_id.model]}
        if item.nodeid in self._session.places:
            carried["vq_place"] = [self._session.places[item.nodeid], len(self._session.places)]
            if self._session.groups:
                carried["vq_groups"], self._session.groups = self._session.groups, []
        if call.when == "call" and OUTCOME in item.stash:
            carried["vq_outcome"] = item.stash[OUTCOME].to_json()
        elif case_id is not None and call.excinfo is not None and report.failed:
            error = error_of(call.excinfo.value)
            failure = Failure(str(case_id), type(error).__name__, str(error), case_id.model)
            carried["vq_failure"] = failure.to_json()
        vars(report).update(carried)
        return report

    def pytest_sessionfinish(self) -> None:
        """Give the device back before other plugins write their reports."""
        self._session.release()


class RunHooks:
    """Hooks of the one process that reports: files, baselines, terminal."""

    def __init__(self, session: VqSession) -> None:
        self._session = session
        self.run = Run(session)
        self._progress = Progress(session.config)
        self._stopped = False

    @pytest.hookimpl(trylast=True)  # after they were counted
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know what there is to do."""
        found = {item.nodeid: measured_by(item) for item in session.items}
        self._progress.selected = {node_id: case_id for node_id, case_id in found.items() if case_id is not None}
        self._progress.compiling = frozenset(item.nodeid for item in session.items if _is_compiled(item))

    def pytest_report_collectionfinish(self, items: Sequence[pytest.Item]) -> list[str]:
        """Say before anything is measured what was left out, and what will take its time."""
        compiled, selection = sum(map(_is_compiled, items)), self._session.selection
        lines = [f"pytest-vq: {selection.words}"] if selection is not None else []
        lines += left_out_lines(self._session.left_out)
        if gone := self._session.serving_left_out:
            lines.append(
                f"pytest-vq: {count(gone, 'serving benchmark')} left out: --vq-serving, or their file, selects them"
            )
        return [*lines, compiling_line(compiled, self._session.options.gpu)] if compiled else lines

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Open the results before anything is measured in vain; with ``--vq-runs``, measure in the others first."""
        option = session.config.option
        broken = session.testsfailed and not option.continue_on_collection_errors
        # Where nothing will run, the results of an earlier run are not replaced by nothing.
        selected = 0 if option.collectonly or broken else self._session.comparisons
        if selected:
            try:
                self.run.open()
            except VqError as error:
                raise pytest.UsageError(str(error)) from None
        if xdist.is_controller(session.config):  # there only workers know what is selected: nothing is opened yet
            try:
                earlier_results(self._session.options)
            except VqError as error:
                raise pytest.UsageError(str(error)) from None
        # A row of a pair under load is made of several fresh processes as it is.
        is_repeated = selected and any(not case_id.serving for case_id in self._progress.selected.values())
        if is_repeated or xdist.is_controller(session.config):
            try:
                self.run.run_others()
            except VqError as error:
                self._stop(error)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dot for what has a line of its own."""
        has_line = hasattr(report, "vq_outcome") and report.passed and not hasattr(report, "wasxfail")
        return ("passed", "", "") if has_line and self._progress.speaks else None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say what is being measured."""
        self._progress.start(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a finished row; what cannot be written ends the run, with all earlier rows kept."""
        try:
            outcome = self.run.take(report)
        except ResultsError as error:
            self._stop(error)
        if outcome is not None:
            self._progress.finish(report.nodeid, outcome.record, kept=outcome.kept)
        elif (hasattr(report, "vq_failure") and report.when != "teardown") or self.run.gathering.is_crash(report):
            self._progress.fail(report.nodeid)
        elif report.when == "setup" and report.passed and hasattr(report, "vq_place"):
            self._progress.hear(report.nodeid, report.vq_case[0], report.vq_place[1])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the results, record the baselines if all went well, and turn hollow green red."""
        try:
            # The latter two are set by -x, --maxfail, a session's timeout.
            stopped = self._stopped or bool(session.shouldstop or session.shouldfail)
            session.exitstatus = self.run.finish(exitstatus, stopped)
        except VqError as error:
            self.run.notes.append(f"ERROR: {error}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _stop(self, error: VqError) -> NoReturn:
        self._stopped = True
        pytest.exit(f"pytest-vq: {error}", returncode=pytest.ExitCode.TESTS_FAILED)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of this run, and the reason of every verdict that is not PASS."""
        write_summary(terminalreporter, self.run)
