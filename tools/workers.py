"""What workers gain, and whether they change the figures: one suite without workers and with them, in turns.

Without, with, with, without: a drift of the machine meets both sides alike, and the two runs of a side say how much
figures differ by themselves. Where workers share a device, they can only overlap what needs no device: the share of the
time under the device's lock is what no number of workers saves.

Run: ``python tools/workers.py [-n 2] [-- ARGUMENTS]``; arguments are pytest's, as in ``-- --gpu --vq-models x``.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).resolve().parent.parent
TOLERANCES = {"latency_ms": 0.03, "speedup": 0.02}  # the gate's, relative to the baseline


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suite."""

    wall_s: float
    rows: dict[tuple[str, str, str, str], dict[str, str]]  # by model, precision, execution and batch

    @property
    def held_s(self) -> float:
        """Seconds for which pairs held the device, one after another."""
        return sum(float(row["device_held_s"]) for row in self.rows.values())


def run_suite(arguments: Sequence[str], output: Path) -> Run:
    """Measure the suite once."""
    command = [sys.executable, "-m", "pytest", "bench", "-q", "--vq-gate=off", f"--vq-output={output}", *arguments]
    started_s = time.monotonic()
    run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - started_s
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
    with (output / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["model"], row["precision"], row["execution"], row["batch"]): row for row in csv.DictReader(file)}
    print(f"{' '.join(arguments) or 'no workers'}: {len(rows)} pairs in {wall_s:.0f} s, load {os.getloadavg()[0]:.1f}")
    return Run(wall_s, rows)


def differences(one: Run, other: Run, column: str) -> list[float]:
    """By how much each pair's figure differs, as a fraction."""
    pairs = [(one.rows[key][column], other.rows[key][column]) for key in one.rows if key in other.rows]
    return [float(second) / float(first) - 1 for first, second in pairs if first and second]


def described(found: Sequence[float], tolerance: float) -> str:
    """A line about differences, and how many of them the gate would have to explain by noise."""
    beyond = sum(abs(difference) > tolerance for difference in found)
    sizes = [abs(difference) for difference in found]
    return (
        f"median {median(found):+.1%}, size: median {median(sizes):.1%}, largest {max(sizes):.1%}; "
        f"{beyond} of {len(found)} beyond {tolerance:.0%}"
    )


def main() -> None:
    """Print walls, the share under the lock, and how figures differ between and within the sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", dest="workers", default="2")
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pytest-vq-workers-") as name:
        sides = (False, True, True, False)
        words = [(*given.arguments, *(("-n", given.workers) if with_workers else ())) for with_workers in sides]
        alone, apart, again, last = (run_suite(each, Path(name) / str(turn)) for turn, each in enumerate(words))
    alone_s, apart_s = mean([alone.wall_s, last.wall_s]), mean([apart.wall_s, again.wall_s])
    share = mean([run.held_s / run.wall_s for run in (alone, last)])
    print(f"without workers {alone_s:.0f} s, {share:.1%} of it under the device's lock")
    print(f"with {given.workers} workers {apart_s:.0f} s")
    print(f"with / without: {apart_s / alone_s:.3f}; where they share one device, at most {share + 0.1:.3f} is wanted")
    for column, tolerance in TOLERANCES.items():
        both = zip(differences(alone, apart, column), differences(last, again, column), strict=True)
        between = [mean(pair) for pair in both]
        print(f"{column}, with against without: {described(between, tolerance)}")
        print(f"{column}, without against without: {described(differences(alone, last, column), tolerance)}")
        print(f"{column}, with against with: {described(differences(apart, again, column), tolerance)}")


if __name__ == "__main__":
    main()
