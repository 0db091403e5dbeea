from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pytest_vq.errors import ResultsError
from pytest_vq.schema.record import COLUMNS, SCHEMA_VERSION, Coverage, Environment, Record, Setup
from pytest_vq.schema.verdict import Status
from pytest_vq.store import results as results_module
from pytest_vq.store.results import Failure, ResultsWriter, read_results

ENVIRONMENT = Environment(
    device="cuda",
    device_name="NVIDIA H200",
    device_slug="nvidia-h200",
    device_uuid="GPU-1",
    versions={"torch": "2.8.0"},
    settings={"mig": None},
    commit="abc-dirty",
    date_utc="2025-01-01T00:00:00Z",
)


def record(**changes: object) -> Record:
    """An INT8 record; what ``changes`` does not name and need not be there was not measured."""
    blank: dict[str, object] = dict.fromkeys(f.name for f in fields(Record))
    blank |= {
        "model": "vit",
        "category": "ViT",
        "architecture": "vit",
        "parameters": 5_700_000,
        "precision": "int8",
        "method": "bitsandbytes LLM.int8, fp16 rest",
        "device": "cuda",
        "batch": 1,
        "weights": "random",
        "latency_ms": 0.1 + 0.2,
        "samples": 30,
        "stop_reason": "interval",
        "model_size_bytes": 6_000_000,
        "quantized_layers": 48,
        "eligible_layers": 48,
        "coverage": Coverage(48, 48, {}),
        "telemetry": {"load": 0.5},
        "reason": "",
    }
    blank |= changes
    blank.setdefault("setup", None)
    if blank["setup"] is None:
        blank["setup"] = Setup(str(blank["precision"]), int(str(blank["batch"])), "adaptive", "random", None, False)
    return Record(**blank)  # type: ignore[arg-type]


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path / "new" / "out", {"batch": [1, 8], "output": Path("out"), "gpu": True})
    first = record(peak_memory_bytes=2**40, verdict=Status.FAIL, reason='slower: "6 %", really\nby far')
    second = record(precision="int4", launch_bound=True)
    writer.add(first, ENVIRONMENT)
    writer.fail("vit-fp16", "DeviceOutOfMemoryError", "80 GiB wanted")
    writer.add(second, replace(ENVIRONMENT))
    writer.close()
    for path in (tmp_path / "new" / "out", tmp_path / "new" / "out" / "study.json"):
        results = read_results(path)
        assert [(row.record, row.environment) for row in results.rows] == [(first, ENVIRONMENT), (second, ENVIRONMENT)]
        assert results.environments == (ENVIRONMENT,)
        assert results.failures == (Failure("vit-fp16", "DeviceOutOfMemoryError", "80 GiB wanted"),)
        assert results.options == {"batch": [1, 8], "output": "out", "gpu": True}
        assert results.complete


def test_records_of_two_processes_keep_their_environments(tmp_path: Path) -> None:
    other = replace(ENVIRONMENT, device_uuid="GPU-2")
    writer = ResultsWriter(tmp_path, {})
    for model, environment in (("a", ENVIRONMENT), ("b", other), ("c", ENVIRONMENT)):
        writer.add(record(model=model), environment)
    results = read_results(tmp_path)
    assert [(row.record.model, row.environment.device_uuid) for row in results.rows] == [
        ("a", "GPU-1"),
        ("b", "GPU-2"),
        ("c", "GPU-1"),
    ]
    assert len(results.environments) == 2


def test_the_table_holds_every_column_and_leaves_what_was_not_measured_empty(tmp_path: Path) -> None:
    ResultsWriter(tmp_path, {}).add(
        record(launch_bound=False, cosine=float("nan"), peak_memory_bytes=7, verdict=Status.PASS), ENVIRONMENT
    )
    (row,) = rows(tmp_path)
    assert tuple(row) == COLUMNS
    assert float(row["latency_ms"]) == 0.1 + 0.2  # every digit
    assert row["launch_bound"] == "false"
    assert row["method"] == "bitsandbytes LLM.int8, fp16 rest"
    assert row["verdict"] == "PASS"
    assert row["peak_memory_bytes"] == "7"
    assert (row["speedup"], row["accuracy"], row["cosine"]) == ("", "", "")
    assert read_results(tmp_path).records[0].cosine is None


def test_both_files_are_valid_from_the_start_and_after_every_pair(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, {})
    for count in range(3):
        assert len(rows(tmp_path)) == len(read_results(tmp_path).records) == count
        assert not read_results(tmp_path).complete
        writer.add(record(model=f"vit-{count}"), ENVIRONMENT)
    writer.close(complete=False)
    assert not read_results(tmp_path).complete
    writer.close()
    assert read_results(tmp_path).complete
    assert names(tmp_path) == ["results.csv", "study.json"]


