"""pytest's side: which tests there are, what their reports carry, and what the run leaves behind. Thin on purpose."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_vq import catalog, precision
from pytest_vq.errors import ResultsError, SelectionError, VqError
from pytest_vq.report import benchmark
from pytest_vq.report.live import Progress
from pytest_vq.report.summary import write_summary
from pytest_vq.run import Run
from pytest_vq.session import OUTCOME, VqSession, check_marker
from pytest_vq.spec import Case


def is_worker(config: pytest.Config) -> bool:
    """True in a process that pytest-xdist started."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """True in a process that leaves its tests to pytest-xdist's workers."""
    return not is_worker(config) and bool(config.getoption("numprocesses", None) or config.getoption("tx", None))


def check_usage(session: VqSession) -> None:
    """Refuse unknown precisions and models, and ``--gpu`` without a GPU, where pytest still exits with 4.

    Models may still be registered by conftest files deeper in the tree, which only collection imports: where this
    process collects, their names are checked after that.
    """
    options = session.options
    precision.select(options.precisions)
    if options.models and is_controller(session.config):
        catalog.select(options.models, accelerator=options.gpu)
    if options.gpu and not session.config.getoption("collectonly"):
        from pytest_vq.measure.device import require_accelerator

        require_accelerator()


def select_cases(session: VqSession, module_default: str | None) -> list[Case]:
    """The pairs this run measures through one test, models first, then batches, then precisions."""
    options = session.options
    local = any(model.is_local for model in catalog.models().values())
    text = options.models or module_default or ("local" if local else "default")
    return [
        Case(model, scheme, batch)
        for model in catalog.select(text, accelerator=options.gpu)
        for batch in options.batch
        for scheme in precision.select(options.precisions)
    ]


def case_of(item: pytest.Item) -> Case | None:
    """The pair that ``item`` measures, if it measures one."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("vq_case") if callspec else None
    return case if isinstance(case, Case) else None


class TestHooks:
    """Hooks of every process that collects and runs tests."""

    __test__ = False

    def __init__(self, session: VqSession) -> None:
        self._session = session
        self._refused: SelectionError | None = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per selected pair. An error is kept: raised here, pytest would exit with 2 instead of 4."""
        if "vq_case" not in metafunc.fixturenames:
            return
        try:
            cases = select_cases(self._session, getattr(metafunc.module, "vq_models", None))
        except SelectionError as error:
            self._refused = error
            cases = []
        metafunc.parametrize("vq_case", cases, ids=[case.id for case in cases], indirect=True)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse what was selected wrongly; show the rest to pytest-benchmark as benchmarks."""
        try:
            if self._refused is not None:
                raise self._refused
            for item in items:
                if "vq_bench" in getattr(item, "fixturenames", ()):
                    check_marker(item)
                    case = case_of(item)
                    benchmark.prepare(item, group=case.model.name if case else "pytest-vq")
        except SelectionError as error:
            raise pytest.UsageError(str(error)) from None

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
        if case is not None:
            carried: dict[str, object] = {"vq_case": case.id}
            if call.when == "call" and OUTCOME in item.stash:
                carried["vq_outcome"] = item.stash[OUTCOME].to_json()
            elif call.excinfo is not None and report.failed:
                carried["vq_failure"] = [case.id, type(call.excinfo.value).__name__, str(call.excinfo.value)]
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

    @pytest.hookimpl(trylast=True)  # after the pairs were counted
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Open the results before anything is measured in vain."""
        self._progress.total = self._session.comparisons
        if self._session.comparisons and not session.config.getoption("collectonly"):
            try:
                self._run.open()
            except VqError as error:
                raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """With ``--vq-runs``: measure everything in the other fresh processes first."""
        if self._session.options.runs > 1 and not session.config.getoption("collectonly"):
            try:
                self._run.run_others()
            except VqError as error:
                pytest.exit(f"pytest-vq: {error}", returncode=pytest.ExitCode.TESTS_FAILED)
        return (yield)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say what is being measured."""
        self._progress.start(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the row of a finished pair; what cannot be written ends the run, with all earlier rows kept."""
        try:
            outcome = self._run.take(report)
        except ResultsError as error:
            pytest.exit(f"pytest-vq: {error}", returncode=pytest.ExitCode.TESTS_FAILED)
        if outcome is not None:
            self._progress.finish(outcome.record)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the results, record the baselines if all went well, and turn hollow green red."""
        try:
            session.exitstatus = self._run.finish(pytest.ExitCode(exitstatus))
        except VqError as error:
            self._run.notes.append(f"ERROR: {error}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of this run, and the reason of every verdict that is not PASS."""
        write_summary(terminalreporter, self._run)
