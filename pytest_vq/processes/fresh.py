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
from pytest_vq.processes.child import Child, last_lines, require_success, run_child, run_to_its_end
from pytest_vq.processes.command import Invocation, all_of, clean_environment, pytest_command, ungated
from pytest_vq.schema.outcome import Outcome, Profile
from pytest_vq.schema.shard import WHOLE
from pytest_vq.store.profiled_pairs import read_profiles
from pytest_vq.store.results import read_results
from pytest_vq.store.samples import read_samples

PROFILING_PLUGIN = "pytest_vq.plugin.profiling"
FURTHER_PLUGIN = "pytest_vq.plugin.further_process"


@dataclass(frozen=True, slots=True)
class ProfiledPairs:
    """What a process that only profiles found, by pair, and in one sentence how it ended: why pairs are missing."""

    profiles: Mapping[str, Profile]
    ending: str


def measure_afresh(invocation: Invocation, options: Options, node_id: str) -> Outcome:
    """The outcome of the one test ``node_id`` in a fresh process, ungated.

    What the test asserts about its own figures may fail there, as it may here: what was measured counts. Raises
    ``MeasurementError`` where that is not one row.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-vq-") as directory:
        targets = [_target(invocation, node_id)]
        child = _child("a fresh process", invocation, _unsharded(options), targets, Path(directory))
        results = run_child(child, accepted=(0, 1))
        if len(results.rows) != 1:
            counted = f"a fresh process measured {len(results.rows)} rows instead of one"
            raise MeasurementError(f"{node_id}: {counted}; it ended with:\n" + "\n".join(last_lines(child)))
        samples = read_samples(Path(directory))
    row = results.rows[0]
    return Outcome(row.record, row.environment, row.estimates, tuple(line.samples for line in samples))


def run_afresh(invocation: Invocation, options: Options, targets: Sequence[str], output: Path) -> None:
    """Measure ``targets`` in a fresh, ungated pytest, but for pairs under load, whose rows are of several processes.

    Its results are in ``output``, where there was anything to measure, and what it printed in ``pytest.log`` there. Of
    a sharded run it measures the same shard; where this run takes up an earlier one, so does that. Raises
    ``MeasurementError`` with the end of that output where a pair could not be measured.
    """
    further = replace(invocation, plugins=(*invocation.plugins, FURTHER_PLUGIN))
    require_success(_child("a fresh process", further, options, targets, output))


def profile_afresh(invocation: Invocation, options: Options, node_ids: Sequence[str]) -> ProfiledPairs:
    """What the tests ``node_ids`` measure, profiled in one process of its own, which measures nothing.

    Whatever becomes of that process, what it had profiled by then counts.
    """
    targets = [_target(invocation, node_id) for node_id in node_ids]
    # It repeats what was given with -p: what is slowed down on purpose here is slowed down there.
    profiling = replace(invocation, plugins=(*invocation.plugins, PROFILING_PLUGIN))
    try:
        with tempfile.TemporaryDirectory(prefix="pytest-vq-") as directory:
            child = _child("a process that only profiles", profiling, _unsharded(options), targets, Path(directory))
            code = run_to_its_end(child)
            return ProfiledPairs(read_profiles(child.output), _ending(child, code))
    except OSError as error:
        return ProfiledPairs({}, f"a process that only profiles could not be run: {error}")


def words_to_find(invocation: Invocation, options: Options, node_id: str) -> list[str]:
    """The command line, without its interpreter, of a pytest that finds the one test ``node_id``, with ``options``."""
    given = all_of(_unsharded(options)) | ungated(options.output)
    command = pytest_command([_target(invocation, node_id)], given, arguments=invocation.arguments())
    return command[command.index("pytest") + 1 :]


def _target(invocation: Invocation, node_id: str) -> str:
    """The words that select one test. No path: what its parameters are called (``[a//b]``) is to be left as it is."""
    return f"{invocation.rootdir}/{node_id}"


def _unsharded(options: Options) -> Options:
    """``options`` of a process that is given the very tests to run: what it selects is not to be cut again."""
    return replace(options, shard=WHOLE)


def _child(who: str, invocation: Invocation, options: Options, targets: Sequence[str], output: Path) -> Child:
    given = all_of(options) | ungated(output) | {"resume": options.resume}  # in a directory of its own it begins
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