def test_a_fresh_run_replaces_the_earlier_ones_files_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    writer = ResultsWriter(tmp_path, {"run": 1})
    writer.add(record(), ENVIRONMENT)
    writer.close()
    ResultsWriter(tmp_path, {"run": 2})
    assert rows(tmp_path) == []
    results = read_results(tmp_path)
    assert (results.options, results.records, results.complete) == ({"run": 2}, (), False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


KILLED = """
import sys, time; from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_results import ENVIRONMENT, record
from pytest_vq.store.results import ResultsWriter
writer = ResultsWriter(Path(sys.argv[1]), {})
for n in range(10_000):
    writer.add(record(model=f"vit-{n}"), ENVIRONMENT)
    if n == 20:
        print("measured", flush=True)
"""


def test_a_killed_run_keeps_what_it_measured(tmp_path: Path) -> None:
    args = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measured\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    results = read_results(tmp_path)
    kept = [r.model for r in results.records]
    assert len(kept) > 20
    assert kept == [f"vit-{n}" for n in range(len(kept))]
    assert not results.complete
    table = [row["model"] for row in rows(tmp_path)]
    assert table[: len(kept)] == kept  # the row being added when the kill came may be there already
    assert len(table) - len(kept) in (0, 1)
    assert all(row["eligible_layers"] == "48" for row in rows(tmp_path))


KILLED_INSIDE = """
import os, signal, sys; from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_results import ENVIRONMENT, record
from pytest_vq.store.results import ResultsWriter
writer = ResultsWriter(Path(sys.argv[1]), {})
writer.add(record(model="a"), ENVIRONMENT)
points = {"table": (os, "fsync", 1), "study": (os, "fsync", 2), "replace": (Path, "replace", 1)}
owner, name, count = points[sys.argv[3]]
calls = []
def killed(*args):
    calls.append(args)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
writer.add(record(model="b"), ENVIRONMENT)
"""


@pytest.mark.parametrize("point", ["table", "study", "replace"])
def test_a_run_killed_while_it_writes_keeps_the_rows_before(tmp_path: Path, point: str) -> None:
    args = [sys.executable, "-c", KILLED_INSIDE, str(tmp_path), str(Path(__file__).parent), point]
    assert subprocess.run(args, timeout=60).returncode == -signal.SIGKILL
    assert [r.model for r in read_results(tmp_path).records] == ["a"]
    assert [row["model"] for row in rows(tmp_path)] == ["a", "b"]
    ResultsWriter(tmp_path, {})
    assert read_results(tmp_path).records == ()
    assert names(tmp_path) == ["results.csv", "study.json"]


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_full_disk_leaves_the_earlier_rows_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    writer = ResultsWriter(tmp_path, {})
    writer.add(record(model="a"), ENVIRONMENT)
    calls: list[int] = []

    def full(fd: int) -> None:  # called for the table, then for the study
        calls.append(fd)
        if len(calls) == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(results_module.os, "fsync", full)
    with pytest.raises(ResultsError, match=r"No space left.*free some space"):
        writer.add(record(model="b"), ENVIRONMENT)
    assert len(calls) == failing_call
    assert [row["model"] for row in rows(tmp_path)] == ["a"]
    assert [r.model for r in read_results(tmp_path).records] == ["a"]
    assert names(tmp_path) == ["results.csv", "study.json"]

    writer.add(record(model="c"), ENVIRONMENT)
    assert [row["model"] for row in rows(tmp_path)] == ["a", "c"]
    assert [r.model for r in read_results(tmp_path).records] == ["a", "c"]


def test_a_full_disk_when_closing_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ResultsWriter(tmp_path, {})

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(results_module.os, "fsync", full)
    for attempt in (writer.close, lambda: writer.fail("vit-int8", "OutputError", "nan")):
        with pytest.raises(ResultsError, match="No space left"):
            attempt()


def test_half_a_row_is_taken_back(tmp_path: Path) -> None:
    # A real short write: files may grow by a few bytes only. The table is made the larger file.
    script = """
import resource, signal, sys; from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_results import *
writer = ResultsWriter(Path(sys.argv[1]), {})
table = Path(sys.argv[1]) / "results.csv"
table.write_text(table.read_text() + "earlier" * 1000 + "\\n")
size = table.stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
try:
    writer.add(record(), ENVIRONMENT)
except ResultsError as error:
    print("refused", error)
"""
    args = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=True)
    assert "refused cannot write results to" in done.stdout
    assert [row["model"] for row in rows(tmp_path)] == ["earlier" * 1000]


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
        writer.add(record(latency_ms=float("nan")), ENVIRONMENT)
    writer.add(record(model="next"), ENVIRONMENT)
    assert [r.model for r in read_results(tmp_path).records] == ["next"]
    assert [row["model"] for row in rows(tmp_path)] == ["next"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "", "truncated"),
        (lambda text: "model,latency_ms\nvit,4.0\n", "not JSON"),
        (lambda text: "[1]", "no schema_version"),
        (lambda text: '{"tests": []}', "no schema_version"),
        (lambda text: text.replace('"samples":30', '"samples":"30"'), "samples|int"),
        (lambda text: text.replace('"samples":30,', ""), "samples"),
        (lambda text: text.replace('"environment":0', '"environment":-1'), "does not hold"),
        (lambda text: text.replace('"environment":0', '"environment":1'), "does not hold"),
        (lambda text: text.replace(',"environment":0', ""), "int"),
        (lambda text: '{"schema_version":1}', "complete"),
    ],
)
def test_what_is_not_a_results_file_is_named(tmp_path: Path, damage: object, words: str) -> None:
    ResultsWriter(tmp_path, {}).add(record(), ENVIRONMENT)
    study = tmp_path / "study.json"
    changed = damage(study.read_text())  # type: ignore[operator]
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
    with pytest.raises(ResultsError, match=rf"study\.json.* 99,.* {SCHEMA_VERSION}: upgrade pytest-vq"):
        read_results(tmp_path)


def test_no_results_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent" / "study.json"):
        with pytest.raises(ResultsError, match=r"cannot read results.*--vq-output"):
            read_results(path)
