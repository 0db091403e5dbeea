from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, MIB, make_outcome, make_record, make_setup

from pytest_vq import __version__
from pytest_vq.cli.main import main
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.spec import EAGER
from pytest_vq.schema.verdict import Status
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results_writer import ResultsWriter

TESTS = Path(__file__).parents[1]
H200 = replace(
    ENVIRONMENT,
    device="cuda",
    device_name="NVIDIA H200",
    device_slug="nvidia-h200",
    device_uuid="GPU-1",
    date_utc="2025-01-01T00:00:00Z",
)
CPU = replace(ENVIRONMENT, date_utc="2025-01-01T00:00:00Z")


def record(model: str = "vit-base", precision: str = "int8", **columns: Any) -> Record:
    """A row as an accelerator gives it."""
    setup = make_setup(precision, threads=None, execution=columns.get("execution", EAGER))
    usual = {"latency_ms": 4.0, "speedup": 1.5, "setup": setup}
    return make_record(model, precision, **(usual | columns))


def save(root: Path, *records: Record, environment: Environment = H200) -> None:
    taken = [(one.identity.model, one.setup, Estimates.of(one, environment)) for one in records]
    BaselineStore(root).append(environment.device_slug, environment.device_name, taken)


def write(directory: Path, *records: Record, environment: Environment = H200, complete: bool = True) -> ResultsWriter:
    writer = ResultsWriter(directory, {})
    for one in records:
        writer.add(make_outcome(one, environment))
    writer.close(complete)
    return writer


@pytest.fixture(autouse=True)
def locks_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))  # the processes started here follow it
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command in ``tmp_path``: its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 99
        out, err = capsys.readouterr()
        return code, out, err

    return run


def cells(line: str) -> list[str]:
    return [cell for cell in line.split("  ") if cell.strip()]


def test_version(cli) -> None:
    assert cli("--version") == (0, f"pytest-vq {__version__}\n", "")


@pytest.mark.parametrize(
    "argv", [(), ("nonsense",), ("baselines",), ("baselines", "show"), ("baselines", "accept", "out"), ("models", "x")]
)
def test_wrong_usage_exits_with_2(cli, argv: tuple[str, ...]) -> None:
    code, out, err = cli(*argv)
    assert (code, out) == (2, "")
    assert "usage: pytest-vq" in err


def test_models_lists_the_catalog(cli) -> None:
    code, out, _ = cli("models")
    assert code == 0
    header, _, *lines = out.splitlines()
    assert header.split() == ["model", "category", "parameters", "input", "checkpoint"]
    assert len(lines) >= 16
    (line,) = [line for line in lines if line.startswith("vit-base-patch16-384 ")]
    assert line.split() == [
        "vit-base-patch16-384",
        "production",
        "86.9",
        "M",
        "3x384x384",
        "google/vit-base-patch16-384",
    ]


def test_list_has_a_line_per_entry(cli, tmp_path: Path) -> None:
    save(tmp_path / "baselines", record(), record(latency_ms=4.1), record(precision="int4"))
    save(tmp_path / "baselines", record("deit"), environment=CPU)
    code, out, _ = cli("baselines", "list")
    assert code == 0
    assert [cells(line)[:1] + line.split()[1:4] for line in out.splitlines()[2:]] == [
        ["cpu-a", "deit", "int8", "1"],
        ["nvidia-h200", "vit-base", "int4", "1"],
        ["nvidia-h200", "vit-base", "int8", "1"],
    ]
    assert out.splitlines()[4].split()[-3:] == ["2", "2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"]


def test_list_of_an_empty_or_absent_directory(cli, tmp_path: Path) -> None:
    code, out, err = cli("baselines", "list")
    assert (code, out) == (1, "")
    assert err.startswith("pytest-vq: error: there is no directory baselines")
    (tmp_path / "elsewhere").mkdir()
    code, out, _ = cli("baselines", "list", "--baselines", "elsewhere")
    assert code == 0
    assert "no baselines in elsewhere" in out


def test_a_damaged_baseline_is_an_error_on_stderr(cli, tmp_path: Path) -> None:
    save(tmp_path / "baselines", record())
    (tmp_path / "baselines" / "nvidia-h200" / "vit-base.json").write_text("{")
    code, out, err = cli("baselines", "list")
    assert (code, out) == (1, "")
    assert err.startswith("pytest-vq: error: baselines/nvidia-h200/vit-base.json is not JSON")


