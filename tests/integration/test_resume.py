"""A run that was cut short, taken up with ``--vq-resume``: no finished pair is measured again, all else is as ever."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_vq.measure.bench import Bench
from pytest_vq.store.results import read_results
from pytest_vq.store.samples import read_samples

# INT8 is the first that misses this bound, and fails without being measured again.
BOUNDED = """
    import pytest

    @pytest.mark.vq(min_sqnr_db=50)
    def test_precision(vq_case, vq_bench):
        record = vq_bench(vq_case)
        assert record.latency_ms > 0
"""
RESUME = "--vq-resume"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pairs and callables that were measured since it was last emptied."""
    measured: list[str] = []
    measure = Bench.measure

    def noted(self: Bench, case: object, **how: object) -> object:
        measured.append(case.id)
        return measure(self, case, **how)

    monkeypatch.setattr(Bench, "measure", noted)
    return measured


@dataclass(slots=True)
class CutShort:
    """A run that ended at INT8, the third of four pairs, which failed: its files, and the line that said so."""

    files: dict[str, bytes] = field(default_factory=dict)
    failed: str = ""


@pytest.fixture(scope="module")
def once() -> CutShort:
    """Time stands still, so one such run is as any other."""
    return CutShort()


@pytest.fixture
def cut_short(steady: pytest.Pytester, measured: list[str], once: CutShort) -> CutShort:
    """The project with what that run left in it."""
    steady.makepyfile(test_my_bench=BOUNDED)
    output = steady.path / "vq-results"
    if not once.files:
        result = steady.runpytest_inprocess("-x")
        assert result.ret == 1
        assert measured == ["my-net-fp32", "my-net-fp16", "my-net-int8"]
        measured.clear()
        (once.failed,) = (line for line in result.outlines if line.startswith("FAILED"))
        once.files = files(steady)
    output.mkdir(exist_ok=True)
    for name, content in once.files.items():
        (output / name).write_bytes(content)
    assert read_results(output).complete is False
    return once


def files(project: pytest.Pytester) -> dict[str, bytes]:
    """What each file of the results holds."""
    return {path.name: path.read_bytes() for path in (project.path / "vq-results").iterdir() if path.is_file()}


def rewrite(project: pytest.Pytester, before: str, after: str) -> None:
    """Change ``study.json`` as another machine would have written it."""
    study = project.path / "vq-results" / "study.json"
    text = study.read_text()
    assert before in text
    study.write_text(text.replace(before, after))


class TestTakenUp:
    def test_only_what_is_missing_is_measured_and_what_had_failed_fails_as_it_did(
        self, steady, cut_short, measured, rows
    ) -> None:
        output = steady.path / "vq-results"
        finished, before = read_samples(output), read_results(output)
        result = steady.runpytest_inprocess(RESUME, "--junitxml=junit.xml", "--benchmark-json=benchmark.json")
        assert measured == ["my-net-int4"]
        assert [row["precision"] for row in rows()] == ["fp32", "fp16", "int8", "int4"]
        after = read_results(output)
        assert after.rows[:3] == before.rows
        assert (after.complete, after.started_utc) == (True, before.started_utc)
        assert read_samples(output)[:3] == finished
        result.stdout.fnmatch_lines(
            [
                "?1/4? my-net-fp32 *  kept",
                "?4/4? my-net-int4 *",
                "resumed the run of *: 3 pairs kept, 1 pair measured",
                "WARNING: there is no git repository here: *",
            ]
        )
        result.stdout.no_fnmatch_line("?4/4? *kept")

        assert result.ret == 1
        result.assert_outcomes(passed=2, failed=2)
        assert cut_short.failed in result.outlines
        junit = (steady.path / "junit.xml").read_text()
        assert 'tests="4"' in junit
        assert junit.count("<failure") == 2
        benchmarks = json.loads((steady.path / "benchmark.json").read_text())["benchmarks"]
        rounds = [benchmark["stats"]["rounds"] for benchmark in benchmarks]
        assert rounds == [len(line.samples.subject.times_ms) for line in read_samples(output)]

    def test_by_a_worker(self, steady, cut_short, rows) -> None:
        before = read_results(steady.path / "vq-results").rows
        result = steady.runpytest_subprocess(RESUME, "-n", "1")
        assert result.ret == 1
        assert sorted(row["precision"] for row in rows()) == ["fp16", "fp32", "int4", "int8"]
        assert read_results(steady.path / "vq-results").rows[:3] == before
        result.stdout.fnmatch_lines(["resumed the run of *: 3 pairs kept, 1 pair measured"])


