"""``pytest-vq selftest``: does the gate hold on this machine? Unchanged runs and known changes, through the real path.

Every comparison is a fresh pytest process gated against baselines that other fresh processes recorded, exactly as in
CI; a suspect is measured again as there. The changes are made by ``pytest_vq.plugin.provoke``, and take turns with the
unchanged runs, so that a slow hour of the machine meets them all alike.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_vq.errors import MeasurementError, ResultsError
from pytest_vq.files import write_json
from pytest_vq.gate.bounds import MEMORY
from pytest_vq.gate.decide import decide
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.gate.stats import learn_noise
from pytest_vq.processes.child import run_child
from pytest_vq.report.text import plain_table
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import Status, Tolerances, Verdict
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results import Row

_SUITE = """
def test_precision(vq_case, vq_bench):
    vq_bench(vq_case)
"""
_FOUND = Status.FAIL


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to the model in some of the runs; ``arguments`` are pytest's."""

    name: str
    arguments: tuple[str, ...]
    should_fail: bool
    metric: str | None = None  # whose verdict counts; None for the row's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``selftest`` takes."""
    parser.add_argument("--gpu", action="store_true", help="on the accelerator")
    parser.add_argument("--model", default="deit-tiny-patch16-224", help="default deit-tiny-patch16-224")
    parser.add_argument("--precision", default="int8", help="the one that is made worse; default int8")
    parser.add_argument("--baseline", type=int, default=15, metavar="N", help="processes in the baseline; default 15")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="comparisons of each kind; default 10")
    parser.add_argument(
        "--slowdowns", type=float, nargs="*", default=[0.05, 0.10], metavar="FRACTION", help="default 0.05 0.10"
    )
    parser.add_argument(
        "--allocation", type=int, default=32, metavar="MIB", help="extra memory; default 32, 0 for none"
    )
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of timing per process; default as pytest's")
    parser.add_argument("--output", type=Path, default=Path("vq-selftest"), metavar="DIR", help="default vq-selftest/")


def run_selftest(args: argparse.Namespace) -> tuple[str, int]:
    """Record a baseline, compare, and return the table to print and the exit code.

    It is 1 where unchanged code failed or changed code passed; an admitted doubt is no error.
    """
    output: Path = args.output.absolute()
    if (output / "baselines").exists():
        raise ResultsError(f"{output} holds an earlier selftest; remove it, or name another --output")
    output.mkdir(parents=True, exist_ok=True)
    suite = output / "test_selftest.py"
    suite.write_text(_SUITE)
    (output / "pytest.ini").write_text("[pytest]\n")
    started_s = time.monotonic()
    for number in range(1, args.baseline + 1):
        _say(f"baseline process {number} of {args.baseline}")
        _pytest(args, output, f"baseline-{number}", ("--vq-save", "--vq-gate=off"))
    conditions = _conditions(args)
    found: dict[str, list[Row]] = {condition.name: [] for condition in conditions}
    try:
        for number in range(1, args.runs + 1):
            for condition in conditions:
                row = _pytest(args, output, f"{condition.name.replace(' ', '-')}-{number}", condition.arguments)
                found[condition.name].append(row)
                _say(f"run {number} of {args.runs}, {condition.name}: {row.record.verdict} {row.record.reason}")
                write_json(output / "selftest.json", {name: [r.record for r in rows] for name, rows in found.items()})
    except KeyboardInterrupt:
        if not all(found.values()):
            raise
        _say("interrupted: this is of the runs so far")
    return _report(args, output, conditions, found, time.monotonic() - started_s)


def _conditions(args: argparse.Namespace) -> list[Condition]:
    provoke = ("-p", "pytest_vq.plugin.provoke")
    conditions = [Condition("unchanged", (), should_fail=False)]
    for fraction in args.slowdowns:
        slowdown = f"--provoke-slowdown={args.precision}={fraction}"
        conditions.append(Condition(f"{fraction:.0%} slower", (*provoke, slowdown), should_fail=True))
    if args.allocation:
        allocation = f"--provoke-allocation={args.precision}={args.allocation}"
        # Taking memory takes time too: that must not be what is found.
        conditions.append(
            Condition(f"{args.allocation} MiB more", (*provoke, allocation), should_fail=True, metric=MEMORY)
        )
    return conditions


