"""Runs at one time, holders of locks that die, and clocks that jump: nothing is lost, and nobody waits for the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import dedent

from pytest_vq.store.results import read_results

# Both runs come to their ends at one time, and record then. Each has a pace of its own: two lines of one second and the
# same figures would be one process, recorded twice.
MEETING = """

import os

at_one_pace = spend


def spend(quantized):
    global now_ms
    at_one_pace(quantized)
    now_ms += float(os.environ["SLOWER_MS"])


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    Path(f"ready-{os.getpid()}").touch()
    until = time.monotonic() + 120
    while len(list(Path().glob("ready-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.001)
"""


def test_two_runs_that_record_at_once_are_both_recorded(steady) -> None:
    conftest = steady.path / "conftest.py"
    conftest.write_text(conftest.read_text() + MEETING)
    options = ["--vq-save", "--vq-precisions=fp32,fp16", "--vq-gate=off"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, f"--vq-output=results-{name}"],
            cwd=steady.path,
            env=os.environ | {"SLOWER_MS": slower_ms},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, slower_ms in (("a", "0"), ("b", "1"))
    ]
    for run in runs:
        printed, _ = run.communicate(timeout=300)
        assert run.returncode == 0, printed
        assert "recorded 2 lines in 1 files of" in printed
    (stored,) = (steady.path / "baselines").glob("*/*.json")
    entries = json.loads(stored.read_text())["entries"]
    measured = [read_results(steady.path / f"results-{name}").rows for name in "ab"]
    assert [entry["setup"]["precision"] for entry in entries] == ["fp16", "fp32"]
    dates = sorted(rows[0].environment.date_utc for rows in measured)
    assert [sorted(process["date_utc"] for process in entry["processes"]) for entry in entries] == [dates, dates]
    assert list(stored.parent.iterdir()) == [stored]


# A clock that is an hour off at every look, now before and now behind, and further behind as ``behind_h`` says.
JUMPING = """

import datetime
from itertools import count

import pytest_vq.device.environment
import pytest_vq.plugin.benchmark
import pytest_vq.store.baselines
import pytest_vq.store.results_writer

looks = count()
real_time = time.time


def jumping_time():
    behind_h = int(Path("behind_h").read_text())
    return real_time() + 3600 * ((1 if next(looks) % 2 else -1) - behind_h)


class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().fromtimestamp(jumping_time(), tz)


@pytest.fixture(autouse=True, scope="session")
def jumping():
    ours = pytest_vq.device.environment, pytest_vq.plugin.benchmark, pytest_vq.store
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", jumping_time)
        for module in (ours[0], ours[1], ours[2].baselines, ours[2].results_writer):
            patch.setattr(module, "datetime", Jumping)
        yield
"""


def test_a_clock_that_jumps_changes_no_figure_and_loses_nothing(project, rows) -> None:
    conftest = project.path / "conftest.py"
    conftest.write_text(
        conftest.read_text().replace("import time\n", "import time\n\nimport pytest\n", 1) + dedent(JUMPING)
    )
    dates = []
    for behind_h in (0, 3):
        (project.path / "behind_h").write_text(str(behind_h))
        result = project.runpytest_inprocess("--vq-precisions=fp32,int8", "--vq-save", "--vq-gate=off")
        assert result.ret == 0
        dates.append(read_results(project.path / "vq-results").rows[0].environment.date_utc)
        for row in rows():
            assert 0 < float(row["latency_ms"]) < 1000
            assert 0 < float(row["device_held_s"]) < 100
        assert [row["build_s"] != "" for row in rows()] == [True, False]
        (line,) = (line for line in result.outlines if line.startswith("[1/2]"))
        left = line.rpartition(", about ")[2]
        assert left.endswith(" s left")
        assert 0 <= int(left.split()[0]) < 90
    assert dates[1] < dates[0]
    (stored,) = (project.path / "baselines").rglob("my-net.json")
    for entry in json.loads(stored.read_text())["entries"]:
        assert [process["date_utc"] for process in entry["processes"]] == dates  # in the order they were recorded
