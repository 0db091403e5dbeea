"""``pytest-vq ab``: two environments against each other, in alternating fresh processes on one machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_vq.catalog.models import all_models
from pytest_vq.errors import ResultsError, VqError
from pytest_vq.gate.paired import MIN_ROUNDS, Sides, decide_paired
from pytest_vq.precision.precisions import all_precisions
from pytest_vq.processes.child import Child, run_child
from pytest_vq.processes.command import pytest_command, ungated
from pytest_vq.report.table import reasons, records_table
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results, Row

_UNDER_LOAD = "times under load are not those of a quiet model, which is what is judged here: see pytest-vq compare"


@dataclass(frozen=True, slots=True)
class Side:
    """One environment: its Python, and the checkout whose suite it runs."""

    name: str
    python: Path
    root: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``ab`` takes."""
    for name in ("a", "b"):
        parser.add_argument(
            f"--{name}", type=Path, required=True, metavar="PYTHON", help=f"side {name.upper()}'s python executable"
        )
        parser.add_argument(
            f"--{name}-root", type=Path, default=Path(), metavar="DIR", help="the checkout it runs in; default here"
        )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="processes a side, at least 3; default 5")
    parser.add_argument("--output", type=Path, default=Path("vq-ab"), metavar="DIR", help="default vq-ab/")
    parser.add_argument("--strict", action="store_true", help="INCOMPARABLE and INCONCLUSIVE fail too")
    parser.add_argument("pytest_args", nargs="*", help="for both sides' pytest, after --: what to measure, and how")


def run_ab(args: argparse.Namespace) -> tuple[str, int]:
    """Measure both sides in turns (A B, B A, ...), decide, and return the text to print and the exit code."""
    if args.rounds < MIN_ROUNDS:
        raise ResultsError(f"--rounds {args.rounds}: an interval over rounds needs at least {MIN_ROUNDS}")
    sides = [Side("a", _python(args.a), args.a_root), Side("b", _python(args.b), args.b_root)]
    taken: dict[str, list[Results]] = {"a": [], "b": []}
    for number in range(1, args.rounds + 1):
        for side in sides:
            sys.stderr.write(f"round {number} of {args.rounds}, side {side.name.upper()}: {side.python}\n")
            taken[side.name].append(_measure(side, args.output.absolute() / f"{side.name}-{number}", args.pytest_args))
        sides.reverse()
    records = compare_sides(taken["a"], taken["b"])
    failing = {Status.FAIL} | ({Status.INCOMPARABLE, Status.INCONCLUSIVE} if args.strict else set())
    text = "\n".join([records_table(records), *(line for line, _ in reasons(records))])
    return text, int(any(record.verdict in failing for record in records))


def compare_sides(a: Sequence[Results], b: Sequence[Results]) -> list[Record]:
    """The last records of side B, with their verdicts against side A; what only one side measured is INCOMPARABLE."""
    rows_a, rows_b = ([{row.record.case_id: row for row in results.rows} for results in side] for side in (a, b))
    records: dict[CaseId, Record] = {}
    pairs: dict[CaseId, Sides] = {}
    for name, row in rows_b[-1].items():
        records[name] = row.record
        both = [rows.get(name) for rows in (*rows_a, *rows_b)]
        found = [other for other in both if other is not None]
        unequal = next((other.record.setup for other in found if other.record.setup != row.record.setup), None)
        if len(found) < len(both):
            records[name] = _incomparable(row.record, "side A, or a process of either side, did not measure it")
        elif row.record.setup.serving is not None:
            records[name] = _incomparable(row.record, _UNDER_LOAD)
        elif unequal is not None:
            records[name] = _incomparable(row.record, f"measured differently: {unequal} and {row.record.setup}")
        else:
            pairs[name] = _sides(found[: len(a)], found[len(a) :])
    for name, verdict in decide_paired(pairs).items():
        records[name] = replace(records[name], verdict=verdict.status, reason=verdict.reason)
    if not pairs:
        raise ResultsError("the two sides measured no pair in common: give both the same selection")
    return list(records.values())


def _incomparable(record: Record, reason: str) -> Record:
    return replace(record, verdict=Status.INCOMPARABLE, reason=reason)


def _sides(a: Sequence[Row], b: Sequence[Row]) -> Sides:
    record = b[-1].record
    precision = all_precisions().get(record.setup.precision)
    model = all_models().get(record.identity.model)
    default = precision.min_sqnr_db if precision else None
    disturbed = [row.record.disturbance for row in (*a, *b) if row.record.disturbance]
    return Sides(
        setup=record.setup,
        a=tuple(row.estimates[0] for row in a),
        b=tuple(row.estimates[0] for row in b),
        min_sqnr_db=model.min_sqnr_db.get(record.setup.precision, default) if model else default,
        disturbance=disturbed[0] if disturbed else None,
    )


def _python(path: Path) -> Path:
    # Not resolved: a virtual environment's python is a link, and is only that environment under its own name.
    if not os.access(path, os.X_OK):
        raise VqError(f"{path} is no executable: give each side's python, for example .venv/bin/python")
    return path.absolute()


def _measure(side: Side, output: Path, pytest_args: Sequence[str]) -> Results:
    # Only what must be so: the other side's pytest-vq may be of a version that knows fewer options.
    command = pytest_command((), ungated(output), arguments=pytest_args, python=side.python)
    return run_child(Child(f"side {side.name.upper()}", command, side.root, output))
