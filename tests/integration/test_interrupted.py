"""A run that is cut short, by a person or by the machine, keeps every row it measured and changes no baseline."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_vq.store.results import read_results

# The second model never answers: whatever is cut short there comes after the first one's rows, on any machine.
HANGING = """

class Hanging(Net):
    def forward(self, images):
        Path("hanging").touch()
        time.sleep(600)


@pytest_vq.register_model("z-hanging-net", input_shape=(3, 16, 16), head="head")
def build_hanging():
    return Hanging()
"""
TIMEOUT_S = 120


@pytest.fixture
def cut_short(project: pytest.Pytester):
    """Start a run, send it ``number`` once its second model hangs, and return its exit code and output."""
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + HANGING)

    def run(number: signal.Signals, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "--vq-precisions=fp32,fp16", "--vq-budget=0.1", "-v", *arguments]
        with Path("out").open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=project.path,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            try:
                deadline = time.monotonic() + TIMEOUT_S
                while not Path("hanging").exists():
                    assert process.poll() is None, Path("out").read_text()
                    assert time.monotonic() < deadline, Path("out").read_text()
                    time.sleep(0.02)
                process.send_signal(number)
                code = process.wait(TIMEOUT_S)
            finally:
                process.kill()
                process.wait()
        return code, Path("out").read_text()

    return run


def check_files(output: Path, precisions: list[str]) -> None:
    """Both files are whole and agree, and nothing half-written lies beside them."""
    results = read_results(output)
    assert results.complete is False
    assert [row.record.id for row in results.rows] == [f"my-net-{precision}" for precision in precisions]
    with (output / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["model"], row["precision"]) for row in table] == [("my-net", precision) for precision in precisions]
    assert all(float(row["latency_ms"]) > 0 and row["verdict"] == "NO_BASELINE" for row in table)
    assert sorted(path.name for path in output.iterdir()) == ["results.csv", "samples.jsonl", "study.json"]


def test_ctrl_c_leaves_what_was_measured_and_records_nothing(project, cut_short) -> None:
    code, out = cut_short(signal.SIGINT, "--vq-save")
    assert code == pytest.ExitCode.INTERRUPTED, out
    check_files(project.path / "vq-results", ["fp32", "fp16"])
    assert "nothing was recorded into the baselines: this run failed or was interrupted" in out
    assert "KeyboardInterrupt" in out
    assert "2 NO_BASELINE" in out  # and the table of what there is
    assert not (project.path / "baselines").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_run_leaves_what_was_measured(project, cut_short, number: signal.Signals) -> None:
    code, out = cut_short(number, "--vq-save")
    assert code == -number, out
    check_files(project.path / "vq-results", ["fp32", "fp16"])
    assert not (project.path / "baselines").exists()


def test_the_next_run_is_not_held_up_by_a_killed_one(project, cut_short) -> None:
    cut_short(signal.SIGKILL)
    # The device's lock died with its holder: this would wait for it for ever.
    result = project.runpytest_inprocess("--vq-models=my-net", "--vq-precisions=fp32", "--vq-budget=0.1")
    assert result.ret == 0
    assert read_results(project.path / "vq-results").complete is True
