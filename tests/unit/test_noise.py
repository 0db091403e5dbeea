"""What the baselines of a device teach about how noisy its processes are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from factories import make_entry, make_estimates, make_setup

from pytest_vq.gate.noise import (
    GIVEN_SENTINEL,
    LATENCY,
    LATENCY_FP32,
    MEDIAN,
    P95,
    SENTINEL,
    SPEEDUP,
    Noise,
    learn_noise,
    steady_ms,
)
from pytest_vq.gate.stats import Prior
from pytest_vq.schema.estimates import Entry, Estimates

NO_SPEEDUP: dict[str, None] = {"speedup": None, "speedup_low": None, "speedup_high": None}


def process(latency_ms: float, **changes: Any) -> Estimates:
    """A process whose only estimate of time is its median, unless ``changes`` say more."""
    low, high = latency_ms * 0.99, latency_ms * 1.01
    times = {"latency_ms": latency_ms, "latency_low_ms": low, "latency_high_ms": high, "latency_q10_ms": None}
    return make_estimates(**(times | NO_SPEEDUP | changes))


def noisy(sigma: float, rng: np.random.Generator, processes: int = 12, **setup: Any) -> Entry:
    """Replicates whose times scatter by ``sigma`` and whose speedups by a quarter of it."""
    times = 10 * np.exp(rng.normal(0, sigma, processes))
    speedups = 1.4 * np.exp(rng.normal(0, sigma / 4, processes))
    pairs = zip(times.tolist(), speedups.tolist(), strict=True)
    return make_entry([process(t, speedup=s, speedup_low=s, speedup_high=s) for t, s in pairs], make_setup(**setup))


def test_noise_is_learnt_per_kind_and_only_from_replicated_pairs() -> None:
    rng = np.random.default_rng(1)
    singles = [make_entry([process(5.0)]) for _ in range(5)]
    noise = learn_noise([noisy(0.02, rng) for _ in range(8)] + singles)

    assert set(noise.priors) == {LATENCY, MEDIAN.name, SPEEDUP}
    latency, speedup = noise.priors[LATENCY], noise.priors[SPEEDUP]
    assert math.sqrt(latency.variance) == pytest.approx(0.02, rel=0.25)
    assert math.sqrt(speedup.variance) == pytest.approx(0.005, rel=0.25)
    assert latency.pairs == 8
    assert learn_noise(singles).priors == {}


def test_fp32_falls_back_to_the_noise_of_the_other_precisions() -> None:
    own, others = Prior(5.0, 1e-4, 3), Prior(5.0, 4e-4, 3)
    for given in ("", GIVEN_SENTINEL):
        assert Noise({LATENCY + given: others}).prior(LATENCY_FP32 + given) == others
        assert Noise({LATENCY + given: others, LATENCY_FP32 + given: own}).prior(LATENCY_FP32 + given) == own
    assert Noise({LATENCY_FP32: own}).prior(LATENCY) is None


@pytest.mark.parametrize(
    ("execution", "kinds"),
    [
        ("eager", {LATENCY_FP32, MEDIAN.kind(make_setup("fp32"))}),
        ("compile", {LATENCY, MEDIAN.name, SPEEDUP}),
    ],
)
def test_fp32_under_another_execution_teaches_what_other_schemes_do(execution: str, kinds: set[str]) -> None:
    rng = np.random.default_rng(2)
    entries = [noisy(0.02, rng, precision="fp32", execution=execution) for _ in range(4)]
    assert set(learn_noise(entries).priors) == kinds


def test_processes_with_a_sentinel_teach_its_noise_and_theirs_given_it() -> None:
    rng = np.random.default_rng(3)

    def paced() -> Entry:
        pace, own = rng.normal(0, 0.05, 12), rng.normal(0, 0.002, 12)
        logs = zip(pace.tolist(), own.tolist(), strict=True)
        return make_entry([process(10 * math.exp(x + y), sentinel_ms=3 * math.exp(x)) for x, y in logs])

    priors = learn_noise([paced() for _ in range(6)]).priors
    assert set(priors) == {LATENCY, LATENCY + GIVEN_SENTINEL, MEDIAN.name, SENTINEL}
    assert math.sqrt(priors[LATENCY].variance) == pytest.approx(0.05, rel=0.25)
    assert math.sqrt(priors[SENTINEL].variance) == pytest.approx(0.05, rel=0.25)
    assert math.sqrt(priors[LATENCY + GIVEN_SENTINEL].variance) < 0.01


def test_too_few_pairs_teach_nothing() -> None:
    rng = np.random.default_rng(4)
    pairs = [noisy(0.02, rng) for _ in range(3)]
    assert learn_noise(pairs[:2]).priors == {}
    assert set(learn_noise(pairs).priors) == {LATENCY, MEDIAN.name, SPEEDUP}


def test_two_cards_difference_is_not_noise() -> None:
    two = [process(10.0 * card + step, device_uuid=f"GPU-{card}") for card in (1, 2) for step in (0, 0.1, 0.05)]
    noise = learn_noise([make_entry(two)] * 4)
    assert math.sqrt(noise.priors[LATENCY].variance) < 0.01


def test_the_low_quantile_is_the_steady_estimate_where_there_is_one() -> None:
    assert steady_ms(process(5.0)) == 5.0
    assert steady_ms(process(5.0, latency_q10_ms=4.0)) == 4.0


def test_two_processes_that_the_sentinel_explains_teach_nothing_given_it() -> None:
    entries = [
        make_entry([process(10.0, sentinel_ms=1.0), process(10.0 * moved, sentinel_ms=moved)])
        for moved in (1.7, 1.9, 2.0, 2.2)
    ]
    noise = learn_noise(entries)
    assert set(noise.priors) == {LATENCY, MEDIAN.name, SENTINEL}
    assert math.isfinite(noise.priors[LATENCY].variance)


def test_medians_and_tails_have_noise_of_their_own() -> None:
    rng = np.random.default_rng(5)

    def tailed() -> Entry:
        low, middle, tail = (np.exp(rng.normal(0, sigma, 12)) for sigma in (0.005, 0.02, 0.08))
        return make_entry(
            [
                process(11 * m, latency_q10_ms=10 * q, latency_p95_ms=15 * t, sentinel_ms=3.0, sentinel_median_ms=3.2)
                for q, m, t in zip(low, middle, tail, strict=True)
            ]
        )

    priors = learn_noise([tailed() for _ in range(8)]).priors
    for reading, sigma in ((LATENCY, 0.005), (MEDIAN.name, 0.02), (P95.name, 0.08)):
        for given in ("", GIVEN_SENTINEL):
            assert math.sqrt(priors[reading + given].variance) == pytest.approx(sigma, rel=0.25)
