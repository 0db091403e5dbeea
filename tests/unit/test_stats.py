from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from pytest_vq.gate import stats
from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.measure.interval import lag1_autocorrelation, median_interval
from pytest_vq.schema.estimates import Anchor, Entry, Estimates
from pytest_vq.schema.record import Setup


def process(latency_ms: float, **changes: object) -> Estimates:
    blank: dict[str, object] = dict.fromkeys(f.name for f in fields(Estimates))
    blank |= {
        "latency_ms": latency_ms,
        "latency_low_ms": latency_ms * 0.99,
        "latency_high_ms": latency_ms * 1.01,
        "samples": 30,
        "model_size_bytes": 1,
        "device_uuid": "GPU-1",
        "versions": {"torch": "2.13.0"},
        "date_utc": "",
    }
    return Estimates(**(blank | changes))  # type: ignore[arg-type]


def entry(*processes: Estimates, precision: str = "int8") -> Entry:
    setup = Setup(precision, 1, "adaptive", "random", None, tf32=False)
    return Entry(setup, Anchor(processes[:1], "", ""), processes)


@pytest.mark.parametrize("x", [1e-3, 0.1, 1.0, 7.5, 300.0, 1e5])
def test_inverse_trigamma_undoes_trigamma(x: float) -> None:
    from scipy.special import polygamma

    assert stats.inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-4)


def test_the_prior_that_variances_were_drawn_from_is_found_again() -> None:
    rng = np.random.default_rng(0)
    prior_df, typical, df = 8.0, 0.01, 4
    true = typical**2 * prior_df / rng.chisquare(prior_df, 5000)
    variances = true * rng.chisquare(df, 5000) / df

    found = stats.fit_prior(variances.tolist(), [df] * 5000)

    assert found.df == pytest.approx(prior_df, rel=0.15)
    assert math.sqrt(found.variance) == pytest.approx(typical, rel=0.05)


def test_few_equal_pairs_do_not_prove_that_sigma_is_known() -> None:
    found = stats.fit_prior([1e-4] * 4, [4] * 4)
    assert found.df == 4 * DEFAULT.max_prior_df_per_pair


def test_unequal_pairs_weaken_the_prior() -> None:
    equal = stats.fit_prior([1e-4, 1.1e-4, 0.9e-4] * 10, [14] * 30)
    unequal = stats.fit_prior([1e-4, 10e-4, 0.1e-4] * 10, [14] * 30)
    assert unequal.df < 5 < equal.df


def test_a_few_wild_pairs_do_not_spoil_the_prior_for_the_others() -> None:
    rng = np.random.default_rng(4)
    usual = 1e-4 * rng.chisquare(4, 60) / 4
    wild = 64e-4 * rng.chisquare(4, 4) / 4
    alone, beside = stats.fit_prior(usual, [4] * 60), stats.fit_prior([*usual, *wild], [4] * 64)
    assert beside.variance == pytest.approx(alone.variance, rel=0.15)
    assert beside.df > 0.5 * alone.df
    assert beside.pairs == 60


def test_identical_processes_leave_a_floor_and_not_a_zero() -> None:
    found = stats.fit_prior([0.0] * 10, [4] * 10)
    assert math.isfinite(found.df)
    assert found.variance >= DEFAULT.sigma_floor**2


def test_a_moderated_variance_lies_between_the_pairs_own_and_the_priors() -> None:
    variance, df = stats.moderate(4 * 2e-4, 4, 10.0, 1e-4)
    assert 1e-4 < float(variance) < 2e-4
    assert float(df) == 14


def test_a_pair_far_noisier_than_its_kind_is_judged_on_its_own() -> None:
    variance, df = stats.moderate(4 * 100e-4, 4, 60.0, 1e-4)
    assert (float(variance), float(df)) == (pytest.approx(100e-4), 4)


def test_moderate_takes_arrays_like_floats() -> None:
    squares, df, prior_df, prior = np.array([8e-4, 400e-4, 0.0]), 4.0, np.array([10.0, 60.0, 5.0]), 1e-4
    variances, dfs = stats.moderate(squares, df, prior_df, prior)
    one_by_one = [stats.moderate(s, df, d, prior) for s, d in zip(squares, prior_df, strict=True)]
    assert variances.tolist() == pytest.approx([float(v) for v, _ in one_by_one])
    assert dfs.tolist() == [float(d) for _, d in one_by_one]


