"""The simulations behind the gate's constants decide as the gate does, and their recorded processes as they should."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import importable_calibrations
from factories import ENVIRONMENT, make_entry, make_estimates, make_outcome

from pytest_vq.gate.decide import decide
from pytest_vq.gate.noise import GIVEN_SENTINEL, LATENCY, MEDIAN, SPEEDUP, Noise
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import Prior
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results_writer import ResultsWriter

KINDS = (LATENCY, SPEEDUP, MEDIAN.name)
SETTLED = {Status.PASS, Status.IMPROVED}  # what the simulations count as a PASS: shown to be no worse


@pytest.fixture(scope="module")
def calibration() -> Iterator[Any]:
    with importable_calibrations() as imported:
        yield imported


def process(steady: float, speedup: float, median: float, sentinel: float) -> Estimates:
    """A process with these logs, positive = worse."""
    ms, ratio, pace = math.exp(median), math.exp(-speedup), math.exp(sentinel) if sentinel else None
    times = dict.fromkeys(("latency_ms", "latency_low_ms", "latency_high_ms"), ms)
    ratios = dict.fromkeys(("speedup", "speedup_low", "speedup_high"), ratio)
    paces = dict.fromkeys(("sentinel_ms", "sentinel_median_ms"), pace)
    return make_estimates(**times, **ratios, **paces, latency_q10_ms=math.exp(steady))


@pytest.mark.parametrize("watched", [False, True])
def test_the_arrays_decide_as_decide_does(calibration: Any, watched: bool) -> None:
    suite = calibration("suite")
    rng = np.random.default_rng(0)
    tolerances = DEFAULT.latency_tolerance, DEFAULT.speedup_tolerance, DEFAULT.latency_tolerance
    slopes = DEFAULT.latency_slope, DEFAULT.speedup_slope, DEFAULT.latency_slope
    most = DEFAULT.max_processes
    unmoved = replace(DEFAULT, drift_minimum=9.0)  # that rule is not simulated
    seen = set()
    for case in range(150):
        n, sigma, shift = (5, 15)[case % 2], rng.choice([0.004, 0.01, 0.02]), rng.choice([0.0, 0.02, 0.05, 0.1])
        sentinel = rng.normal(0, 0.02, (1, 1, n + most)) * watched
        shares, noises = (np.array(each)[:, None, None, None] for each in ([0.6, -0.2, 0.6], [1.0, 1.0, 3.0]))
        processes = rng.normal(0, sigma, (3, 1, 1, n + most)) * noises + shares * sentinel
        processes[..., n:] += shift
        prior = Prior(float(rng.uniform(2, 40)), float(sigma**2 * rng.uniform(0.5, 2)), 64)
        every = [process(*processes[:, 0, 0, i], sentinel[0, 0, i]) for i in range(n + most)]
        entry = make_entry(every[:n])
        noise = Noise({kind + given: prior for kind in KINDS for given in ("", GIVEN_SENTINEL)})
        array = np.array([[prior.df]]), np.array([[prior.variance]])
        metrics = [
            suite.Measured(
                suite.Observed(p[..., :n], sentinel[..., :n]),
                suite.Observed(p[..., n:], sentinel[..., n:]),
                tolerance,
                slope,
                np.array([True]),
                DEFAULT.typical_share if kind == MEDIAN.name else DEFAULT.steady_share,
                watched=watched or kind == SPEEDUP,
                decides=kind != MEDIAN.name,
            )
            for p, tolerance, slope, kind in zip(processes, tolerances, slopes, KINDS, strict=True)
        ]
        for m in DEFAULT.looks:
            both = functools.reduce(or_, (suite.look(metric, m, array, 64, DEFAULT) for metric in metrics))
            question = Question(
                candidates=tuple(every[n : n + m]),
                setup=entry.setup,
                entries=(entry,),
                noise=noise,
                comparisons=64,
                policy=unmoved,
            )
            verdict = decide(question)
            seen.add(verdict.status)
            assert bool(both.fails[0, 0]) == (verdict.status is Status.FAIL)
            assert bool(both.passes[0, 0]) == (verdict.status in SETTLED)
            is_last_word = m == most or (m >= DEFAULT.confirming_look and verdict.status is Status.FAIL)
            assert (bool(both.open[0, 0]) and not is_last_word) == (verdict.more_processes > 0)
    assert {Status.FAIL, Status.PASS, Status.INCONCLUSIVE} <= seen


@pytest.mark.parametrize("pace", [{}, {"jump": 2.0, "error": 0.3}], ids=["alone", "paced"])
@pytest.mark.parametrize("baseline", [5, 15])
def test_unchanged_suites_do_not_fail_and_slow_ones_do(calibration: Any, baseline: int, pace: dict[str, float]) -> None:
    report, noise = calibration("report"), calibration("noise")
    scenario = noise.Scenario("any", 0.01, noise.normal, noise.Pace(**pace))
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
    values = rng.normal(0, 0.02, (40, 64, 5 + DEFAULT.max_processes))
    careless = replace(DEFAULT, suite_error=64.0, confirmation=0.0, confirmation_sigmas=0.0)
    every, none = np.ones(64, dtype=bool), np.zeros((40, 1, 5 + DEFAULT.max_processes))
    observed = suite.Observed(values, none)
    fresh = suite.Observed(values[..., 5:], none[..., 5:])
    metric = suite.Measured(observed.first(5), fresh, 0.03, DEFAULT.latency_slope, every)
    outcome = suite.decide_suites([metric], 64, careless)
    assert outcome.fails.any(axis=1).mean() > 0.5


def test_recorded_processes_of_unchanged_code_do_not_fail(calibration: Any) -> None:
    replay = calibration("replay")
    idle = next(r for r in replay.recordings() if r.name == "cpu_deit_tiny, idle, 1 thread")
    assert replay.replay(idle, 15, 1.0, 25).share(Status.FAIL) == 0
    assert replay.replay(idle, 15, 1.10, 25).share(Status.FAIL) == 1


def test_processes_of_runs_are_kept_in_the_order_they_ran(calibration: Any, tmp_path: Path) -> None:
    collect, replay = calibration("collect"), calibration("replay")
    for name, dates in (("late", ("3", "4")), ("early", ("1", "2"))):
        processes = tuple(make_estimates(date_utc=date, versions={"torch": "2", "kernel": "6"}) for date in dates)
        writer = ResultsWriter(tmp_path / name, {})
        writer.add(make_outcome(environment=replace(ENVIRONMENT, date_utc=dates[0]), estimates=processes))
        writer.close()
    lines = collect.collect([tmp_path / "late", tmp_path / "early"], "calm")
    assert [line.date_utc for line in lines] == ["1", "2", "3", "4"]
    assert [list(line.estimates) for line in lines] == [["net/int8"]] * 4
    estimates = lines[0].estimates["net/int8"]
    assert (estimates.device_uuid, estimates.commit, estimates.versions) == ("recorded", None, {"torch": "2"})
    assert replay.slowed(estimates, 1.1).latency_ms == pytest.approx(1.1 * estimates.latency_ms)


def test_a_later_hour_is_judged_by_the_baseline_of_an_earlier_one(calibration: Any) -> None:
    replay = calibration("replay")
    idle, busy = (
        next(r for r in replay.recordings() if r.name == f"cpu_deit_tiny, {name}, 1 thread")
        for name in ("idle", "busy")
    )
    assert replay.replay(idle, 15, 1.0, 25, later=busy).share(Status.FAIL) == 0
