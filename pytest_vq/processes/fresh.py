"""Measuring in fresh processes: the unit of replication of every decision, and the way on after a kernel crashed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_vq.errors import MeasurementError
from pytest_vq.options import Options
from pytest_vq.processes.child import Child, run_child
from pytest_vq.processes.command import Invocation, all_of, clean_environment, pytest_command, ungated
from pytest_vq.schema.outcome import Outcome
from pytest_vq.store.results import Results
from pytest_vq.store.samples import read_samples


def measure_afresh(invocation: Invocation, options: Options, node_id: str) -> Outcome:
    """The outcome of the one test ``node_id`` in a fresh process, ungated."""
    with tempfile.TemporaryDirectory(prefix="pytest-vq-") as directory:
        results = run_afresh(invocation, options, [str(invocation.rootdir / node_id)], Path(directory))
        samples = read_samples(Path(directory))
    if len(results.rows) != 1:
        raise MeasurementError(f"{node_id}: a fresh process measured {len(results.rows)} pairs instead of one")
    row = results.rows[0]
    return Outcome(row.record, row.environment, row.estimates, tuple(line.samples for line in samples))


def run_afresh(invocation: Invocation, options: Options, targets: Sequence[str], output: Path) -> Results:
    """The results of ``targets`` in a fresh, ungated pytest; its output is kept in ``output/pytest.log``.

    Raises ``MeasurementError`` with the end of that output where a pair could not be measured.
    """
    given = all_of(options) | ungated(output)
    command = pytest_command(targets, given, arguments=invocation.arguments())
    return run_child(Child("a fresh process", command, invocation.directory, output, clean_environment()))
