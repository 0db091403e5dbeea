from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from pytest_vq.gate.paired import Sides, decide_paired
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Setup
from pytest_vq.schema.verdict import Status, Tolerances

SETUP = Setup(precision="int8", batch=1, protocol="adaptive", weights="random", threads=1, tf32=False)
ONE = Estimates(
    latency_ms=10.0,
    latency_low_ms=9.9,
    latency_high_ms=10.1,
    latency_q10_ms=9.8,
    samples=100,
    sentinel_ms=2.0,
    device_time_ms=None,
    speedup=2.0,
    speedup_low=1.98,
    speedup_high=2.02,
    resting_memory_bytes=100 << 20,
    peak_memory_bytes=120 << 20,
    model_size_bytes=50 << 20,
    sqnr_db=29.0,
    cosine=0.999,
    accuracy=None,
    device_uuid="CPU-1",
    versions={"torch": "2.13.0"},
    commit="abc",
    date_utc="2026-11-23T00:00:00Z",
)


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
    return Sides(SETUP, tuple(a), tuple(b), min_sqnr_db=18.0)


def suite(slowdown: float = 0.0, pairs: int = 16, **kwargs: float) -> dict[str, Sides]:
    return {f"pair{i}": sides(slowdown, seed=i, **kwargs) for i in range(pairs)}


def statuses(pairs: dict[str, Sides], **kwargs: object) -> set[Status]:
    return {verdict.status for verdict in decide_paired(pairs, **kwargs).values()}


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
    verdict = decide_paired({"a": replace(pair, b=newer)})["a"]
    assert verdict.status is Status.FAIL
    for words in (
        "latency 9.",
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
    fat = replace(sides(), b=tuple(replace(e, peak_memory_bytes=200 << 20) for e in sides().b))
    false = replace(sides(), b=tuple(replace(e, sqnr_db=10.0) for e in sides().b))
    verdicts = decide_paired({"fat": fat, "false": false})
    assert "peak memory" in verdicts["fat"].reason
    assert "10.0 dB" in verdicts["false"].reason
    assert {v.status for v in verdicts.values()} == {Status.FAIL}


def test_a_disturbed_side_proves_nothing_about_time() -> None:
    verdict = decide_paired({"a": replace(sides(0.2), disturbance="throttled")})["a"]
    assert verdict.status is Status.INCONCLUSIVE
    assert "throttled" in verdict.reason


def test_too_few_samples_or_rounds() -> None:
    blind = tuple(replace(e, latency_low_ms=None, speedup_low=None) for e in sides().b)
    assert "too few samples" in decide_paired({"a": replace(sides(), b=blind)})["a"].reason
    with pytest.raises(ValueError, match="need 3 rounds"):
        decide_paired({"a": sides(rounds=2)})


def test_false_alarms_stay_within_their_share() -> None:
    """60 suites of 16 unchanged pairs at sigma 1 %: the rule allows a false FAIL in one of a hundred suites."""
    failed = 0
    for number in range(60):
        pairs = {f"p{i}": sides(sigma=0.01, seed=1000 * number + i) for i in range(16)}
        failed += Status.FAIL in {verdict.status for verdict in decide_paired(pairs).values()}
    assert failed <= 3