class TestMeasuredAgain:
    def test_a_row_of_another_environment_gives_way_to_one_of_this(self, steady, cut_short, measured, rows) -> None:
        (environment,) = read_results(steady.path / "vq-results").environments
        rewrite(steady, f'"torch":"{environment.versions["torch"]}"', '"torch":"2.0.1"')
        result = steady.runpytest_inprocess(RESUME)
        assert measured == ["my-net-fp32", "my-net-fp16", "my-net-int8", "my-net-int4"]
        assert [row["precision"] for row in rows()] == ["fp32", "fp16", "int8", "int4"]
        assert [line.scheme for line in read_samples(steady.path / "vq-results")] == ["fp32", "fp16", "int8", "int4"]
        (now,) = read_results(steady.path / "vq-results").environments
        assert now.versions == environment.versions
        result.stdout.fnmatch_lines(
            [
                "resumed *: none kept, 4 pairs measured (3 again, for torch 2.0.1 → "
                + environment.versions["torch"]
                + ")"
            ]
        )

    def test_a_pair_that_could_not_be_measured(self, steady, measured) -> None:
        conftest = steady.path / "conftest.py"
        broken = dedent("""

        class Broken(Net):
            def forward(self, images):
                if Path("broken").exists() and self.head.weight.dtype is not torch.float32:
                    raise RuntimeError("no such kernel")
                return super().forward(images)


        Net = Broken
        """)
        conftest.write_text(conftest.read_text() + broken)
        (steady.path / "broken").touch()
        only = "--vq-precisions=fp32,fp16"
        assert steady.runpytest_inprocess(only).ret == 1
        (failure,) = read_results(steady.path / "vq-results").failures
        assert failure.id == "my-net-fp16"
        (steady.path / "broken").unlink()
        measured.clear()
        assert steady.runpytest_inprocess(only, RESUME).ret == 0
        assert measured == ["my-net-fp16"]
        assert read_results(steady.path / "vq-results").failures == ()

    def test_a_row_that_was_not_judged_is_judged_and_not_measured(self, steady, measured, rows) -> None:
        only = "--vq-precisions=fp32"
        assert steady.runpytest_inprocess(only, "--vq-gate=off").ret == 0
        assert rows()[0]["verdict"] == ""
        samples = read_samples(steady.path / "vq-results")
        measured.clear()
        assert steady.runpytest_inprocess(only, RESUME).ret == 0
        assert (measured, rows()[0]["verdict"]) == ([], "NO_BASELINE")
        assert read_samples(steady.path / "vq-results") == samples


class TestSelection:
    def test_rows_outside_of_it_stay_and_the_run_stays_marked(self, steady, cut_short, measured, rows) -> None:
        result = steady.runpytest_inprocess(RESUME, "-k", "int4")
        assert measured == ["my-net-int4"]
        assert [row["precision"] for row in rows()] == ["fp32", "fp16", "int8", "int4"]
        assert read_results(steady.path / "vq-results").complete is False
        result.stdout.fnmatch_lines(
            ["not selected here, and left as before: 3 pairs of the earlier run, and the run stays marked as *"]
        )

    def test_a_callable_is_kept_without_being_called(self, steady, measured) -> None:
        (steady.path / "test_my_bench.py").unlink()
        steady.makepyfile(
            test_ops="""
            from pathlib import Path

            def work():
                Path("called").touch()

            def test_work(vq_gate):
                timing = vq_gate(work)
                assert len(timing.samples_ms) > 5
            """
        )
        assert steady.runpytest_inprocess().ret == 0
        (steady.path / "called").unlink()
        measured.clear()
        result = steady.runpytest_inprocess(RESUME)
        assert (result.ret, measured) == (0, [])
        assert not (steady.path / "called").exists()
        result.stdout.fnmatch_lines(["resumed the run of *: 1 callable kept, none measured"])


