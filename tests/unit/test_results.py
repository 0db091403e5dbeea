from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, make_outcome, make_record, make_samples, make_serving_record

from pytest_vq.errors import ResultsError
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.record import COLUMNS, Environment
from pytest_vq.schema.serving import ServingFigures
from pytest_vq.schema.spec import EAGER
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.samples import read_samples

TESTS = Path(__file__).parents[1]
VERSION_1 = TESTS / "data" / "results-v1"
FILES = ["results.csv", "samples.jsonl", "study.json"]


def outcome(
    model: str = "vit", *, environment: Environment = ENVIRONMENT, test: str | None = None, **columns: Any
) -> Outcome:
    """What the test of a pair of ``model`` hands on; its latency needs every digit of a float."""
    usual = {"latency_ms": 0.1 + 0.2, "telemetry": {"load": 0.5}}
    return make_outcome(make_record(model, **(usual | columns)), environment, test=test)


def reopen(directory: Path) -> ResultsWriter:
    """Go on with the run in ``directory``."""
    earlier = read_results(directory)
    return ResultsWriter(directory, earlier.options, earlier)


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in a process of its own, which may import the factories."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=script_environment(), capture_output=True, text=True, timeout=60, check=False)


def script_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(TESTS)}


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def models_in(directory: Path) -> dict[str, list[str]]:
    """The models of the pairs that each of the three files holds, in its order."""
    return {
        "table": [row["model"] for row in rows(directory)],
        "samples": [line.model for line in read_samples(directory)],
        "study": [record.identity.model for record in read_results(directory).records],
    }


def everywhere(*models: str) -> dict[str, list[str]]:
    """What `models_in` finds where the files agree."""
    return {name: list(models) for name in ("table", "samples", "study")}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path / "new" / "out", {"batch": [1, 8], "output": Path("out"), "gpu": True})
    first = outcome(peak_memory_bytes=2**40, verdict=Status.FAIL, reason='slower: "6 %", really\nby far')
    second = outcome(precision="int4", launch_bound=True, environment=replace(ENVIRONMENT))
    third = outcome(execution="compile", disturbance="thermal throttling")
    failure = Failure("vit-fp16", "DeviceOutOfMemoryError", "80 GiB wanted", "vit")
    writer.add(first)
    writer.fail(failure)
    writer.add(second)
    writer.add(third)
    writer.close()
    for path in (tmp_path / "new" / "out", tmp_path / "new" / "out" / "study.json"):
        results = read_results(path)
        assert [(row.record, row.environment, row.estimates) for row in results.rows] == [
            (added.record, ENVIRONMENT, added.estimates) for added in (first, second, third)
        ]
        assert results.environments == (ENVIRONMENT,)
        assert results.failures == (failure,)
        assert results.options == {"batch": [1, 8], "output": "out", "gpu": True}
        assert results.complete


def test_records_of_two_processes_keep_their_environments(tmp_path: Path) -> None:
    other = replace(ENVIRONMENT, device_uuid="CPU-2")
    writer = ResultsWriter(tmp_path, {})
    for model, environment in (("a", ENVIRONMENT), ("b", other), ("c", ENVIRONMENT)):
        writer.add(outcome(model, environment=environment))
    results = read_results(tmp_path)
    assert [(row.record.identity.model, row.environment.device_uuid) for row in results.rows] == [
        ("a", "CPU-1"),
        ("b", "CPU-2"),
        ("c", "CPU-1"),
    ]
    assert len(results.environments) == 2


def test_the_estimates_of_every_process_of_a_pair_are_kept(tmp_path: Path) -> None:
    one = outcome()
    several = replace(one, estimates=(*one.estimates, replace(one.estimates[0], latency_ms=0.4, date_utc="later")))
    ResultsWriter(tmp_path, {}).add(several)
    assert read_results(tmp_path).rows[0].estimates == several.estimates


def test_the_table_holds_every_column_and_leaves_what_was_not_measured_empty(tmp_path: Path) -> None:
    unmeasured = {"speedup": None, "cosine": float("nan")}
    added = outcome(launch_bound=False, peak_memory_bytes=7, verdict=Status.PASS, execution="compile", **unmeasured)
    ResultsWriter(tmp_path, {}).add(added)
    (row,) = rows(tmp_path)
    assert tuple(row) == COLUMNS
    assert float(row["latency_ms"]) == 0.1 + 0.2  # every digit
    assert row["launch_bound"] == "false"
    assert row["method"] == "a method, bf16 rest"
    assert row["verdict"] == "PASS"
    assert row["peak_memory_bytes"] == "7"
    assert (row["precision"], row["execution"]) == ("int8", "compile")
    assert (row["speedup"], row["accuracy"], row["cosine"]) == ("", "", "")
    assert read_results(tmp_path).records[0].fidelity.cosine is None


