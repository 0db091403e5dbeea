"""Other tools' rules, called in their installed packages on the same recorded samples.

``pip install --no-deps --target build/rivals pytest-torch==1.1.1 benchmatrix==1.2.1 inference-doctor==0.4.1`` and put
``build/rivals`` on PYTHONPATH. A package that is not there is left out of the table, and the table says so.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

Process = Sequence[float]  # one process's samples, milliseconds


@dataclass(frozen=True, slots=True)
class Rule:
    """``fails(baseline, candidate)``: whether the tool would fail the candidate."""

    name: str
    fails: Callable[[Sequence[Process], Sequence[Process]], bool]
    candidates: int
    baselines: int


def available() -> tuple[list[Rule], list[str]]:
    """The rules whose packages are installed, and the names of those that are not."""
    rules: list[Rule] = []
    missing: list[str] = []
    for package, make in (
        ("pytest-benchmark", _pytest_benchmark),
        ("pytest-torch", _pytest_torch),
        ("inference-doctor", _inference_doctor),
        ("benchmatrix", _benchmatrix),
    ):
        try:
            rules += [*make(f"{package} {version(package)}")]
        except ImportError:
            missing.append(package)
    return rules, missing


def _pytest_benchmark(name: str) -> Iterator[Rule]:
    parse = importlib.import_module("pytest_benchmark.utils").parse_compare_fail

    def fails(check: Any, field: Callable[[Process], float]) -> Callable[..., bool]:
        return lambda base, fresh: bool(check.fails({check.field: field(fresh[0])}, {check.field: field(base[-1])}))

    for expression, field in (("median:5%", statistics.median), ("min:5%", min)):
        yield Rule(f"{name} `{expression}`", fails(parse(expression), field), 1, 1)


def _pytest_torch(name: str) -> Iterator[Rule]:
    perf = importlib.import_module("pytest_torch.perf")

    class Store:
        """The one entry that its rule looks up."""

        def __init__(self, latency_ms: float) -> None:
            self.latency_ms = latency_ms

        def get(self, _key: str) -> dict[str, float]:
            return {"latency_ms": self.latency_ms}

    def fails(base: Sequence[Process], fresh: Sequence[Process]) -> bool:
        try:
            perf.compare_perf(Store(statistics.median(base[-1])), "x", "cpu", statistics.median(fresh[0]), None)
        except AssertionError:
            return True
        return False

    yield Rule(f"{name} `compare_perf` (25 %)", fails, 1, 1)


def _inference_doctor(name: str) -> Iterator[Rule]:
    quality = importlib.import_module("inference_doctor.quality")

    def fails(percent: float) -> Callable[..., bool]:
        thresholds = quality.QualityThresholds(regression_percent=percent)

        def rule(base: Sequence[Process], fresh: Sequence[Process]) -> bool:
            sides = ([statistics.median(p) for p in side] for side in (base, fresh))
            decision = quality.decide_regression(*sides, lower_is_better=True, thresholds=thresholds)
            return bool(decision.status == "FAIL")

        return rule

    for percent in (10.0, 2.0):
        label = "default 10 %" if percent == 10.0 else f"{percent:g} %"
        yield Rule(f"{name} `decide_regression` ({label})", fails(percent), 5, 5)


def _benchmatrix(name: str) -> Iterator[Rule]:
    package = importlib.import_module("benchmatrix")

    def run(process: Process) -> Any:
        seconds = np.asarray(process) / 1e3
        stats = {"rounds": len(process), "iterations": 1}
        derived = {"latency_mean": seconds.mean(), "latency_median": np.median(seconds), "latency_min": seconds.min()}
        row = package.ParsedBenchmarkRow(
            benchmark_name="x",
            metric_name="single_call_latency",
            implementation_name="x",
            case_name="x",
            stats=stats,
            extra_info={},
            derived={key: float(value) for key, value in derived.items()},
            samples=tuple(seconds.tolist()),
        )
        return package.BenchmarkRun(rows=(row,), metadata={})

    def fails(base: Sequence[Process], fresh: Sequence[Process]) -> bool:
        inference = package.InferencePolicy(resamples=2000)
        sides = ([run(p) for p in side] for side in (base, fresh))
        compared = package.compare_benchmark_run_groups(*sides, inference_policy=inference)
        return any(c.regression == "regressed" for c in compared.comparisons)

    yield Rule(f"{name} `compare_benchmark_run_groups` (5 %, 2,000 resamples)", fails, 5, 5)
