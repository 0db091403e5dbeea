"""Kill runs at random moments, look at what they leave, and take them up: nothing that was finished may be lost.

    python tools/kills.py                    # 100 kills, a line each; exit code 1 on any loss
    python tools/kills.py --kills 3 --seed 7

Each round starts a real run of a small project (two models at four precisions, real times, existing baselines) as a
process group of its own, and ends that with SIGKILL: half of the rounds at a moment drawn evenly from the length of a
run, half within two milliseconds of a write that was drawn. Then what `kill_checks` asks of the files is looked at, and
a second run with ``--vq-resume`` must end with exit code 0 and all rows, those that were finished unchanged.

Plain runs are forked from this process, which has imported what a run imports and computed nothing; those with
workers (``-n 2``) and with several processes (``--vq-runs=2``) are started as a user starts them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from kill_checks import Finished, baselines_in, finished_in, losses_of_baselines, losses_of_resumed

# What a run imports before it measures.
IMPORTED = (
    "bitsandbytes",
    "pytest",
    "transformers.models.vit",
    "pytest_vq.gate.decide",
    "pytest_vq.measure.bench",
    "pytest_vq.plugin.fixtures",
    "pytest_vq.plugin.reporting",
    "pytest_vq.precision.bnb",
    "pytest_vq.precision.bnb_check",
    "pytest_vq.processes.fresh",
)
CONFTEST = """
import torch
from torch import nn
import pytest_vq

def net(width):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, width), nn.GELU(), nn.Linear(width, width))
    return nn.Sequential(body, nn.Linear(width, 10))

@pytest_vq.register_model("net-a", input_shape=(3, 16, 16), head="1")
def build_a():
    return net(128)

@pytest_vq.register_model("net-b", input_shape=(3, 16, 16), head="1")
def build_b():
    return net(192)
"""
# Times this short mean little on a shared machine, and are not what is looked at here.
TEST = """
import pytest

@pytest.mark.vq(latency_tolerance=100, speedup_tolerance=100, memory_tolerance=100)
def test_precision(vq_case, vq_bench):
    vq_bench(vq_case)
"""
INI = "[pytest]\naddopts = -p no:cacheprovider -p no:randomly\nvq_budget = 0.05\n"
PAIRS = {f"net-{model}-{precision}" for model in "ab" for precision in ("fp32", "fp16", "int8", "int4")}
TIMEOUT_S = 300
WATCHED = ("samples.jsonl", "results.csv", "study.json", ".study.json.tmp")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to run: its options, whether it is forked, and how many lines of each pair it adds to the baselines."""

    name: str
    options: tuple[str, ...] = ()
    is_forked: bool = True
    adds: int = 0


PLAIN, SAVING = Kind("plain"), Kind("--vq-save", ("--vq-save",), adds=1)
WORKERS = Kind("-n 2", ("-n", "2"), is_forked=False)
RUNS = Kind("--vq-runs=2", ("--vq-runs=2", "--vq-save"), is_forked=False, adds=2)
KINDS = (PLAIN, SAVING, PLAIN, WORKERS, PLAIN, SAVING, PLAIN, RUNS, PLAIN, SAVING)


@dataclass(frozen=True, slots=True)
class Round:
    """What one kill did."""

    kind: str
    moment: str
    running: bool  # whether there was still something to kill
    finished: int  # pairs by then
    losses: list[str]


