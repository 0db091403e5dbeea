"""The decision between two environments whose processes ran side by side."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from factories import MIB, make_estimates, make_setup

from pytest_vq.gate.paired import Sides, decide_paired
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status, Tolerances

ONE = make_estimates()
PAIR = CaseId("net", "int8", 1)


def slower(estimates: Estimates, log_time: float, log_ratio: float) -> Estimates:
    return replace(
        estimates,
        latency_q10_ms=ONE.latency_q10_ms * math.exp(log_time),
        speedup=ONE.speedup * math.exp(-log_ratio),
    )


def sides(slowdown: float = 0.0, sigma: float = 0.003, drift: float = 0.05, rounds: int = 5, seed: int = 0) -> Sides:
    """Rounds in which the machine drifts a lot from one to the next, both sides alike."""
    rng = random.Random(seed)
    a, b = [], []
    for _ in range(rounds):
        machine, extra = rng.gauss(0, drift), math.log1p(slowdown)
        a.append(slower(ONE, machine + rng.gauss(0, sigma), rng.gauss(0, sigma)))
        b.append(slower(ONE, machine + extra + rng.gauss(0, sigma), extra + rng.gauss(0, sigma)))
    return Sides(make_setup(), tuple(a), tuple(b), min_sqnr_db=18.0)


def suite(slowdown: float = 0.0, seed: int = 0, **noise: float) -> dict[CaseId, Sides]:
    """Sixteen pairs, all of them slower by the same."""
    return {CaseId(f"net{i}", "int8", 1): sides(slowdown, seed=seed + i, **noise) for i in range(16)}


def statuses(pairs: Mapping[CaseId, Sides], **more: Any) -> set[Status]:
    return {verdict.status for verdict in decide_paired(pairs, **more).values()}


def test_alike_sides_pass_through_a_drift_many_times_their_noise() -> None:
    assert statuses(suite()) == {Status.PASS}


def test_five_per_cent_are_found_through_that_drift() -> None:
    assert statuses(suite(0.05)) == {Status.FAIL}


def test_faster_is_improved() -> None:
    assert statuses(suite(-0.08)) == {Status.IMPROVED}


def test_noise_that_hides_the_change_is_admitted() -> None:
    assert statuses(suite(0.05, sigma=0.05)) == {Status.INCONCLUSIVE}


def test_the_reason_has_both_figures_the_interval_and_what_differs() -> None:
    pair = sides(0.08)
    newer = tuple(replace(e, versions={"torch": "2.14.0"}) for e in pair.b)
    verdict = decide_paired({PAIR: replace(pair, b=newer)})[PAIR]
    assert verdict.status is Status.FAIL
    for words in (
        "latency (10 % quantile) 9.",
        "→",
        "95 % interval",
        "tolerance 3 %",
        "5 rounds side by side",
        "torch 2.13.0 → 2.14.0",
    ):
        assert words in verdict.reason


def test_markers_tolerance_counts() -> None:
    assert statuses(suite(0.05), tolerances=Tolerances(latency_tolerance=0.2, speedup_tolerance=0.2)) == {Status.PASS}


def test_memory_and_fidelity_are_gated_too() -> None:
    fat = replace(sides(), b=tuple(replace(e, peak_memory_bytes=200 * MIB) for e in sides().b))
    false = replace(sides(), b=tuple(replace(e, sqnr_db=10.0) for e in sides().b))
    fat_id, false_id = CaseId("fat", "int8", 1), CaseId("false", "int8", 1)
    verdicts = decide_paired({fat_id: fat, false_id: false})
    assert "peak memory" in verdicts[fat_id].reason
    assert "10.0 dB" in verdicts[false_id].reason
    assert {v.status for v in verdicts.values()} == {Status.FAIL}


def test_a_disturbed_side_proves_nothing_about_time() -> None:
    verdict = decide_paired({PAIR: replace(sides(0.2), disturbance="throttled")})[PAIR]
    assert verdict.status is Status.INCONCLUSIVE
    assert "throttled" in verdict.reason


def test_too_few_samples_or_rounds() -> None:
    blind = tuple(replace(e, latency_low_ms=None, speedup_low=None) for e in sides().b)
    assert "too few samples" in decide_paired({PAIR: replace(sides(), b=blind)})[PAIR].reason
    with pytest.raises(ValueError, match=r"^net-int8: 2 and 2 processes; need 3 rounds"):
        decide_paired({PAIR: sides(rounds=2)})


@pytest.mark.parametrize(("execution", "timed"), [("eager", ["latency"]), ("compile", ["latency", "speedup"])])
def test_fp32_is_compared_by_its_speedup_too_unless_it_is_the_reference(execution: str, timed: list[str]) -> None:
    pair = replace(sides(0.05, sigma=0.001), setup=make_setup("fp32", execution=execution))
    verdict = decide_paired({PAIR: pair})[PAIR]
    assert [found.metric for found in verdict.metrics if found.status is Status.FAIL] == timed


def test_false_alarms_stay_within_their_share() -> None:
    """60 suites of 16 unchanged pairs at sigma 1 %: the rule allows a false FAIL in one of a hundred suites."""
    failed = 0
    for number in range(60):
        failed += Status.FAIL in statuses(suite(sigma=0.01, seed=1000 * number))
    assert failed <= 3


@pytest.mark.parametrize(
    ("worse", "sigma", "status"),
    [(1.3, 0.005, Status.FAIL), (1.15, 0.1, Status.INCONCLUSIVE), (1.05, 0.1, Status.PASS), (0.7, 0.005, Status.PASS)],
)
def test_a_slower_median_at_an_equal_low_quantile_is_no_pass(worse: float, sigma: float, status: Status) -> None:
    rng, pair = random.Random(3), sides(0.0)
    tailed = tuple(replace(e, latency_ms=e.latency_ms * worse * math.exp(rng.gauss(0, sigma))) for e in pair.b)
    verdict = decide_paired({PAIR: replace(pair, b=tailed)})[PAIR]
    assert verdict.status is status
    assert {m.metric: m.status for m in verdict.metrics}["latency"] is Status.PASS
    assert ("median latency" in verdict.reason) == (status is not Status.PASS)