class TestRefused:
    """Exit code 4, and not a byte of the results is changed."""

    def test_other_options(self, steady, cut_short) -> None:
        before = files(steady)
        result = steady.runpytest_inprocess(RESUME, "--vq-budget=7", "--vq-threads=2")
        assert result.ret == 4
        result.stderr.fnmatch_lines(
            [
                "ERROR: --vq-resume: *study.json is of a run with --vq-budget=30.0, --vq-threads=1; this one has "
                "--vq-budget=7.0, --vq-threads=2, and would measure something else. Give what that run was given, *"
            ]
        )
        assert files(steady) == before

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("study.json", "{", "*study.json is not JSON*"),
            ("study.json", '{"schema_version": 99}', "*study.json has schema version 99*upgrade pytest-vq"),
            ("samples.jsonl", "mine\n", "*samples.jsonl is not a samples.jsonl of pytest-vq*"),
        ],
    )
    def test_files_that_cannot_be_read(self, steady, cut_short, name: str, content: str, words: str) -> None:
        (steady.path / "vq-results" / name).write_text(content)
        before = files(steady)
        result = steady.runpytest_inprocess(RESUME)
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: {words}"])
        assert files(steady) == before


def test_where_there_are_no_results_a_run_begins(steady, rows) -> None:
    result = steady.runpytest_inprocess(RESUME, "--vq-precisions=fp32")
    assert (result.ret, len(rows())) == (0, 1)
    result.stdout.fnmatch_lines(["--vq-resume: *vq-results held no results to go on with: this run began them"])
    assert read_results(steady.path / "vq-results").complete


# A file in the working directory says what to fill up while the pair of that name is measured.
FILLED = """
    import contextlib
    from pathlib import Path

    def fill(directory):
        with contextlib.suppress(OSError), (directory / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass

    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
        if Path("fill").exists() and Path("fill").read_text().split()[0] == vq_case.scheme.name:
            fill(Path(Path("fill").read_text().split()[1]))
"""


@pytest.fixture
def small_disk(steady: pytest.Pytester) -> Iterator[Path]:
    """A file system of one MiB, in the project."""
    directory = steady.mkdir("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


class TestFullDisk:
    @pytest.fixture(autouse=True)
    def filled(self, steady) -> None:
        steady.makepyfile(test_my_bench=FILLED)

    def test_of_results_ends_the_run_and_loses_nothing(self, steady, small_disk, measured, rows) -> None:
        options = ("--vq-precisions=fp32,fp16,int8", f"--vq-output={small_disk}")
        (steady.path / "fill").write_text(f"fp16 {small_disk}")
        result = steady.runpytest_inprocess(*options)
        assert result.ret == 1
        result.stdout.fnmatch_lines(
            ["!*pytest-vq: cannot write results to *: No space left on device: free some space*"]
        )
        assert [row["precision"] for row in rows("small")] == ["fp32"]
        assert len(read_samples(small_disk)) == len(read_results(small_disk).rows) == 1

        (steady.path / "fill").unlink()
        (small_disk / "filler").unlink()
        measured.clear()
        assert steady.runpytest_inprocess(*options, RESUME).ret == 0
        assert measured == ["my-net-fp16", "my-net-int8"]
        assert [row["precision"] for row in rows("small")] == ["fp32", "fp16", "int8"]

    def test_of_baselines_fails_the_run_and_it_is_recorded_when_taken_up(self, steady, small_disk, measured) -> None:
        options = ("--vq-precisions=fp32,fp16", f"--vq-baselines={small_disk}", "--vq-save")
        (steady.path / "fill").write_text(f"fp16 {small_disk}")
        result = steady.runpytest_inprocess(*options)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["ERROR: cannot *: No space left on device: the disk is full; free some space"])
        assert list(small_disk.rglob("*.json")) == []
        assert len(read_results(steady.path / "vq-results").rows) == 2

        (steady.path / "fill").unlink()
        (small_disk / "filler").unlink()
        measured.clear()
        assert steady.runpytest_inprocess(*options, RESUME).ret == 0
        assert measured == []
        (stored,) = small_disk.rglob("my-net.json")
        entries = json.loads(stored.read_text())["entries"]
        assert [len(entry["processes"]) for entry in entries] == [1, 1]
        assert all(entry["operators"] for entry in entries)  # taken by another process, after the last pair