class Project:
    """A user's project in ``directory``, with baselines; and how long its runs take."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output, self.baselines = directory / "vq-results", directory / "baselines"
        (directory / "locks").mkdir()
        (directory / "conftest.py").write_text(CONFTEST)
        (directory / "test_nets.py").write_text(TEST)
        (directory / "pytest.ini").write_text(INI)
        self._lengths_s: dict[bool, float] = {}  # of those that are forked, and of others
        self._run_whole(SAVING)
        self._recorded = directory / "recorded"
        shutil.copytree(self.baselines, self._recorded)

    def start(self, kind: Kind, *options: str) -> int:
        """The process id of a run, the leader of a group of its own."""
        words = [*kind.options, *options]
        log = self.directory / "log"
        if kind.is_forked:
            return _forked(self.directory, words, log)
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "pytest", *words],
                cwd=self.directory,
                env=os.environ | {"TMPDIR": str(self.directory / "locks")},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).pid

    def end(self, process: int) -> tuple[int, str]:
        """The exit code of a run that is waited for, and what it printed."""
        deadline = time.monotonic() + TIMEOUT_S
        while (code := exit_code(process)) is None:
            if time.monotonic() > deadline:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return -1, f"it did not end within {TIMEOUT_S} s: does a lock that nobody holds block it?"
            time.sleep(0.01)
        return code, (self.directory / "log").read_text(errors="replace")

    def length_s(self, kind: Kind) -> float:
        """About how long a whole run of ``kind`` takes."""
        if kind.is_forked not in self._lengths_s:
            self._run_whole(kind)
        return self._lengths_s[kind.is_forked]

    def reset(self) -> None:
        """As it was before the first round."""
        for directory in (self.output, self.baselines):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self._recorded, self.baselines)

    def _run_whole(self, kind: Kind) -> None:
        started_s = time.monotonic()
        code, printed = self.end(self.start(kind))
        if code != 0:
            raise SystemExit(f"a run that was not killed ({kind.name}) ended with exit code {code}:\n{printed}")
        self._lengths_s[kind.is_forked] = time.monotonic() - started_s


def _forked(directory: Path, words: Sequence[str], log: Path) -> int:
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        os.chdir(directory)
        output = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["TMPDIR"], tempfile.tempdir = str(directory / "locks"), None
        import pytest

        code = int(pytest.main(["-p", "no:xdist", *words]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def exit_code(process: int) -> int | None:
    """That of a child of this process; None while it runs."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def kill_once(project: Project, kind: Kind, numbers: random.Random) -> Round:
    """Start a run, kill it, look at what it left, and take it up."""
    length_s = project.length_s(kind)
    project.reset()
    recorded = baselines_in(project.baselines)
    at_write = numbers.random() < 0.5
    after_s, writes, late_s = numbers.uniform(0, length_s), numbers.randrange(1, 40), numbers.uniform(0, 0.002)
    process = project.start(kind)
    running = _await_write(project, process, writes, late_s) if at_write else _await_time(process, after_s)
    if running:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
    losses: list[str] = []
    before = finished_in(project.output, losses)
    # While it saves, each file holds what it did or all of it.
    losses += losses_of_baselines(project.baselines, recorded, (0, kind.adds) if kind.adds else (0,))
    losses += _resume(project, kind, before)
    losses += losses_of_baselines(project.baselines, recorded, (kind.adds,))
    moment = f"write {writes}" if at_write else f"{after_s:.2f} s"
    return Round(kind.name, moment, running, len(before.rows), losses)


def _resume(project: Project, kind: Kind, before: Finished) -> list[str]:
    code, printed = project.end(project.start(kind, "--vq-resume"))
    if code != 0:
        return [f"taken up, it ended with exit code {code}:\n{printed[-3000:]}"]
    return losses_of_resumed(project.output, before, PAIRS)


def _await_time(process: int, after_s: float) -> bool:
    """Whether the run still goes on after so many seconds."""
    until = time.monotonic() + after_s
    while time.monotonic() < until:
        if exit_code(process) is not None:
            return False
        time.sleep(0.001)
    return exit_code(process) is None


def _await_write(project: Project, process: int, writes: int, late_s: float) -> bool:
    """Whether the run still goes on shortly after it was seen to write for so many times."""
    seen, state = 0, _state(project)
    while seen < writes:
        if exit_code(process) is not None:
            return False
        now = _state(project)
        seen, state = seen + (now != state), now
    time.sleep(late_s)
    return exit_code(process) is None


def _state(project: Project) -> list[tuple[int, int]]:
    """What changes with every write: of the results, and of the baselines."""
    paths = [project.output / name for name in WATCHED]
    paths += [path for path in project.baselines.glob("*/*") if path.is_file()]
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def main(words: Sequence[str] | None = None) -> int:
    """Kill as often as asked, and print a line for each; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description="kill runs at random moments, and take them up")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; times themselves differ from run to run")
    given = parser.parse_args(words)
    numbers = random.Random(given.seed)
    for name in IMPORTED:
        import_module(name)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="vq-kills-") as directory:
        project = Project(Path(directory).resolve())
        print(f"{'kill':>4}  {'run':<12}  {'killed at':<10}  {'finished':>8}  result")
        for number in range(given.kills):
            done = kill_once(project, KINDS[number % len(KINDS)], numbers)
            rounds.append(done)
            moment = done.moment if done.running else "too late"
            finished = f"{done.finished} of {len(PAIRS)}"
            result = "; ".join(done.losses) or "nothing lost"
            print(f"{number + 1:>4}  {done.kind:<12}  {moment:<10}  {finished:>8}  {result}", flush=True)
    lost = [done for done in rounds if done.losses]
    median = statistics.median(done.finished for done in rounds)
    print(
        f"{len(rounds) - len(lost)} of {len(rounds)} kills survived: results readable, baselines whole, and each run "
        f"taken up to all {len(PAIRS)} pairs without measuring a finished one again; {sum(d.running for d in rounds)} "
        f"came while the run went on, at the median after {median:g} pairs"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
