"""Runs ended by SIGKILL: three for real at random moments; and that what is looked at then would tell a loss."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, make_estimates, make_outcome, make_record, make_setup

from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results_writer import ResultsWriter

TOOLS = Path(__file__).parents[2] / "tools"
PAIRS = {"net-fp32", "net-int8"}


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """What ``make kills`` prints of three kills."""
    command = [sys.executable, str(TOOLS / "kills.py"), "--kills=3"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, env=ours, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


def test_three_killed_runs_lose_nothing_and_are_taken_up(printed: list[str]) -> None:
    assert [line.split()[:2] for line in printed[1:4]] == [["1", "plain"], ["2", "--vq-save"], ["3", "plain"]]
    assert [line.endswith("  nothing lost") for line in printed[1:4]] == [True] * 3
    assert printed[4].startswith("3 of 3 kills survived: ")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(TOOLS)
    yield importlib.import_module("kill_checks")
    sys.modules.pop("kill_checks")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The results of a run that is complete."""
    write_results(tmp_path / "out")
    return tmp_path / "out"


def write_results(directory: Path, latency_ms: float = 10.0) -> None:
    writer = ResultsWriter(directory, {})
    for precision in ("fp32", "int8"):
        writer.add(make_outcome(make_record("net", precision, latency_ms=latency_ms), test=precision))
    writer.close()


def lose_samples(output: Path) -> None:
    path = output / "samples.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")


def lose_table(output: Path) -> None:
    path = output / "results.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")


def lose_study(output: Path) -> None:
    (output / "study.json").unlink()


def break_study(output: Path) -> None:
    (output / "study.json").write_text("{")


def test_what_agrees_is_no_loss(checks, output: Path) -> None:
    losses: list[str] = []
    before = checks.finished_in(output, losses)
    assert losses == []
    assert checks.losses_of_resumed(output, before, PAIRS) == []


def test_the_half_line_of_a_pair_that_was_being_added_is_none(checks, output: Path) -> None:
    for name in ("samples.jsonl", "results.csv"):
        with (output / name).open("a") as file:
            file.write("{net")
    losses: list[str] = []
    checks.finished_in(output, losses)
    assert losses == []


@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (lose_samples, "net-int8 has a row and no samples"),
        (lose_table, "results.csv has [], and study.json has ['net-fp32', 'net-int8']"),
        (lose_study, "results.csv has rows of ['net-fp32', 'net-int8'], and there is no study.json"),
        (break_study, "study.json is not JSON"),
    ],
)
def test_files_that_disagree_are_a_loss(checks, output: Path, lose: Callable[[Path], None], words: str) -> None:
    lose(output)
    losses: list[str] = []
    checks.finished_in(output, losses)
    assert words in losses[0]


def test_a_finished_pair_that_was_measured_again_is_a_loss(checks, output: Path) -> None:
    before = checks.finished_in(output, [])
    write_results(output, latency_ms=10.1)
    assert checks.losses_of_resumed(output, before, PAIRS) == [
        f"{pair} was finished, and its row is another one now" for pair in sorted(PAIRS)
    ]


def test_other_samples_of_a_finished_pair_are_a_loss(checks, output: Path) -> None:
    before = checks.finished_in(output, [])
    path = output / "samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"warmup_calls":', '"warmup_calls":1'), *lines[1:]]) + "\n")
    assert checks.losses_of_resumed(output, before, PAIRS) == ["net-fp32 was finished, and its samples are others now"]


def test_a_pair_that_is_not_there_in_the_end_is_a_loss(checks, output: Path) -> None:
    before = checks.finished_in(output, [])
    assert checks.losses_of_resumed(output, before, PAIRS | {"net-int4"}) == ["net-int4 is missing"]


def record(root: Path, latency_ms: float) -> None:
    estimates = make_estimates(latency_ms=latency_ms)
    BaselineStore(root).append(ENVIRONMENT.device_slug, "A CPU", [("net", make_setup(), estimates)])


@pytest.mark.parametrize(("recorded", "added", "lost"), [(0, (0,), 0), (1, (0,), 1), (1, (0, 1), 0), (0, (1,), 1)])
def test_baselines_hold_as_much_more_as_was_recorded(
    checks, tmp_path: Path, recorded: int, added: tuple[int, ...], lost: int
) -> None:
    record(tmp_path, 1.0)
    before = checks.baselines_in(tmp_path)
    for number in range(recorded):
        record(tmp_path, 2.0 + number)
    assert len(checks.losses_of_baselines(tmp_path, before, added)) == lost


def test_a_baseline_that_cannot_be_read_is_a_loss(checks, tmp_path: Path) -> None:
    record(tmp_path, 1.0)
    before = checks.baselines_in(tmp_path)
    (path,) = before
    path.write_bytes(before[path][:-20])
    assert "truncated" in checks.losses_of_baselines(tmp_path, before, (0,))[0]
