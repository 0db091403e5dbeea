"""What a run tells where people already look: GitHub's summary and annotations, and each figure in JUnit's XML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_vq.files import append_line
from pytest_vq.plugin.run import Run
from pytest_vq.plugin.session import OUTCOME
from pytest_vq.report.annotations import Finding, annotation_commands
from pytest_vq.report.job_summary import LIMIT_BYTES, job_summary
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results, Row

_PREFIX = "vq."
_LOUD = ("ERROR", "WARNING")  # how notes begin that a summary must not leave out


def properties_of(record: Record) -> list[tuple[str, str | int | float]]:
    """The cells of a row that are not empty, ``("vq.latency_ms", 12.3)``; booleans in JSON's spelling.

    Builtin types alone: under xdist they travel to another process.
    """
    found: list[tuple[str, str | int | float]] = []
    for column, value in record.cells().items():
        if isinstance(value, bool):
            found.append((_PREFIX + column, "true" if value else "false"))
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            found.append((_PREFIX + column, value))
        elif isinstance(value, str) and value:
            found.append((_PREFIX + column, str(value)))
    return found


class PropertyHooks:
    """Hook of every process that runs tests."""

    @pytest.hookimpl(tryfirst=True)  # pytest copies the properties where it makes the report
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Give the test of a measured pair its row as properties: JUnit's XML has them, and other reports."""
        if call.when == "call" and OUTCOME in item.stash:
            # A test that runs again has those of its last run alone.
            others = [(name, value) for name, value in item.user_properties if not name.startswith(_PREFIX)]
            item.user_properties[:] = [*others, *properties_of(item.stash[OUTCOME].record)]


class GitHubHooks:
    """Hooks of the one process that reports; on any other machine than a runner of GitHub's they do nothing."""

    def __init__(self, run: Run, environment: Mapping[str, str]) -> None:
        self._run = run
        self._summary = environment.get("GITHUB_STEP_SUMMARY")
        self._annotates = environment.get("GITHUB_ACTIONS") == "true"
        self._workspace = environment.get("GITHUB_WORKSPACE")
        self._locations: dict[str, tuple[str, int | None]] = {}  # node id -> file, from the root, and line, from 0
        self._tests: dict[str, str] = {}  # pair -> node id

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep where each test stands."""
        if hasattr(report, "vq_case"):
            self._locations[report.nodeid] = report.location[:2]
            self._tests[report.vq_case[0]] = report.nodeid

    def pytest_sessionfinish(self) -> None:
        """Append the summary: after the files and baselines are written, and before the terminal has its last word."""
        if self._summary and (self._run.rows or self._run.failures):
            try:
                self._append_summary(Path(self._summary))
            except OSError as error:
                note = f"no summary in GITHUB_STEP_SUMMARY: cannot write {self._summary}: {error.strerror or error}"
                self._run.notes.append(note)

    def _append_summary(self, path: Path) -> None:
        # The limit is on the step, which may have written there before.
        room = LIMIT_BYTES - (path.stat().st_size if path.exists() else 0) - 1
        loud = [note for note in self._run.notes if note.startswith(_LOUD)]
        text = job_summary(_results_of(self._run), loud, room)
        if text is None:
            self._run.notes.append("no summary in GITHUB_STEP_SUMMARY: this step has filled its 1 MiB already")
        else:
            append_line(path, f"\n{text}".encode())

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the annotations, below everything else; a run that gates nothing has none."""
        if self._annotates and self._run.session.options.gate != "off":
            for command in annotation_commands(self._findings()):
                terminalreporter.ensure_newline()  # a command begins its line
                terminalreporter.line(command)

    def _findings(self) -> list[Finding]:
        """What to show, the worst first: pairs that FAIL, that could not be measured, that are undecided."""
        rows = _worst_first(self._run.rows)
        failed = [self._of_row(*row) for row in rows if row[1].record.verdict is Status.FAIL]
        undecided = [self._of_row(*row) for row in rows if row[1].record.verdict is Status.INCONCLUSIVE]
        return [*failed, *map(self._of_failure, self._run.failures), *undecided]

    def _of_row(self, node_id: str, outcome: Outcome) -> Finding:
        record = outcome.record
        message = "; ".join([record.reason or str(record.verdict), *outcome.explanation])
        title = f"{record.verdict} {record.id}"
        return Finding(record.verdict is Status.FAIL, title, message, *self._place(node_id))

    def _of_failure(self, failure: Failure) -> Finding:
        message = f"{failure.error}: {failure.message}"
        return Finding(True, f"not measured: {failure.id}", message, *self._place(self._tests.get(failure.id, "")))

    def _place(self, node_id: str) -> tuple[str | None, int | None]:
        """The file, as GitHub knows it: from the repository's root; and the line, from 1."""
        if node_id not in self._locations:
            return None, None
        name, line = self._locations[node_id]
        path = (self._run.session.config.rootpath / name).resolve()
        root = Path(self._workspace or self._run.session.config.rootpath).resolve()
        file = path.relative_to(root).as_posix() if path.is_relative_to(root) else name
        return file, None if line is None else line + 1


def _worst_first(rows: list[tuple[str, Outcome]]) -> list[tuple[str, Outcome]]:
    """A bound that was missed comes first, then whatever is most tolerances away; the rest in its order."""

    def badness(row: tuple[str, Outcome]) -> float:
        over = row[1].tolerances_over
        return math.inf if over is None else over

    return sorted(rows, key=badness, reverse=True)


def _results_of(run: Run) -> Results:
    """What the files of ``run`` hold, without reading them: a summary is due where they could not be written, too."""
    outcomes = [outcome for _, outcome in _worst_first(run.rows)]
    return Results(
        options=run.session.options.to_json(),
        environments=tuple({o.environment.device_uuid: o.environment for o in outcomes}.values()),
        rows=tuple(Row(o.record, o.environment, o.estimates) for o in outcomes),
        failures=tuple(run.failures),
        started_utc="",
        updated_utc="",
        complete=run.complete,
    )
