"""How often the tail's verdict is wrong, on simulated queues, beside the binomial test that MLPerf's LoadGen makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from calibrations import importable_calibrations

from pytest_vq.schema.verdict import Status
from pytest_vq.serve.tails import judge_tail

RHOS = (0.5, 0.7)


@pytest.fixture(scope="module")
def serving() -> Iterator[Any]:
    with importable_calibrations() as calibration:
        yield calibration("serving")


@pytest.fixture(scope="module")
def queues(serving: Any) -> dict[float, list[Any]]:
    return {rho: serving.simulate_runs(serving.md1_latency, rho, runs=200, seed=3) for rho in RHOS}


@pytest.mark.parametrize("rho", RHOS)
def test_a_tail_at_the_bound_hardly_ever_passes_or_fails(serving: Any, queues: Any, rho: float) -> None:
    judged = serving.judge_at(queues[rho], 0.005)
    assert judged.passes.mean() <= 0.02
    assert judged.fails.mean() <= 0.02


@pytest.mark.parametrize(("rho", "least"), [(0.5, 0.10), (0.7, 0.20)])
def test_the_binomial_test_alone_passes_it_often(serving: Any, queues: Any, rho: float, least: float) -> None:
    judged = serving.judge_at(queues[rho], 0.005)
    assert judged.loadgen_passes_all.mean() >= least


def test_a_tail_far_within_the_bound_passes_and_one_far_beyond_it_fails(serving: Any, queues: Any) -> None:
    assert serving.judge_at(queues[0.5], 0.001).passes.mean() > 0.95
    assert serving.judge_at(queues[0.5], 0.02).fails.mean() > 0.95


def test_the_real_batchers_tail_at_the_bound_hardly_ever_passes(serving: Any) -> None:
    latency = serving.simulate_runs(serving.batched_latency, 0.7, runs=12, seed=4)
    assert serving.judge_at(latency, 0.005).passes.sum() == 0


def test_the_arrays_decide_as_judge_tail_does(serving: Any) -> None:
    seen = set()
    for rho in RHOS:
        latency = serving.md1_latency(rho, (6, 5, 10_000), np.random.default_rng(6))
        for true_rate in (0.001, 0.005, 0.02):
            bound = float(np.quantile(latency, 1 - true_rate))
            judged = serving.judge_runs(latency, bound)
            for run in range(6):
                verdict = judge_tail((latency[run] > bound).tolist(), rho)
                assert (verdict.status is Status.PASS) == judged.passes[run]
                assert (verdict.status is Status.FAIL) == judged.fails[run]
                seen.add(verdict.status)
    assert seen == {Status.PASS, Status.FAIL, Status.INCONCLUSIVE}


def test_the_solved_recursion_is_lindleys(serving: Any) -> None:
    latency = serving.md1_latency(0.7, (200,), np.random.default_rng(7))
    steps = 1.0 - np.random.default_rng(7).exponential(1 / 0.7, size=200)
    wait = 0.0
    for number in range(1, 200):
        wait = max(0.0, wait + steps[number])
        assert latency[number] == pytest.approx(wait + 1.0)
