from __future__ import annotations

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_vq.baseline.decide import decide
from pytest_vq.baseline.policy import DEFAULT
from pytest_vq.baseline.stats import Noise, Prior
from pytest_vq.record import Anchor, Entry, Estimates, Setup, Status
from pytest_vq.verdict import Tolerances


@pytest.fixture(scope="module")
def calibration() -> Any:
    root = str(Path(__file__).parents[2])
    sys.path.insert(0, root)
    try:
        yield lambda name: importlib.import_module(f"bench.calibration.{name}")
    finally:
        sys.path.remove(root)


SETUP = Setup("int8", 1, "adaptive", "random", 1, tf32=False)


def process(latency: float, speedup: float) -> Estimates:
    """A process with these logs, positive = worse."""
    ms, ratio = math.exp(latency), math.exp(-speedup)
    return Estimates(
        ms, ms, ms, ms, 50, None, None, ratio, ratio, ratio, None, None, 1, None, None, None, "uuid", {}, None, ""
    )


def test_the_arrays_decide_as_decide_does(calibration: Any) -> None:
    suite = calibration("suite")
    rng = np.random.default_rng(0)
    tolerances = DEFAULT.latency_tolerance, DEFAULT.speedup_tolerance
    seen = set()
    for case in range(150):
        n, sigma, shift = (5, 15)[case % 2], rng.choice([0.004, 0.01, 0.02]), rng.choice([0.0, 0.02, 0.05, 0.1])
        processes = rng.normal(0, sigma, (2, 1, 1, n + 3))
        processes[..., n:] += shift
        prior = Prior(float(rng.uniform(2, 40)), float(sigma**2 * rng.uniform(0.5, 2)), 64)
        entry_processes = tuple(process(*processes[:, 0, 0, i]) for i in range(n))
        entry = Entry(SETUP, Anchor(entry_processes[:5], "", ""), entry_processes)
        noise = Noise({"latency": prior, "speedup": prior})
        for m in (1, 2, 3):
            array = np.array([[prior.df]]), np.array([[prior.variance]])
            one, two = (
                suite.look(p[..., :n], p[..., n : n + m], array, tolerance, 64, DEFAULT)
                for p, tolerance in zip(processes, tolerances, strict=True)
            )
            both = one | two
            fresh = [process(*processes[:, 0, 0, n + i]) for i in range(m)]
            verdict = decide(fresh, SETUP, [entry], noise, Tolerances(), min_sqnr_db=None, comparisons=64)
            seen.add(verdict.status)
            assert bool(both.fails[0, 0]) == (verdict.status is Status.FAIL)
            assert bool(both.passes[0, 0]) == (verdict.status in (Status.PASS, Status.IMPROVED))
            assert (bool(both.open[0, 0]) and m < 3) == verdict.look_again
    assert {Status.FAIL, Status.PASS, Status.INCONCLUSIVE} <= seen


@pytest.mark.parametrize("baseline", [5, 15])
def test_unchanged_suites_do_not_fail_and_slow_ones_do(calibration: Any, baseline: int) -> None:
    report, noise = calibration("report"), calibration("noise")
    scenario = noise.Scenario("normal", 0.01, noise.normal)
    unchanged = report.simulate(scenario, baseline, 0.0, 150, seed=3)
    slower = report.simulate(scenario, baseline, 0.05, 20, seed=4)
    much_slower = report.simulate(scenario, baseline, 0.10, 20, seed=5)
    assert unchanged.fails.any(axis=1).sum() <= 4  # 1 % of 150 suites; more than 4 has a chance of 2 %
    assert slower.fails.mean() > (0.985 if baseline == 15 else 0.95)
    assert much_slower.fails.mean() > 0.99
    assert slower.passes.mean() < 0.01


def test_the_check_on_false_alarms_can_fail(calibration: Any) -> None:
    suite = calibration("suite")
    rng = np.random.default_rng(6)
    values = rng.normal(0, 0.02, (40, 64, 8))
    careless = replace(DEFAULT, suite_error=0.5 * 64 * 4, confirmation_sigmas=0.0)
    every = np.ones(64, dtype=bool)
    outcome = suite.decide_suites([(values[..., :5], values[..., 5:], 0.03, every)], 64, careless)
    assert outcome.fails.any(axis=1).mean() > 0.5


def test_recorded_processes_of_unchanged_code_do_not_fail(calibration: Any) -> None:
    replay = calibration("replay")
    idle = next(r for r in replay.recordings() if r.name == "cpu_deit_tiny, idle, 1 thread")
    assert replay.replay(idle, 15, 1.0, 25).share(Status.FAIL) == 0
    assert replay.replay(idle, 15, 1.10, 25).share(Status.FAIL) == 1
