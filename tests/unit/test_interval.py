"""The interval of one process's median: how far its own samples pin it down."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_vq.measure.interval import lag1_autocorrelation, median_interval


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
