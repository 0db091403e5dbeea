"""pytest's side: which tests there are, what their reports carry, and what the run leaves behind. Thin on purpose."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NoReturn

import pytest

from pytest_vq.catalog.models import all_models, select_models
from pytest_vq.errors import ResultsError, SelectionError, VqError
from pytest_vq.plugin import benchmark
from pytest_vq.plugin.live import Progress
from pytest_vq.plugin.run import Run
from pytest_vq.plugin.session import OUTCOME, VqSession, check_marker
from pytest_vq.plugin.terminal import write_summary
from pytest_vq.precision.precisions import select_precisions
from pytest_vq.schema.spec import Case

REFUSED = "vq_refused"  # in an xdist worker's output: why it runs nothing


def is_worker(config: pytest.Config) -> bool:
    """True in a process that pytest-xdist started."""
    return hasattr(config, "workerinput")


def check_usage(session: VqSession) -> None:
    """Refuse unknown precisions, and ``--gpu`` without a GPU, before anything is collected.

    Names of models are checked after collection, which imports the conftest files that may register them.
    """
    options = session.options
    select_precisions(options.precisions)
    if options.gpu and not session.config.getoption("collectonly"):
        from pytest_vq.device.device import require_accelerator

        require_accelerator()


def select_cases(session: VqSession, module_default: str | None) -> list[Case]:
    """The pairs this run measures through one test, models first, then batches, then precisions."""
    options = session.options
    local = any(model.is_local for model in all_models().values())
    text = options.models or module_default or ("local" if local else "default")
    return [
        Case(model, scheme, batch)
        for model in select_models(text, accelerator=options.gpu)
        for batch in options.batch
        for scheme in select_precisions(options.precisions)
    ]


def case_of(item: pytest.Item) -> Case | None:
    """The pair that ``item`` measures, if it measures one."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("vq_case") if callspec else None
    return case if isinstance(case, Case) else None


def check_selection(items: list[pytest.Item]) -> None:
    """Raise ``SelectionError`` for tests that ask for what cannot be."""
    for item in items:
        check_marker(item)
        if not item.config.pluginmanager.hasplugin("benchmark"):
            raise SelectionError(
                f"{item.nodeid}: vq_bench puts its samples into pytest-benchmark's table, and -p no:benchmark takes "
                "that plugin away; leave it out (--benchmark-disable switches its table off)"
            )


def error_of(raised: BaseException) -> BaseException:
    """The error that failed a test: ``pytest.fail`` only carries its text."""
    cause = raised.__context__
    return cause if isinstance(raised, pytest.fail.Exception) and isinstance(cause, VqError) else raised


class TestHooks:
    """Hooks of every process that collects and runs tests."""

    __test__ = False

    def __init__(self, session: VqSession) -> None:
        self._session = session
        self._refused: SelectionError | None = None

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """One test per selected pair. An error is kept: raised here, pytest would exit with 2 instead of 4."""
        try:
            cases = select_cases(self._session, getattr(metafunc.module, "vq_models", None))
        except SelectionError as error:
            self._refused = error
            cases = []
        metafunc.parametrize("vq_case", cases, ids=[case.id for case in cases], indirect=True)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse what was selected wrongly; show the rest to pytest-benchmark as benchmarks."""
        ours = [item for item in items if "vq_bench" in getattr(item, "fixturenames", ())]
        try:
            if self._refused is not None:
                raise self._refused
            check_selection(ours)
        except SelectionError as error:
            self._refuse(error, items)
            return
        for item in ours:
            case = case_of(item)
            benchmark.prepare(item, group=case.model.name if case else "pytest-vq")

    def _refuse(self, error: SelectionError, items: list[pytest.Item]) -> None:
        items.clear()
        if not is_worker(self._session.config):
            raise pytest.UsageError(str(error)) from None
        # Raised here, it would be an internal error of xdist; the controller raises it instead.
        self._session.config.workeroutput[REFUSED] = str(error)  # type: ignore[attr-defined]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the pairs: the gate's error is shared among them."""
        self._session.comparisons = sum(case_of(item) is not None for item in session.items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the report carry what was measured, or why nothing was: builtin types only, workers send reports."""
        report = yield
        case = case_of(item)
        carried: dict[str, object] = {} if case is None else {"vq_case": case.id}
        if call.when == "call" and OUTCOME in item.stash:
            carried["vq_outcome"] = item.stash[OUTCOME].to_json()
        elif case is not None and call.excinfo is not None and report.failed:
            error = error_of(call.excinfo.value)
            carried["vq_failure"] = [case.id, type(error).__name__, str(error)]
        vars(report).update(carried)
        return report

    def pytest_sessionfinish(self) -> None:
        """Give the device back before other plugins write their reports."""
        self._session.release()


class RunHooks:
    """Hooks of the one process that reports: files, baselines, terminal."""

    def __init__(self, session: VqSession) -> None:
        self._session = session
        self._run = Run(session)
        self._progress = Progress(session.config)
        self._stopped = False

    @pytest.hookimpl(trylast=True)  # after the pairs were counted
    def pytest_collection_finish(self) -> None:
        """Know how much there is to do."""
        self._progress.total = self._session.comparisons

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Refuse, in xdist's controller, what a worker was asked for wrongly."""
        refused = getattr(node, "workeroutput", {}).get(REFUSED)
        if refused is not None:
            raise pytest.UsageError(refused)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Open the results before anything is measured in vain; with ``--vq-runs``, measure in the others first."""
        option = session.config.option
        broken = session.testsfailed and not option.continue_on_collection_errors
        # Where nothing will run, the results of an earlier run are not replaced by nothing.
        pairs = 0 if option.collectonly or broken else self._session.comparisons
        if pairs:
            try:
                self._run.open()
            except VqError as error:
                raise pytest.UsageError(str(error)) from None
        if pairs or session.config.pluginmanager.hasplugin("dsession"):  # there only workers know the pairs
            try:
                self._run.run_others()
            except VqError as error:
                self._stop(error)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dot for a pair that has a line of its own."""
        has_line = hasattr(report, "vq_outcome") and report.passed and not hasattr(report, "wasxfail")
        return ("passed", "", "") if has_line and self._progress.speaks else None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say what is being measured."""
        self._progress.start(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the row of a finished pair; what cannot be written ends the run, with all earlier rows kept."""
        try:
            outcome = self._run.take(report)
        except ResultsError as error:
            self._stop(error)
        if outcome is not None:
            self._progress.finish(outcome.record)
        elif hasattr(report, "vq_failure") and report.when != "teardown":
            self._progress.fail()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the results, record the baselines if all went well, and turn hollow green red."""
        try:
            # The latter two are set by -x, --maxfail, a session's timeout.
            stopped = self._stopped or bool(session.shouldstop or session.shouldfail)
            session.exitstatus = self._run.finish(exitstatus, stopped)
        except VqError as error:
            self._run.notes.append(f"ERROR: {error}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _stop(self, error: VqError) -> NoReturn:
        self._stopped = True
        pytest.exit(f"pytest-vq: {error}", returncode=pytest.ExitCode.TESTS_FAILED)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of this run, and the reason of every verdict that is not PASS."""
        write_summary(terminalreporter, self._run)