def test_show_has_every_process_the_spread_and_the_anchor(cli, tmp_path: Path) -> None:
    root = tmp_path / "baselines"
    save(root, record(latency_ms=4.0), record(latency_ms=4.0 * 1.02), record(precision="int4", latency_ms=7.0))
    save(root, record(latency_ms=4.4), environment=replace(H200, commit="def", date_utc="2025-02-02T00:00:00Z"))
    code, out, _ = cli("baselines", "show", "vit-base", "--precision", "int8")
    assert code == 0
    title, *lines = out.splitlines()
    assert title == "vit-base int8, batch 1, adaptive, random weights on nvidia-h200"
    processes = [line.split() for line in lines if line.startswith("2025")]
    assert [p[3] for p in processes] == ["4.000", "4.080", "4.400", "4.000", "4.080"]  # the last two: the anchor's
    assert processes[2] == ["2025-02-02T00:00:00Z", "def", "GPU-1", "4.400", "1.500", "100.00", "50.00", "30.00"]
    assert "latency_ms 5.03 %, speedup 0.00 %" in out  # stdev of ln 4, ln 4.08, ln 4.4
    assert "anchor: first recorded (2025-01-01T00:00:00Z)" in out
    assert "7.000" not in out


def test_show_can_be_narrowed_to_a_device(cli, tmp_path: Path) -> None:
    save(tmp_path / "baselines", record())
    save(tmp_path / "baselines", record(setup=make_setup(tf32=True)), environment=CPU)
    assert cli("baselines", "show", "vit-base")[1].count("anchor:") == 2
    _, out, _ = cli("baselines", "show", "vit-*", "--device", "cpu-a")
    assert out.startswith("vit-base int8, batch 1, adaptive, random weights, 1 threads, TF32 on cpu-a\n")
    assert out.count("anchor:") == 1
    assert "latency_ms unknown" in out


def test_show_tells_executions_apart(cli, tmp_path: Path) -> None:
    save(tmp_path / "baselines", record(latency_ms=4.0), record(latency_ms=3.0, execution="compile"))
    _, out, _ = cli("baselines", "show", "vit-base", "--precision", "int8+compile")
    assert out.startswith("vit-base int8+compile, batch 1, adaptive, random weights on nvidia-h200\n")
    assert [line.split()[3] for line in out.splitlines() if line.startswith("2025")] == ["3.000", "3.000"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("vit-bose",), "'vit-bose'; the nearest: vit-base"),
        (("vit-base", "--precision", "int9"), "'int9'; the nearest: int8"),
        (("vit-base", "--device", "nvidia-h100"), "'nvidia-h100'; the nearest: nvidia-h200"),
    ],
)
def test_show_names_the_nearest(cli, tmp_path: Path, argv: tuple[str, ...], words: str) -> None:
    save(tmp_path / "baselines", record())
    code, out, err = cli("baselines", "show", *argv)
    assert (code, out) == (1, "")
    assert words in err


def test_accept_prints_the_changes_and_moves_the_anchor(cli, tmp_path: Path) -> None:
    root = tmp_path / "baselines"
    save(root, record(latency_ms=4.0), record(latency_ms=4.2), record(latency_ms=3.0))
    changed = record(latency_ms=5.0, speedup=1.2, peak_memory_bytes=90 * MIB, sqnr_db=28.5, verdict=Status.FAIL)
    write(tmp_path / "out", changed, record(precision="int4", sqnr_db=None))
    code, out, err = cli("baselines", "accept", "out", "--reason", " new kernel ")
    assert (code, err) == (0, "")
    int8, int4 = out.splitlines()[2:4]
    assert "4.000 -> 5.000 (+25.0 %)" in int8
    assert "1.500 -> 1.200 (-20.0 %)" in int8
    assert "100.00 -> 90.00 (-10.0 %)" in int8
    assert "50.00 -> 50.00 (+0.0 %)" in int8
    assert "30.00 -> 28.50 (-1.5 dB)" in int8
    assert "none -> 4.000" in int4
    assert "accepted: new kernel" in out
    assert str(root / "nvidia-h200" / "vit-base.json") in out
    entries = BaselineStore(root).entries("nvidia-h200", "vit-base")
    assert [entry.anchor.reason for entry in entries] == ["new kernel", "new kernel"]
    (entry,) = [entry for entry in entries if entry.setup.precision == "int8"]
    assert entry.processes == entry.anchor.estimates == (Estimates.of(changed, H200),)


def test_accept_keeps_processes_and_devices_apart(cli, tmp_path: Path) -> None:
    second = replace(H200, date_utc="2025-01-02T00:00:00Z")
    writer = ResultsWriter(tmp_path / "out", {})
    for test, (environment, latency_ms) in enumerate(((H200, 4.0), (H200, 5.0), (second, 6.0), (CPU, 70.0))):
        writer.add(replace(make_outcome(record(latency_ms=latency_ms), environment), test=f"test_{test}"))
    writer.close()
    assert cli("baselines", "accept", "out", "--reason", "why")[0] == 0
    store = BaselineStore(tmp_path / "baselines")
    found = {device: store.entries(device, "vit-base")[0].anchor.estimates for device in store.devices()}
    # A process that measured a pair twice is one process still: its last figures count.
    assert {device: [e.latency_ms for e in taken] for device, taken in found.items()} == {
        "cpu-a": [70.0],
        "nvidia-h200": [5.0, 6.0],
    }


