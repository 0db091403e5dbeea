"""``pytest-vq selftest``: does the gate hold on this machine? Unchanged runs and known changes, through the real path.

Every comparison is a fresh pytest process gated against baselines that other fresh processes recorded, exactly as in
CI; a suspect is measured again as there. The changes are made by ``pytest_vq.plugin.provoke``, and take turns with the
unchanged runs, so that a slow hour of the machine meets them all alike.
"""

from __future__ import annotations

import argparse
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
from pytest_vq.gate.noise import learn_noise
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.gate.question import Question
from pytest_vq.processes.child import Child, run_child
from pytest_vq.processes.command import clean_environment, pytest_command
from pytest_vq.report.text import plain_table
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import Status, Verdict
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results import Row

_SUITE = """
def test_precision(vq_case, vq_bench):
    vq_bench(vq_case)
"""
# Of vq_gate: a block as models have it, but a test's own.
_CALLABLE_SUITE = """
import torch
from torch import nn


def test_callable(vq_gate, provoked, request):
    device = "cuda" if request.config.getoption("gpu") else "cpu"
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True).eval().to(device)
    with torch.no_grad():
        vq_gate(provoked("callable", block), torch.randn(2, 128, 256).to(device))
"""
_PROVOKE = ("-p", "pytest_vq.plugin.provoke")
_FOUND = Status.FAIL


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to the model, or callable, in some of the runs; ``arguments`` are pytest's."""

    name: str
    arguments: tuple[str, ...]
    should_fail: bool
    metric: str | None = None  # whose verdict counts; None for the row's


@dataclass(frozen=True, slots=True)
class Selftest:
    """What was asked for, where it is done, and the rows of each condition's runs so far, unchanged code first."""

    args: argparse.Namespace
    output: Path
    found: dict[Condition, list[Row]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``selftest`` takes."""
    parser.add_argument("--gpu", action="store_true", help="on the accelerator")
    parser.add_argument("--callable", action="store_true", help="of vq_gate, with a callable in place of a model")
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
    suite.write_text(_CALLABLE_SUITE if args.callable else _SUITE)
    (output / "pytest.ini").write_text("[pytest]\n")
    started_s = time.monotonic()
    for number in range(1, args.baseline + 1):
        _say(f"baseline process {number} of {args.baseline}")
        _run_pytest(args, output, f"baseline-{number}", save=True)
    selftest = Selftest(args, output, {condition: [] for condition in _conditions(args)})
    found = selftest.found
    try:
        for number in range(1, args.runs + 1):
            for condition in found:
                row = _run_pytest(args, output, f"{condition.name.replace(' ', '-')}-{number}", condition.arguments)
                found[condition].append(row)
                _say(f"run {number} of {args.runs}, {condition.name}: {row.record.verdict} {row.record.reason}")
                write_json(
                    output / "selftest.json", {c.name: [r.record.to_row() for r in rows] for c, rows in found.items()}
                )
    except KeyboardInterrupt:
        if not all(found.values()):
            raise
        _say("interrupted: this is of the runs so far")
    return _report(selftest, time.monotonic() - started_s)


def _conditions(args: argparse.Namespace) -> list[Condition]:
    # The callable asks for what is provoked, and so needs the plugin in every run.
    name, provoke = ("callable", ()) if args.callable else (args.precision, _PROVOKE)
    conditions = [Condition("unchanged", (), should_fail=False)]
    for fraction in args.slowdowns:
        slowdown = f"--provoke-slowdown={name}={fraction}"
        conditions.append(Condition(f"{fraction:.0%} slower", (*provoke, slowdown), should_fail=True))
    if args.allocation:
        allocation = f"--provoke-allocation={name}={args.allocation}"
        # Taking memory takes time too: that must not be what is found.
        conditions.append(
            Condition(f"{args.allocation} MiB more", (*provoke, allocation), should_fail=True, metric=MEMORY)
        )
    return conditions


def _run_pytest(
    args: argparse.Namespace, output: Path, name: str, arguments: Sequence[str] = (), *, save: bool = False
) -> Row:
    """The row of one fresh process: recorded, ungated, into the selftest's baselines, or gated against them."""
    results = output / name
    given = {"budget": args.budget, "gpu": args.gpu, "save": save, "gate": "off" if save else "fail", "output": results}
    given |= {} if args.callable else {"models": args.model, "precisions": args.precision}
    own = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", *(_PROVOKE if args.callable else ()))
    command = pytest_command(["test_selftest.py"], given, arguments=(*own, *arguments))
    child = Child("a run of the selftest", command, output, results, clean_environment())
    rows = run_child(child, accepted=(0, 1)).rows
    if len(rows) != 1:
        raise MeasurementError(f"a run of the selftest measured nothing; see {results / 'pytest.log'}")
    return rows[0]


def _report(selftest: Selftest, elapsed_s: float) -> tuple[str, int]:
    args, rows, wrong, undecided = selftest.args, [], 0, 0
    for condition, taken in selftest.found.items():
        verdicts = Counter(_status(selftest, condition, row) for row in taken)
        failed, runs = verdicts[_FOUND], len(taken)
        undecided += verdicts[Status.INCONCLUSIVE]
        wrong += runs - failed - verdicts[Status.INCONCLUSIVE] if condition.should_fail else failed
        others = ", ".join(f"{count} {status}" for status, count in sorted(verdicts.items()) if status is not _FOUND)
        processes = sum(len(row.estimates) for row in taken) / runs
        rows.append([condition.name, f"{failed} of {runs}", others, f"{processes:.1f}"])
    text = plain_table(rows, ["runs", "FAIL", "others", "processes each"])
    smallest = "\n".join(_detectable(selftest))
    what = "a callable" if args.callable else f"{args.model} {args.precision}"
    head = f"{what}, {args.baseline} baseline processes, {elapsed_s / 60:.0f} min"
    conclusion = _conclusion(wrong, undecided)
    return f"{head}\n{text}\n{smallest}\n{conclusion}; all runs are in {selftest.output}", int(wrong > 0)


def _conclusion(wrong: int, undecided: int) -> str:
    if wrong:
        return f"the gate was wrong here, {wrong} times: see the table"
    if undecided:
        return f"the gate was never wrong, and left {undecided} comparisons undecided, which this machine's noise hides"
    return "the gate was right every time"


def _detectable(selftest: Selftest) -> list[str]:
    """The smallest change of each metric that would have failed, by the decision on the last unchanged processes."""
    unchanged = next(iter(selftest.found.values()))
    fresh = [row.estimates[0] for row in unchanged[-DEFAULT.confirming_look :]]  # as many as it takes to FAIL
    decided = _decided(selftest, unchanged[-1], fresh)
    return [
        f"smallest change of {metric.metric} that fails here: {metric.detectable:.1%} ({len(fresh)} fresh processes)"
        for metric in decided.metrics
        if metric.detectable is not None
    ]


def _status(selftest: Selftest, condition: Condition, row: Row) -> Status | None:
    if condition.metric is None:
        return row.record.verdict
    metrics = _decided(selftest, row, row.estimates).metrics
    return next((m.status for m in metrics if m.metric == condition.metric), Status.INCONCLUSIVE)


def _decided(selftest: Selftest, row: Row, fresh: Sequence[Estimates]) -> Verdict:
    """The decision on ``fresh``, processes of the pair of ``row``, as its own run made it."""
    store = BaselineStore(selftest.output / "baselines")
    entries = store.entries(row.environment.device_slug, row.record.identity.model)
    question = Question(tuple(fresh), row.record.setup, entries, learn_noise(entries), comparisons=1)
    return decide(question)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
