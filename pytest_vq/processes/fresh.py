"""Measuring in fresh processes: the unit of replication of every decision, and the way on after a kernel crashed."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_vq.errors import MeasurementError
from pytest_vq.options import Options
from pytest_vq.plugin import benchmark
from pytest_vq.processes.child import run_child
from pytest_vq.schema.outcome import Outcome
from pytest_vq.store.results import Results

_FOREIGN = ("PYTEST_", "COV_CORE_", "COVERAGE_")  # what this process's plugins set for themselves


def measure_afresh(item: pytest.Item, options: Options) -> Outcome:
    """The outcome of the one test ``item`` in a fresh process, ungated."""
    with tempfile.TemporaryDirectory(prefix="pytest-vq-") as directory:
        target = str(item.config.rootpath / item.nodeid)
        results = run_afresh(item.config, options, [target], Path(directory))
        if len(results.rows) != 1:
            raise MeasurementError(f"{item.nodeid}: a fresh process measured {len(results.rows)} pairs instead of one")
        samples_ms = _samples_ms(Path(directory))
    row = results.rows[0]
    return Outcome(row.record, row.environment, row.estimates, samples_ms)


def run_afresh(config: pytest.Config, options: Options, targets: Sequence[str], output: Path) -> Results:
    """The results of ``targets`` in a fresh, ungated pytest; its output is kept in ``output/pytest.log``.

    Raises ``MeasurementError`` with the end of that output where a pair could not be measured.
    """
    return run_child(
        _command(config, options, targets, output),
        who="a fresh process",
        cwd=config.invocation_params.dir,
        output=output,
        environment={name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
    )


def _samples_ms(output: Path) -> tuple[float, ...]:
    """The samples of the one pair measured there: ``study.json`` has their summary only."""
    (measured,) = json.loads((output / benchmark.FILE).read_text())["benchmarks"]
    return tuple(seconds * 1e3 for seconds in measured["stats"]["data"])


def _command(config: pytest.Config, options: Options, targets: Sequence[str], output: Path) -> list[str]:
    command = [sys.executable, "-m", "pytest", *targets, f"--rootdir={config.rootpath}"]
    if config.inipath is not None:
        command += ["-c", str(config.inipath)]
    # Reports, coverage and distribution are the parent's: whatever asks for them by default is left out.
    command += ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cov"]
    command += [f"--import-mode={config.getoption('importmode')}", "--color=no"]
    for plugin in config.getoption("plugins"):  # those named with -p; "no:" ones may not be known without addopts
        command += [] if plugin.startswith("no:") else ["-p", plugin]
    for name in ("keyword", "markexpr"):
        if config.getoption(name):
            command += ["-k" if name == "keyword" else "-m", config.getoption(name)]
    command += [f"--deselect={node}" for node in config.getoption("deselect") or ()]
    command.append(f"--benchmark-json={output / benchmark.FILE}")
    return command + _vq_arguments(options, output)


def _vq_arguments(options: Options, output: Path) -> list[str]:
    arguments = [
        f"--vq-precisions={options.precisions}",
        f"--vq-batch={','.join(map(str, options.batch))}",
        f"--vq-weights={options.weights}",
        f"--vq-protocol={options.protocol}",
        f"--vq-threads={options.threads}",
        f"--vq-baselines={options.baselines}",
        f"--vq-output={output}",
        "--vq-gate=off",
        "--vq-runs=1",
        "-o",
        "vq_save=false",
    ]
    if options.models:
        arguments.append(f"--vq-models={options.models}")
    if options.budget is not None:
        arguments.append(f"--vq-budget={options.budget}")
    return [*arguments, "--gpu"] if options.gpu else arguments