def test_accept_takes_the_named_models_only(cli, tmp_path: Path) -> None:
    writer = write(tmp_path / "out", record("deit-tiny"), record("deit-base"), record("vit"), complete=False)
    writer.fail(Failure("vit-fp16", "DeviceOutOfMemoryError", "80 GiB wanted", "vit"))
    assert cli("baselines", "accept", "out/study.json", "--models", "deit-*", "--reason", "why")[0] == 0
    assert BaselineStore(tmp_path / "baselines").models("nvidia-h200") == ["deit-base", "deit-tiny"]


@pytest.mark.parametrize("reason", [(), ("--reason", ""), ("--reason", " \t")])
def test_accept_needs_a_reason(cli, tmp_path: Path, reason: tuple[str, ...]) -> None:
    write(tmp_path / "out", record())
    code, _, err = cli("baselines", "accept", "out", *reason)
    assert code == 2
    assert "--reason" in err
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize(
    ("failed", "models", "words"),
    [
        (None, None, "interrupted"),
        (("vit-base-int4", "vit-base"), None, "vit-base-int4 was not measured (OutputError)"),
        (("vit-base-int4", "vit-base"), "vit-base", "vit-base-int4 was not measured (OutputError)"),
        (("vit-base-int8-b8", "vit-base"), "vit-*", "vit-base-int8-b8 was not measured (OutputError)"),
        (("unheard", None), "vit-base", "unheard was not measured (OutputError)"),  # nobody knows what it was of
        (None, "vit-bose", "'vit-bose'; the nearest: vit-base"),
        (None, "", "matches ''; the nearest: vit-base"),
    ],
)
def test_accept_refuses_what_was_not_wholly_measured(
    cli, tmp_path: Path, failed: tuple[str, str | None] | None, models: str | None, words: str
) -> None:
    writer = write(tmp_path / "out", record(), complete=False)
    if failed:
        name, model = failed
        writer.fail(Failure(name, "OutputError", "nan", model))
        writer.close()
    narrowed = [] if models is None else ["--models", models]
    code, out, err = cli("baselines", "accept", "out", "--reason", "why", *narrowed)
    assert (code, out) == (1, "")
    assert err.startswith("pytest-vq: error: ")
    assert words in err
    assert not (tmp_path / "baselines").exists()


def test_accept_is_not_stopped_by_a_failure_of_a_model_with_a_longer_name(cli, tmp_path: Path) -> None:
    writer = write(tmp_path / "out", record("vit"))
    writer.fail(Failure("vit-base-int8", "OutputError", "nan", "vit-base"))
    writer.close()
    assert cli("baselines", "accept", "out", "--models", "vit", "--reason", "why")[0] == 0


def test_accept_refuses_disturbed_and_absent_figures(cli, tmp_path: Path) -> None:
    write(tmp_path / "out", record(disturbance="thermal throttling"))
    code, _, err = cli("baselines", "accept", "out", "--reason", "why")
    assert code == 1
    assert "vit-base-int8 was disturbed (thermal throttling)" in err
    write(tmp_path / "out")
    code, _, err = cli("baselines", "accept", "out", "--reason", "why")
    assert code == 1
    assert "holds nothing that was measured" in err
    code, _, err = cli("baselines", "accept", "absent", "--reason", "why")
    assert code == 1
    assert "cannot read results from absent" in err


@pytest.mark.parametrize(("old", "words"), [(0, "0.000 -> 100.00 (was 0)"), (None, "none -> 100.00")])
def test_accept_has_words_where_there_is_no_percentage(cli, tmp_path: Path, old: int | None, words: str) -> None:
    save(tmp_path / "baselines", record(peak_memory_bytes=old))
    write(tmp_path / "out", record())
    code, out, _ = cli("baselines", "accept", "out", "--reason", "why")
    assert code == 0
    assert words in out


def test_results_of_version_1_are_accepted_as_baselines_of_version_2(cli, tmp_path: Path) -> None:
    shutil.copytree(TESTS / "data" / "results-v1", tmp_path / "out")
    shutil.copytree(TESTS / "data" / "baselines-v1", tmp_path / "baselines")
    _, before, _ = cli("baselines", "list")
    code, out, err = cli("baselines", "accept", "out", "--reason", "all of it is wanted")
    assert (code, err) == (0, "")
    assert out.count("10.12 -> 10.12 (+0.0 %)") == 1  # INT8's latency
    _, after, _ = cli("baselines", "list")
    assert before.count("eager") == after.count("eager") == 4
    stored = json.loads((tmp_path / "baselines" / "cpu-amd-epyc" / "vit-digits.json").read_text())
    assert stored["schema_version"] == 2
    assert [entry["anchor"]["reason"] for entry in stored["entries"]] == ["all of it is wanted"] * 4


def test_no_command_imports_torch(tmp_path: Path) -> None:
    save(tmp_path / "baselines", record())
    write(tmp_path / "out", record())
    script = """
import sys
from pytest_vq.cli.main import main
for argv in (["models"], ["baselines", "list"], ["baselines", "show", "vit-base"],
             ["baselines", "accept", "out", "--reason", "why"]):
    assert main(argv) == 0, argv
heavy = {"torch", "transformers", "bitsandbytes", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