def test_noise_is_learnt_per_kind_and_only_from_replicated_pairs() -> None:
    rng = np.random.default_rng(1)

    def noisy(sigma: float, **more: object) -> Entry:
        times = 10 * np.exp(rng.normal(0, sigma, 12))
        speedups = 1.4 * np.exp(rng.normal(0, sigma / 4, 12))
        pairs = zip(times, speedups, strict=True)
        return entry(*(process(t, speedup=s, speedup_low=s, speedup_high=s, **more) for t, s in pairs))

    singles = [entry(process(5.0)) for _ in range(5)]
    noise = stats.learn_noise([("model", noisy(0.02)) for _ in range(8)] + [("model", one) for one in singles])

    assert set(noise.priors) == {stats.LATENCY, stats.SPEEDUP}
    latency, speedup = noise.priors[stats.LATENCY], noise.priors[stats.SPEEDUP]
    assert math.sqrt(latency.variance) == pytest.approx(0.02, rel=0.25)
    assert math.sqrt(speedup.variance) == pytest.approx(0.005, rel=0.25)
    assert latency.pairs == 8
    assert stats.learn_noise(singles).priors == {}
    assert noise.prior(stats.LATENCY_FP32) == latency


def test_two_cards_difference_is_not_noise() -> None:
    two = [process(10.0 * card + step, device_uuid=f"GPU-{card}") for card in (1, 2) for step in (0, 0.1, 0.05)]
    noise = stats.learn_noise([entry(*two)] * 4)
    assert math.sqrt(noise.priors[stats.LATENCY].variance) < 0.01


def test_the_low_quantile_is_the_steady_estimate_where_there_is_one() -> None:
    assert stats.steady_ms(process(5.0)) == 5.0
    assert stats.steady_ms(process(5.0, latency_q10_ms=4.0)) == 4.0


def test_no_change_counts_unless_every_process_confirms_it() -> None:
    def judged(least: float) -> stats.Judgement:
        return stats.judge(0.1, least, 0.2, 0.001, 0.002, 30.0, 0.03, 0.05, (1e-5, 1e-3))

    assert judged(0.05).fails
    assert not judged(0.01).fails
    assert not judged(0.05).passes


def test_the_error_of_a_suite_is_shared_by_all_its_comparisons_and_looks() -> None:
    policy = Policy()
    comparisons = 64 * policy.timed_metrics * policy.references
    total = sum(comparisons * policy.fail_error(64, processes) for processes in (1, 2, 3))
    assert total == pytest.approx(policy.suite_error)


# -- the interval of one process's median


@pytest.mark.parametrize("n", [6, 7, 10, 31, 200, 1001])
def test_the_interval_covers_at_least_95_percent_for_independent_samples(n: int) -> None:
    from scipy.stats import binom

    low, high = median_interval([float(i) for i in np.random.default_rng(3).permutation(n)]) or (0, 0)
    assert low + high == n - 1  # symmetric in rank
    assert 1 - 2 * binom.cdf(low, n, 0.5) >= 0.95


def test_below_six_samples_there_is_no_interval() -> None:
    assert median_interval([1.0] * 5) is None
    assert median_interval([1.0] * 6) == (1.0, 1.0)


def test_dependent_samples_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    independent = rng.normal(size=400)
    dependent = np.repeat(independent[:40], 10)

    assert lag1_autocorrelation(independent.tolist()) < 0.15
    assert lag1_autocorrelation(dependent.tolist()) > 0.7
    shuffled = median_interval(rng.permutation(dependent).tolist()) or (0, 0)
    in_order = median_interval(dependent.tolist()) or (0, 0)
    assert in_order[1] - in_order[0] > 2 * (shuffled[1] - shuffled[0])


def test_the_interval_scales_with_its_samples_and_constant_samples_do_no_harm() -> None:
    values = np.random.default_rng(5).exponential(size=50)
    low, high = median_interval(values.tolist()) or (0, 0)
    assert median_interval((values * 1000).tolist()) == pytest.approx((low * 1000, high * 1000))
    assert median_interval([3.0] * 100) == (3.0, 3.0)