def _pytest(args: argparse.Namespace, output: Path, name: str, extra: Sequence[str]) -> Row:
    results = output / name
    command = [sys.executable, "-m", "pytest", "test_selftest.py", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += [f"--vq-models={args.model}", f"--vq-precisions={args.precision}", f"--vq-output={results}", *extra]
    command += [f"--vq-budget={args.budget}"] if args.budget else []
    command += ["--gpu"] if args.gpu else []
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    rows = run_child(
        command, who="a run of the selftest", cwd=output, output=results, environment=environment, accepted=(0, 1)
    ).rows
    if len(rows) != 1:
        raise MeasurementError(f"a run of the selftest measured nothing; see {results / 'pytest.log'}")
    return rows[0]


def _report(
    args: argparse.Namespace,
    output: Path,
    conditions: Sequence[Condition],
    found: dict[str, list[Row]],
    elapsed_s: float,
) -> tuple[str, int]:
    rows, wrong, undecided = [], 0, 0
    for condition in conditions:
        verdicts = Counter(_status(args, output, condition, row) for row in found[condition.name])
        failed, runs = verdicts[_FOUND], len(found[condition.name])
        undecided += verdicts[Status.INCONCLUSIVE]
        wrong += runs - failed - verdicts[Status.INCONCLUSIVE] if condition.should_fail else failed
        others = ", ".join(f"{count} {status}" for status, count in sorted(verdicts.items()) if status is not _FOUND)
        processes = sum(len(row.estimates) for row in found[condition.name]) / runs
        rows.append([condition.name, f"{failed} of {runs}", others, f"{processes:.1f}"])
    text = plain_table(rows, ["runs", "FAIL", "others", "processes each"])
    smallest = "\n".join(_detectable(args, output, found["unchanged"]))
    head = f"{args.model} {args.precision}, {args.baseline} baseline processes, {elapsed_s / 60:.0f} min"
    return f"{head}\n{text}\n{smallest}\n{_conclusion(wrong, undecided)}; all runs are in {output}", int(wrong > 0)


def _conclusion(wrong: int, undecided: int) -> str:
    if wrong:
        return f"the gate was wrong here, {wrong} times: see the table"
    if undecided:
        return f"the gate was never wrong, and left {undecided} comparisons undecided, which this machine's noise hides"
    return "the gate was right every time"


def _detectable(args: argparse.Namespace, output: Path, unchanged: Sequence[Row]) -> list[str]:
    """The smallest change of each metric that would have failed, by the decision on the last unchanged processes."""
    fresh = [row.estimates[0] for row in unchanged[-DEFAULT.max_looks :]]  # as many as it takes to FAIL
    decided = _decided(args, output, unchanged[-1], fresh)
    return [
        f"smallest change of {metric.metric} that fails here: {metric.detectable:.1%} ({len(fresh)} fresh processes)"
        for metric in decided.metrics
        if metric.detectable is not None
    ]


def _status(args: argparse.Namespace, output: Path, condition: Condition, row: Row) -> Status | None:
    if condition.metric is None:
        return row.record.verdict
    metrics = _decided(args, output, row, row.estimates).metrics
    return next((m.status for m in metrics if m.metric == condition.metric), Status.INCONCLUSIVE)


def _decided(args: argparse.Namespace, output: Path, row: Row, fresh: Sequence[Estimates]) -> Verdict:
    """The decision on ``fresh``, processes of the pair of ``row``, as its own run made it."""
    entries = BaselineStore(output / "baselines").entries(row.environment.device_slug, args.model)
    noise, setup = learn_noise(entries), row.record.setup
    return decide(fresh, setup, entries, noise, Tolerances(), min_sqnr_db=None, comparisons=1)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
