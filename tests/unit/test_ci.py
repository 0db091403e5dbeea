"""What a run hands to GitHub and to JUnit: the row's own figures, at the test's place, and never a failed run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_outcome, make_record
from one_number import assert_exact

from pytest_vq.options import Options
from pytest_vq.plugin.ci import GitHubHooks, PropertyHooks, properties_of
from pytest_vq.plugin.judging import Demand, Means, judge
from pytest_vq.plugin.run import Run
from pytest_vq.plugin.session import OUTCOME, VqSession
from pytest_vq.plugin.terminal import write_summary
from pytest_vq.report.job_summary import LIMIT_BYTES
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.verdict import MetricVerdict, Status, Tolerances, Verdict


class Terminal:
    """As much of pytest's terminal as annotations need."""

    def __init__(self) -> None:
        self.text = "1 failed in 3 s"

    def ensure_newline(self) -> None:
        self.text += "" if self.text.endswith("\n") else "\n"

    def line(self, text: str) -> None:
        self.text += f"{text}\n"


class GitHub:
    """A run on a runner of GitHub's, in a repository whose root is pytest's too, unless it is told otherwise."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.summary = root / "summary.md"
        self.environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(self.summary)}
        config: Any = SimpleNamespace(rootpath=root)
        self.run = Run(VqSession(config, Options(output=root, **options)), complete=True)

    def end(self, *outcomes: Outcome, failures: tuple[Failure, ...] = (), file: str = "tests/test_a.py") -> list[str]:
        """Finish with these; the commands that were printed. The first test is in line 1, the next in line 2, …."""
        hooks = GitHubHooks(self.run, self.environment)
        pairs = [*(outcome.record.id for outcome in outcomes), *(failure.id for failure in failures)]
        for number, pair in enumerate(pairs):
            report: Any = SimpleNamespace(nodeid=f"x[{number}]", vq_case=[pair, "net"], location=(file, number, "x"))
            hooks.pytest_runtest_logreport(report)
        self.run.rows += [(f"x[{number}]", outcome) for number, outcome in enumerate(outcomes)]
        self.run.failures += failures
        hooks.pytest_sessionfinish()
        terminal: Any = Terminal()
        hooks.pytest_terminal_summary(terminal)
        return terminal.text.splitlines()[1:]


@pytest.fixture
def github(tmp_path: Path) -> GitHub:
    return GitHub(tmp_path)


def judged(verdict: Status, over: float | None = None, model: str = "net", **changes: Any) -> Outcome:
    record = make_record(model, verdict=verdict, reason=f"{verdict} for a reason")
    return make_outcome(record, tolerances_over=over, **changes)


class TestProperties:
    def test_every_figure_of_a_row_equals_the_studys(self) -> None:
        record = make_record(latency_ms=1 / 3, launch_bound=False, accuracy=1e-7, verdict=Status.FAIL, reason="slower")
        told = dict(properties_of(record))
        as_xml_has_it = {name.removeprefix("vq."): str(value) for name, value in told.items()}
        assert_exact(as_xml_has_it, json.loads(json.dumps(record.cells())))
        assert {"vq.latency_ms", "vq.speedup", "vq.peak_memory_bytes", "vq.sqnr_db", "vq.verdict"} <= set(told)

    def test_what_was_not_measured_is_absent(self) -> None:
        told = dict(properties_of(make_record(accuracy=None, latency_p95_ms=float("nan"))))
        assert not {"vq.accuracy", "vq.latency_p95_ms", "vq.verdict", "vq.reason"} & set(told)

    def test_workers_can_send_them(self) -> None:
        told = properties_of(make_record(verdict=Status.PASS))
        assert {type(value) for _, value in told} <= {int, float, str}

    def test_a_test_that_runs_again_has_them_once_and_keeps_its_own(self) -> None:
        item: Any = SimpleNamespace(stash={}, user_properties=[("mine", 1)])
        call: Any = SimpleNamespace(when="call")
        for latency_ms in (1.0, 2.0):
            item.stash[OUTCOME] = make_outcome(make_record(latency_ms=latency_ms))
            PropertyHooks().pytest_runtest_makereport(item, call)
        assert [value for name, value in item.user_properties if name == "vq.latency_ms"] == [2.0]
        assert item.user_properties[0] == ("mine", 1)


class TestAnnotations:
    def test_a_fail_and_an_undecided_pair_stand_at_their_tests(self, github: GitHub) -> None:
        assert github.end(judged(Status.PASS), judged(Status.INCONCLUSIVE), judged(Status.FAIL)) == [
            "::error file=tests/test_a.py,line=3,title=FAIL net-int8::FAIL for a reason",
            "::warning file=tests/test_a.py,line=2,title=INCONCLUSIVE net-int8::INCONCLUSIVE for a reason",
        ]

    def test_the_worst_come_first(self, github: GitHub) -> None:
        overs = {"slow": 1.5, "slower": 4.0, "unlike": None, "slowest": 9.0}
        commands = github.end(*(judged(Status.FAIL, over, name) for name, over in overs.items()))
        assert [c.split("FAIL ")[1].split("-")[0] for c in commands] == ["unlike", "slowest", "slower", "slow"]

    def test_many_are_nine_and_how_many_more(self, github: GitHub) -> None:
        commands = github.end(*[judged(Status.FAIL)] * 12, *[judged(Status.INCONCLUSIVE)] * 3)
        assert len(commands) == 10
        assert commands[-1].startswith("::notice title=pytest-vq::and 6 more")

    def test_what_changed_inside_is_said_too(self, github: GitHub) -> None:
        (command,) = github.end(judged(Status.FAIL, explanation=("all operators: 1 → 2 ms", "aten::mm: 100 %")))
        assert command.endswith("::FAIL for a reason; all operators: 1 → 2 ms; aten::mm: 100 %25")

    def test_a_pair_that_could_not_be_measured_is_an_error(self, github: GitHub) -> None:
        failure = Failure("net-int4", "BuildError", "no file\n::error::x")
        assert github.end(judged(Status.PASS), failures=(failure,)) == [
            r"::error file=tests/test_a.py,line=2,title=not measured%3A net-int4::BuildError: no file\n::error::x"
        ]

    def test_files_are_named_from_the_repositorys_root(self, tmp_path: Path) -> None:
        (tmp_path / "benchmarks").mkdir()
        github = GitHub(tmp_path / "benchmarks")
        github.environment["GITHUB_WORKSPACE"] = str(tmp_path)
        (command,) = github.end(judged(Status.FAIL), file="test_a.py")
        assert "file=benchmarks/test_a.py,line=1," in command

    def test_elsewhere_and_where_nothing_is_gated_there_are_none(self, tmp_path: Path) -> None:
        ungated = GitHub(tmp_path, gate="off")
        assert ungated.end(failures=(Failure("net-int4", "BuildError", "x"),)) == []
        elsewhere = GitHub(tmp_path)
        elsewhere.environment = {}
        assert elsewhere.end(judged(Status.FAIL)) == []
        assert elsewhere.run.notes == []


def test_what_an_error_quotes_commands_neither_the_terminal_nor_the_runner(github: GitHub) -> None:
    github.run.failures.append(Failure("net-int4", "MeasurementError", "it ends with:\n  ::error::x\n\x1b[2Jcleared"))
    printed: list[str] = []
    terminal: Any = SimpleNamespace(section=lambda *_, **__: None, line=lambda text, **_: printed.append(text))
    write_summary(terminal, github.run)
    lines = "\n".join(printed).splitlines()
    assert lines[0] == "ERROR net-int4: MeasurementError: it ends with:"  # an error of many lines keeps them
    assert not any(line.lstrip().startswith("::") for line in lines)
    assert not any("\x1b" in line for line in lines)


class TestSummary:
    def test_it_is_appended(self, github: GitHub) -> None:
        github.summary.write_text("of another program")
        github.run.notes += ["recorded 1 line", "ERROR: not one pair could be compared"]
        github.end(judged(Status.FAIL))
        text = github.summary.read_text()
        assert text.startswith("of another program\n## pytest-vq: 1 FAIL\n")
        assert "- ERROR: not one pair could be compared\n" in text
        assert "recorded" not in text

    def test_its_worst_rows_come_first(self, github: GitHub) -> None:
        github.end(judged(Status.FAIL, 2.0, "slow"), judged(Status.PASS), judged(Status.FAIL, 3.0, "slower"))
        text = github.summary.read_text()
        assert 0 < text.index("| slower-int8 |") < text.index("| slow-int8 |") < text.index("| net-int8 |")

    def test_what_the_step_wrote_before_counts_too(self, github: GitHub) -> None:
        github.summary.write_text("x" * (LIMIT_BYTES - 2000))
        github.end(*[judged(Status.FAIL)] * 50)
        assert github.summary.stat().st_size <= LIMIT_BYTES
        assert "Cut here" in github.summary.read_text()
        assert github.run.notes == []

    def test_a_summary_that_is_full_is_a_note(self, github: GitHub) -> None:
        github.summary.write_text("x" * LIMIT_BYTES)
        github.end(judged(Status.FAIL))
        assert github.run.notes == ["no summary in GITHUB_STEP_SUMMARY: this step has filled its 1 MiB already"]
        assert github.summary.stat().st_size == LIMIT_BYTES

    def test_a_file_that_cannot_be_written_is_a_note(self, github: GitHub) -> None:
        github.summary.mkdir()
        github.end(judged(Status.FAIL))
        (note,) = github.run.notes
        assert note == f"no summary in GITHUB_STEP_SUMMARY: cannot write {github.summary}: Is a directory"

    def test_a_run_that_measured_nothing_writes_none(self, github: GitHub) -> None:
        github.end()
        assert not github.summary.exists()


def metric(status: Status, effect: float | None, tolerance: float | None) -> MetricVerdict:
    return MetricVerdict("latency", status, "a reason", effect=effect, tolerance=tolerance)


@pytest.mark.parametrize(
    ("metrics", "over"),
    [
        ([metric(Status.FAIL, 0.3, 0.1), metric(Status.FAIL, 0.1, 0.02)], 5.0),
        ([metric(Status.FAIL, 0.3, 0.1), metric(Status.PASS, 9.0, 0.1)], 3.0),
        ([metric(Status.FAIL, 0.3, 0.1), metric(Status.FAIL, None, None)], None),
        ([metric(Status.PASS, 0.3, 0.1)], None),
    ],
)
def test_how_bad_a_fail_is_counts_in_tolerances(
    metrics: list[MetricVerdict], over: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = replace(Verdict.of(metrics), status=Status.PASS)  # so that nothing is explained
    monkeypatch.setattr("pytest_vq.plugin.judging._decide", lambda *_: verdict)
    means: Any = Means(*[None] * 5)  # type: ignore[arg-type]
    found = judge(make_outcome(), Demand(Tolerances(), 1), means).tolerances_over
    assert found == (None if over is None else pytest.approx(over))
