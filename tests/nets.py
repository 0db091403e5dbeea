"""A project whose pairs are measured in no time and without torch, to try workers on, and runs of pytest in it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from pytest_vq.processes.command import clean_environment

ROOT = Path(__file__).parents[1]

# A machine with two GPUs where measuring a pair takes no time, and no torch; a worker may die of a pair.
INSTANT = """
    import os
    import time
    from pathlib import Path

    from factories import make_outcome, make_record
    from pytest_vq.device import visible
    from pytest_vq.plugin import collecting
    from pytest_vq.plugin.session import VqSession


    def seen():
        return Path("measured").read_text()


    def measure(self, case, node_id):
        with Path("measured").open("a") as file:
            print(case.id, os.environ["PYTEST_XDIST_WORKER"], os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)
        deadly = Path(f"deadly-{case.id}")
        if deadly.exists():
            Path("died").touch()
            os.kill(os.getpid(), int(deadly.read_text()))
            time.sleep(60)
        ends_s = time.monotonic() + 60
        while Path("died").exists() and Path("awaited").exists() and Path("awaited").read_text() not in seen():
            assert time.monotonic() < ends_s, "nobody took over"
            time.sleep(0.01)
        return make_outcome(make_record(case.model.name, case.scheme.name))


    VqSession.measure = measure
    visible.visible_gpus = lambda environment: ["GPU-a", "GPU-b"]
    collecting.check_usage = lambda session: None
    collecting.find_target = lambda gpu: collecting.Target(is_accelerator=gpu)
"""
CONFTEST = """
    import pytest_vq

    for name in ("net-a", "net-b", "net-c"):
        pytest_vq.register_model(name, input_shape=(3, 8, 8))(lambda: None)
"""
TEST = """
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""
PAIRS = [f"net-{net}-{precision}" for net in "abc" for precision in ("fp32", "fp16", "int8", "int4")]


@dataclass(frozen=True)
class Ended:
    """A run that came to its end."""

    directory: Path
    code: int
    output: str

    @property
    def study(self) -> dict[str, Any]:
        return json.loads((self.directory / "vq-results" / "study.json").read_text())

    @property
    def pairs(self) -> list[str]:
        with (self.directory / "vq-results" / "results.csv").open(newline="") as file:
            return [f"{row['model']}-{row['precision']}" for row in csv.DictReader(file)]

    @property
    def measured(self) -> list[list[str]]:
        """Of each pair that was begun, in that order: its id, the worker, and the GPU that this one sees."""
        return [line.split() for line in (self.directory / "measured").read_text().splitlines()]


def run_in(directory: Path, *arguments: str, environment: dict[str, str] | None = None) -> Ended:
    """``pytest`` in ``directory``; what it needs of these tests and of this tree is importable there."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", directory)))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env=clean_environment() | {"PYTHONPATH": paths, "TMPDIR": str(directory)} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ended(directory, run.returncode, run.stdout + run.stderr)


def make_nets(directory: Path, deadly: str = "", death: signal.Signals = signal.SIGKILL) -> Path:
    """The project; measuring the pair ``deadly`` is the end of its worker."""
    directory.mkdir(exist_ok=True)
    for name, text in (("instant.py", INSTANT), ("conftest.py", CONFTEST), ("test_nets.py", TEST)):
        (directory / name).write_text(dedent(text))
    (directory / "pytest.ini").write_text("[pytest]\n")
    if deadly:
        (directory / f"deadly-{deadly}").write_text(str(int(death)))
    return directory
