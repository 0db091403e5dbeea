"""The mathematics of a decision: the prior of variances, moderated variances, and what a difference proves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_vq.gate import stats
from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.gate.stats import Effect, Judgement, Limits


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


def test_no_change_counts_unless_every_process_confirms_it() -> None:
    def judged(least: float) -> Judgement:
        effect = Effect(mean=0.1, error=0.001, df=30.0, least=least, most=0.2, sigma=0.002)
        return stats.judge(effect, Limits(tolerance=0.03, resolution=0.05, fail_error=1e-5, pass_error=1e-3))

    assert judged(0.05).fails
    assert not judged(0.01).fails
    assert not judged(0.05).passes


def test_the_error_of_a_suite_is_shared_by_all_its_comparisons_and_looks() -> None:
    policy = Policy()
    shares = [policy.steady_share, policy.steady_share, policy.typical_share, policy.typical_share]
    counting = [n for n in policy.looks if n >= policy.confirming_look]
    total = sum(64 * policy.references * policy.fail_error(64, n, share) for n in counting for share in shares)
    assert 0.6 * policy.suite_error < total < 0.7 * policy.suite_error  # a third is left unspent
    assert sum(map(policy.pass_error_at, policy.looks)) == pytest.approx(policy.pass_error)


@pytest.mark.parametrize(
    ("processes", "look", "more", "dissenters"),
    [(1, 0, 1, 0), (2, 1, 1, 0), (3, 2, 3, 0), (5, 2, 1, 0), (6, 3, 4, 1), (10, 4, 0, 2), (20, 4, 0, 4)],
)
def test_looks_are_counted_in_processes(processes: int, look: int, more: int, dissenters: int) -> None:
    policy = Policy()
    assert policy.look_of(processes) == look
    assert policy.more_processes(processes) == more
    assert policy.dissenters(processes) == dissenters