def test_the_tables_of_version_1_have_the_first_columns_of_todays() -> None:
    with (VERSION_1 / "results.csv").open(newline="") as file:
        known = tuple(next(csv.reader(file)))
    assert COLUMNS[: len(known)] == known


def test_all_files_are_valid_from_the_start_and_after_every_pair(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, {})
    for count in range(3):
        assert models_in(tmp_path) == everywhere(*(f"vit-{n}" for n in range(count)))
        assert not read_results(tmp_path).complete
        writer.add(outcome(f"vit-{count}"))
    writer.close(complete=False)
    assert not read_results(tmp_path).complete
    writer.close()
    assert read_results(tmp_path).complete
    assert names(tmp_path) == FILES


def test_a_fresh_run_replaces_the_earlier_ones_files_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    writer = ResultsWriter(tmp_path, {"run": 1})
    writer.add(outcome())
    writer.close()
    ResultsWriter(tmp_path, {"run": 2})
    assert models_in(tmp_path) == everywhere()
    results = read_results(tmp_path)
    assert (results.options, results.records, results.complete) == ({"run": 2}, (), False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


KILLED = """
import sys; from pathlib import Path
from factories import make_outcome, make_record
from pytest_vq.store.results_writer import ResultsWriter
writer = ResultsWriter(Path(sys.argv[1]), {})
for n in range(10_000):
    writer.add(make_outcome(make_record(f"vit-{n}")))
    if n == 20:
        print("measured", flush=True)
"""


def test_a_killed_run_keeps_what_it_measured(tmp_path: Path) -> None:
    args = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=script_environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measured\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert not read_results(tmp_path).complete
    found = models_in(tmp_path)
    kept = found["study"]
    assert len(kept) > 20
    assert kept == [f"vit-{n}" for n in range(len(kept))]
    for name in ("table", "samples"):  # the pair being added when the kill came may be there already
        assert found[name] == [f"vit-{n}" for n in range(len(found[name]))]
        assert len(kept) <= len(found[name]) <= len(kept) + 1
    assert all(row["eligible_layers"] == "48" for row in rows(tmp_path))
    reopen(tmp_path)
    assert models_in(tmp_path) == everywhere(*kept)


KILLED_INSIDE = """
import io, os, signal, sys; from pathlib import Path
from factories import make_outcome, make_record
from pytest_vq.store.results_writer import ResultsWriter
writer = ResultsWriter(Path(sys.argv[1]), {})
writer.add(make_outcome(make_record("a")))

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def at_call(number, otherwise):
    calls = []
    def killed(*args):
        calls.append(args)
        return kill() if len(calls) == number else otherwise(*args)
    return killed

class HalfWritten(io.FileIO):
    def write(self, data):
        super().write(data[: len(data) // 2])
        kill()

point = sys.argv[2]
if point == "half the samples":
    Path.open = lambda path, mode, **_: HalfWritten(path, mode)
elif point == "replace":
    Path.replace = kill
else:
    os.fsync = at_call(["samples", "table", "study"].index(point) + 1, os.fsync)
writer.add(make_outcome(make_record("b")))
"""
KILLS = {  # when the kill comes -> what the table and the samples hold by then
    "half the samples": (["a"], ["a"]),
    "samples": (["a"], ["a", "b"]),
    "table": (["a", "b"], ["a", "b"]),
    "study": (["a", "b"], ["a", "b"]),
    "replace": (["a", "b"], ["a", "b"]),
}


@pytest.mark.parametrize("point", KILLS)
def test_a_run_killed_while_it_writes_keeps_the_rows_before(tmp_path: Path, point: str) -> None:
    assert run_script(KILLED_INSIDE, str(tmp_path), point).returncode == -signal.SIGKILL
    table, samples = KILLS[point]
    assert models_in(tmp_path) == {"table": table, "samples": samples, "study": ["a"]}
    ResultsWriter(tmp_path, {})
    assert models_in(tmp_path) == everywhere()
    assert names(tmp_path) == FILES


@pytest.mark.parametrize("point", KILLS)
def test_a_reopened_run_drops_what_a_kill_left_half_added(tmp_path: Path, point: str) -> None:
    assert run_script(KILLED_INSIDE, str(tmp_path), point).returncode == -signal.SIGKILL
    ends_whole = (tmp_path / "samples.jsonl").read_bytes().endswith(b"\n")
    assert ends_whole is (point != "half the samples")
    writer = reopen(tmp_path)
    assert models_in(tmp_path) == everywhere("a")
    assert (tmp_path / "samples.jsonl").read_bytes().endswith(b"\n")
    writer.add(make_outcome(make_record("b")))
    assert models_in(tmp_path) == everywhere("a", "b")
    assert names(tmp_path) == FILES


@pytest.mark.parametrize("failing_call", [1, 2, 3, 4])
def test_a_full_disk_leaves_the_earlier_rows_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    writer = ResultsWriter(tmp_path, {})
    writer.add(outcome("a"))
    twice = replace(outcome("b"), samples=(make_samples(), make_samples(date_utc="later")))
    calls: list[int] = []

    def full(fd: int) -> None:  # called for the samples of either process, then for the table, then for the study
        calls.append(fd)
        if len(calls) == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    with pytest.raises(ResultsError, match=r"No space left.*free some space"):
        writer.add(twice)
    assert len(calls) == failing_call
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    writer.add(outcome("c"))
    assert models_in(tmp_path) == everywhere("a", "c")


def test_a_full_disk_when_closing_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ResultsWriter(tmp_path, {})

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for attempt in (writer.close, lambda: writer.fail(Failure("vit-int8", "OutputError", "nan", "vit"))):
        with pytest.raises(ResultsError, match="No space left"):
            attempt()


SHORT_WRITE = """
import resource, signal, sys; from pathlib import Path
from factories import make_outcome, make_record
from pytest_vq.errors import ResultsError
from pytest_vq.store.results_writer import ResultsWriter
directory, name = Path(sys.argv[1]), sys.argv[2]
writer = ResultsWriter(directory, {})
growing = directory / name
growing.write_text(growing.read_text() + "earlier" * 1000 + "\\n")  # now the largest of the files
size = growing.stat().st_size
before = {path.name: path.read_bytes() for path in directory.iterdir()}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
try:
    writer.add(make_outcome())
except ResultsError as error:
    print("refused", error)
assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
"""


@pytest.mark.parametrize("name", ["results.csv", "samples.jsonl"])
def test_half_a_line_is_taken_back(tmp_path: Path, name: str) -> None:
    # A real short write: files may grow by a few bytes only.
    done = run_script(SHORT_WRITE, str(tmp_path), name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"refused cannot write results to {tmp_path / name}: No space left" in done.stdout


def test_a_directory_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ResultsError, match=r"file.*--vq-output"):
            ResultsWriter(directory, {})
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out" / "results.csv").mkdir(parents=True)
    with pytest.raises(ResultsError, match=r"results\.csv"):
        ResultsWriter(tmp_path / "out", {})


def test_a_record_that_could_not_be_read_back_is_refused(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, {})
    with pytest.raises(ResultsError, match=r"vit-int8 cannot be stored.*latency_ms"):
        writer.add(outcome(latency_ms=float("nan")))
    writer.add(outcome("next"))
    assert models_in(tmp_path) == everywhere("next")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "", "truncated"),
        (lambda text: "model,latency_ms\nvit,4.0\n", "not JSON"),
        (lambda text: "[1]", "no schema_version"),
        (lambda text: '{"tests": []}', "no schema_version"),
        (lambda text: text.replace('"samples":100', '"samples":"100"', 1), r"Expected `int`.*samples"),
        (lambda text: text.replace('"samples":100,', "", 1), "samples"),
        (lambda text: text.replace('"estimates":[{', '"estimates":[{}, {'), "latency_ms"),
        (lambda text: text.replace('"environment":0', '"environment":-1'), "does not hold"),
        (lambda text: text.replace('"environment":0', '"environment":1'), "does not hold"),
        (lambda text: text.replace(',"environment":0', ""), "int"),
        (lambda text: '{"schema_version":2}', "complete"),
    ],
)
def test_what_is_not_a_results_file_is_named(tmp_path: Path, damage: Callable[[str], str], words: str) -> None:
    ResultsWriter(tmp_path, {}).add(outcome())
    study = tmp_path / "study.json"
    changed = damage(study.read_text())
    assert changed != study.read_text()
    study.write_text(changed)
    with pytest.raises(ResultsError, match=words) as raised:
        read_results(tmp_path)
    assert str(study) in str(raised.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(ResultsError, match="not JSON"):
        read_results(tmp_path)


def test_a_newer_schema_says_both_versions_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(ResultsError, match=r"study\.json.* 99,.* 2: upgrade pytest-vq"):
        read_results(tmp_path)


def test_no_results_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent" / "study.json"):
        with pytest.raises(ResultsError, match=r"cannot read results.*--vq-output"):
            read_results(path)


def test_a_reopened_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    earlier = ResultsWriter(tmp_path, {"batch": [1], "gpu": False})
    first = outcome("a")
    failure = Failure("b-int8", "OutputError", "nan", "b")
    earlier.add(first)
    earlier.fail(failure)
    earlier.close()
    study = tmp_path / "study.json"
    started = read_results(tmp_path).started_utc
    study.write_text(study.read_text().replace(f'"started_utc":"{started}"', '"started_utc":"2025-01-01T00:00:00Z"'))

    writer = reopen(tmp_path)
    assert models_in(tmp_path) == everywhere("a")
    assert not read_results(tmp_path).complete
    second = outcome("c", environment=replace(ENVIRONMENT, date_utc="2026-01-02T00:00:00Z"))
    third = outcome("d")
    late = Failure("e-int8", "OutputError", "inf", "e")
    writer.add(second)
    writer.add(third)
    writer.fail(late)
    writer.close()

    results = read_results(tmp_path)
    assert [(row.record, row.environment, row.estimates) for row in results.rows] == [
        (added.record, added.environment, added.estimates) for added in (first, second, third)
    ]
    assert results.failures == (failure, late)
    assert results.environments == (ENVIRONMENT, second.environment)
    assert results.options == {"batch": [1], "gpu": False}
    assert results.started_utc == "2025-01-01T00:00:00Z"
    assert results.updated_utc > results.started_utc
    assert results.complete
    assert models_in(tmp_path) == everywhere("a", "c", "d")
    assert [line.samples for line in read_samples(tmp_path)] == [first.samples[0], second.samples[0], third.samples[0]]


def test_a_row_measured_again_replaces_the_earlier_one_in_every_file(tmp_path: Path) -> None:
    later = replace(ENVIRONMENT, versions={"torch": "2.14.0"}, date_utc="2026-01-02T00:00:00Z")
    earlier = ResultsWriter(tmp_path, {})
    for model in ("a", "b"):
        earlier.add(outcome(model, test=model))
    earlier.close()
    writer = reopen(tmp_path)
    writer.add(outcome("a", environment=later, test="a", latency_ms=7.0))
    assert models_in(tmp_path) == everywhere("b", "a")
    results = read_results(tmp_path)
    assert [row.environment for row in results.rows] == [ENVIRONMENT, later]
    assert [line.samples.date_utc for line in read_samples(tmp_path)] == [ENVIRONMENT.date_utc, later.date_utc]
    writer.add(outcome("b", environment=later, test="b"))
    assert read_results(tmp_path).environments == (later,)  # nothing is left of the other
    assert names(tmp_path) == FILES


def test_a_row_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    added = outcome("a", test="test_a.py::test_a")
    ResultsWriter(tmp_path, {}).add(added)
    writer = reopen(tmp_path)
    before = {name: (tmp_path / name).stat().st_ino for name in FILES}
    writer.add(added)
    assert {name: (tmp_path / name).stat().st_ino for name in FILES} == before
    assert models_in(tmp_path) == everywhere("a")


def test_two_tests_of_one_pair_have_a_row_each(tmp_path: Path) -> None:
    one, other = (make_outcome(make_record("a"), test=f"test_a.py::test_{name}") for name in ("one", "other"))
    writer = ResultsWriter(tmp_path, {})
    writer.add(one)
    writer.add(other)
    assert models_in(tmp_path) == everywhere("a", "a")
    writer = reopen(tmp_path)
    again = replace(one, record=make_record("a", latency_ms=7.0))
    writer.add(again)
    results = read_results(tmp_path)
    assert [(row.test, row.record.timing.latency_ms) for row in results.rows] == [(other.test, 10.0), (one.test, 7.0)]
    assert [line.test for line in read_samples(tmp_path)] == [other.test, one.test]


def test_what_an_outcome_says_beside_its_record_is_kept(tmp_path: Path) -> None:
    added = make_outcome(test="t.py::t", explanation=("aten::mm: 6 → 8 ms",), time_decided=True, tolerances_over=1.5)
    ResultsWriter(tmp_path, {}).add(added)
    (row,) = read_results(tmp_path).rows
    assert row.outcome(added.samples) == added


def test_an_earlier_failure_stays_until_its_pair_was_tried_again(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, {})
    failures = [Failure(f"{model}-int8", "OutputError", "nan", model) for model in "abc"]
    for failure in failures:
        writer.fail(failure)
    writer = reopen(tmp_path)
    assert read_results(tmp_path).failures == tuple(failures)
    writer.add(outcome("a"))
    assert read_results(tmp_path).failures == tuple(failures[1:])
    again = Failure("b-int8", "WorkerCrashed", "gone", "b")
    writer.fail(again)
    writer.close()
    assert read_results(tmp_path).failures == (failures[2], again)


def test_a_full_disk_while_a_row_is_replaced_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResultsWriter(tmp_path, {}).add(outcome("a", test="t"))
    writer = reopen(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    calls: list[int] = []

    def full(fd: int) -> None:  # the third and last file is the study
        calls.append(fd)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"No space left.*free some space"):
        writer.add(outcome("a", test="t", latency_ms=7.0))
    assert len(calls) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_whose_test_is_not_known_give_way_to_one_whose_is_and_not_to_each_other(tmp_path: Path) -> None:
    later = replace(ENVIRONMENT, date_utc="2026-01-02T00:00:00Z")
    writer = ResultsWriter(tmp_path, {})
    for environment in (ENVIRONMENT, later):
        writer.add(outcome("a", environment=environment))
    assert models_in(tmp_path) == everywhere("a", "a")
    writer = reopen(tmp_path)
    assert models_in(tmp_path) == everywhere("a", "a")
    writer.add(outcome("a", test="t"))
    assert models_in(tmp_path) == everywhere("a")


def test_a_fresh_run_killed_while_it_begins_leaves_no_earlier_row_without_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResultsWriter(tmp_path, {}).add(outcome("a"))
    put: list[Path] = []
    replace_path = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if put:
            raise KeyboardInterrupt  # no handler is for it: as good as killed
        put.append(target)
        return replace_path(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ResultsWriter(tmp_path, {})
    assert read_results(tmp_path).rows == ()


def test_a_clock_set_back_between_two_runs_loses_no_order_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResultsWriter(tmp_path, {}).add(outcome("a"))
    started = read_results(tmp_path).started_utc
    monkeypatch.setattr("pytest_vq.store.results_writer._now", lambda: "2001-01-01T00:00:00+00:00")
    writer = reopen(tmp_path)
    writer.add(outcome("b", environment=replace(ENVIRONMENT, date_utc="2001-01-01T00:00:00Z")))
    writer.close()
    assert models_in(tmp_path) == everywhere("a", "b")
    assert (read_results(tmp_path).started_utc, read_results(tmp_path).complete) == (started, True)


def test_a_run_may_be_reopened_before_it_measured_anything(tmp_path: Path) -> None:
    ResultsWriter(tmp_path, {"run": 1})
    reopen(tmp_path).add(outcome("a"))
    assert models_in(tmp_path) == everywhere("a")
    assert read_results(tmp_path).options == {"run": 1}


def test_pairs_of_one_model_are_told_apart_when_a_run_is_reopened(tmp_path: Path) -> None:
    kept = outcome("a", execution="compile")
    ResultsWriter(tmp_path, {}).add(kept)
    lost = [outcome("a"), outcome("a", precision="int4", execution="compile"), outcome("a", batch=8)]
    study = (tmp_path / "study.json").read_bytes()
    writer = reopen(tmp_path)
    for added in lost:
        writer.add(added)
    (tmp_path / "study.json").write_bytes(study)  # as if it could not be replaced any more
    reopen(tmp_path)
    assert [str(line.case_id) for line in read_samples(tmp_path)] == ["a-int8+compile"]
    assert [(row["precision"], row["execution"], row["batch"]) for row in rows(tmp_path)] == [("int8", "compile", "1")]


@pytest.mark.parametrize("content", [None, "{", '{"schema_version": 99}'])
def test_what_cannot_be_read_is_not_reopened(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "results.csv").write_text("mine")
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(ResultsError, match=r"study\.json"):
        reopen(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "mine"


def test_a_serving_row_is_read_back_beside_the_row_of_its_pair(tmp_path: Path) -> None:
    records = (make_record(), make_serving_record())
    writer = ResultsWriter(tmp_path, {})
    for record in records:
        writer.add(make_outcome(record, samples=(replace(make_samples(), reference=None, sentinel=None),)))
    writer.close()
    results = read_results(tmp_path)
    assert results.records == records
    assert [str(record.case_id) for record in records] == ["net-int8", "net-int8-serving"]
    assert [line.case_id for line in read_samples(tmp_path)] == [record.case_id for record in records]
    table = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["max_qps_low"] for row in table] == ["", "222.0"]


def test_results_of_version_1_are_read_and_were_eager() -> None:
    written = json.loads((VERSION_1 / "study.json").read_text())
    assert written["schema_version"] == 1
    results = read_results(VERSION_1)
    assert [str(record.case_id) for record in results.records] == [
        f"vit-digits-{precision}" for precision in ("fp32", "fp16", "int8", "int4")
    ]
    for row, stored in zip(results.rows, written["records"], strict=True):
        assert row.record.preparation.execution == row.record.setup.execution == EAGER
        assert row.environment == Environment(**written["environments"][stored.pop("environment")])
        assert [estimates.latency_ms for estimates in row.estimates] == [stored["latency_ms"]]
        del stored["estimates"]
        rest = "bf16" if stored["precision"] in {"int8", "int4"} else None
        stored["setup"] |= {"execution": EAGER, "rest": rest, "recipe": None, "serving": None}
        assert row.record.to_row() == stored | {
            "execution": EAGER,
            "right_answers": None,
            "reference_latency_ms": None,
            "note": None,
            "sentinel_median_ms": None,
            "device_time_method": None,
            "device_speedup": None,
            "energy_per_image_mj": None,
            "sm_clock_mhz": None,
            "power_mw": None,
            "workspace_bytes": None,
            "prepare_s": None,
            "prepare_cache": None,
            "graphs": None,
            "graph_breaks": None,
            "recompiles": None,
            "graph_pool_bytes": None,
            "build_s": None,
            "device_held_s": None,
            **dict.fromkeys(field.name for field in fields(ServingFigures)),
        }
    assert (results.options, results.complete) == (written["options"], True)
    assert read_samples(VERSION_1) == ()


def test_a_failure_of_version_1_has_no_model(tmp_path: Path) -> None:
    written = json.loads((VERSION_1 / "study.json").read_text())
    failure = {"id": "net-int8", "error": "OutputError", "message": "nan"}
    (tmp_path / "study.json").write_text(json.dumps(written | {"failures": [failure]}))
    assert read_results(tmp_path).failures == (Failure("net-int8", "OutputError", "nan", None),)


def test_results_of_version_1_are_version_2_once_reopened(tmp_path: Path) -> None:
    directory = Path(shutil.copytree(VERSION_1, tmp_path / "out"))
    before = read_results(directory)
    reopen(directory).add(outcome("added"))
    after = read_results(directory)
    assert json.loads((directory / "study.json").read_text())["schema_version"] == 2
    assert after.rows[:-1] == before.rows
    assert (after.started_utc, after.options) == (before.started_utc, before.options)
    assert models_in(directory) == {
        "table": [*["vit-digits"] * 4, "added"],
        "samples": ["added"],
        "study": [*["vit-digits"] * 4, "added"],
    }
    assert [row["execution"] for row in rows(directory)] == [EAGER] * 5


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_the_table_is_a_formula_to_a_spreadsheet(tmp_path: Path, start: str) -> None:
    hostile = f'{start}HYPERLINK("http://example.org")'
    writer = ResultsWriter(tmp_path, {})
    writer.add(outcome(hostile, reason=hostile, memory_reduction=-0.25))
    writer.close()
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["reason"]) == (f"'{hostile}", f"'{hostile}")
    assert row["memory_reduction"] == "-0.25"  # a number stays one
    assert read_results(tmp_path).records[0].identity.model == hostile
