"""Fresh processes: the unit of replication of every decision, and the way on after a kernel crashed.

Profilers run in one of their own, where they would stay with the process that measures (`Device.keeps_profiler`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_vq.errors import MeasurementError, ResultsError
from pytest_vq.options import Options
from pytest_vq.processes.child import Child, last_lines, run_child, run_to_its_end
from pytest_vq.processes.command import Invocation, all_of, clean_environment, pytest_command, ungated
from pytest_vq.schema.outcome import Outcome, Profile
from pytest_vq.store.profiled_pairs import read_profiles
from pytest_vq.store.results import Results, read_results
from pytest_vq.store.samples import read_samples

PROFILING_PLUGIN = "pytest_vq.plugin.profiling"


@dataclass(frozen=True, slots=True)
class ProfiledPairs:
    """What a process that only profiles found, by pair, and in one sentence how it ended: why pairs are missing."""

    profiles: Mapping[str, Profile]
    ending: str


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
    return run_child(_child("a fresh process", invocation, options, targets, output))


def profile_afresh(invocation: Invocation, options: Options, node_ids: Sequence[str]) -> ProfiledPairs:
    """The pairs of the tests ``node_ids``, profiled in one process of its own, which measures nothing.

    Whatever becomes of that process, what it had profiled by then counts.
    """
    targets = [str(invocation.rootdir / node_id) for node_id in node_ids]
    # It repeats what was given with -p: what is slowed down on purpose here is slowed down there.
    profiling = replace(invocation, plugins=(*invocation.plugins, PROFILING_PLUGIN))
    try:
        with tempfile.TemporaryDirectory(prefix="pytest-vq-") as directory:
            child = _child("a process that only profiles", profiling, options, targets, Path(directory))
            code = run_to_its_end(child)
            return ProfiledPairs(read_profiles(child.output), _ending(child, code))
    except OSError as error:
        return ProfiledPairs({}, f"a process that only profiles could not be run: {error}")


def _child(who: str, invocation: Invocation, options: Options, targets: Sequence[str], output: Path) -> Child:
    given = all_of(options) | ungated(output)
    command = pytest_command(targets, given, arguments=invocation.arguments())
    return Child(who, command, invocation.directory, output, clean_environment())


def _ending(child: Child, code: int) -> str:
    """How ``child`` ended: the first error of a pair or, where there is none, the last line that it printed."""
    try:
        errors = [f"{failure.error}: {failure.message}" for failure in read_results(child.output).failures]
    except ResultsError:  # it ended before it had results
        errors = []
    lines = errors[0].splitlines() if errors else last_lines(child, 1)
    return f"{child.who} ended with exit code {code}: {lines[0].strip(' =') if lines else 'it printed nothing'}"
