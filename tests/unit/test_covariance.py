"""The share of the sentinel's changes that a figure follows: fitted, taken out, and how well it is known."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_vq.gate.covariance import Moments, Slope
from pytest_vq.gate.policy import DEFAULT, SlopePrior

PRIOR = SlopePrior(0.5, 0.5)


def drawn(rng: np.random.Generator, size: int, slope: float, spread: float, noise: float) -> list[tuple[float, float]]:
    sentinel = rng.normal(1.0, spread, size)
    figure = 4.0 + slope * sentinel + rng.normal(0, noise, size)
    return list(zip(figure.tolist(), sentinel.tolist(), strict=True))


def test_moments_are_taken_around_each_groups_mean() -> None:
    moments = Moments.of([[(1.0, 10.0), (3.0, 14.0)], [(7.0, -2.0)], [(5.0, 1.0), (5.0, 3.0)]])
    assert (moments.figure, moments.product, moments.sentinel, moments.df) == (2.0, 4.0, 10.0, 2)


def test_much_data_gives_the_true_slope_and_the_noise_left() -> None:
    moments = Moments.of([drawn(np.random.default_rng(0), 4000, 0.8, 0.02, 0.005)])
    slope = Slope.fit(moments, PRIOR)
    squares, df = slope.residual(moments)
    assert slope.value == pytest.approx(0.8, abs=0.01)
    assert squares / df == pytest.approx(0.005**2, rel=0.05)
    assert slope.variance(0.005**2) < 0.01**2


def test_a_sentinel_that_never_moved_leaves_the_prior() -> None:
    moments = Moments.of([[(1.0, 0.0), (1.01, 0.0), (0.98, 0.0)]])
    slope = Slope.fit(moments, PRIOR)
    assert slope.value == PRIOR.mean
    assert slope.variance(0.01**2) == pytest.approx(PRIOR.sd**2)
    assert slope.residual(moments) == (moments.figure, 2)


def test_the_slopes_error_is_as_stated_over_many_pairs() -> None:
    # Slopes drawn from the prior, noise as it assumes: ridge regression is then exact.
    rng = np.random.default_rng(1)
    noise, errors, stated, left = DEFAULT.default_prior_sigma, [], [], []
    for _ in range(3000):
        true = rng.normal(PRIOR.mean, PRIOR.sd)
        moments = Moments.of([drawn(rng, 6, true, 0.02, noise)])
        slope = Slope.fit(moments, PRIOR)
        squares, df = slope.residual(moments)
        errors.append(slope.value - true)
        stated.append(slope.variance(noise**2))
        left.append(squares / df)
    assert np.mean(np.square(errors)) == pytest.approx(np.mean(stated), rel=0.08)
    assert np.mean(left) == pytest.approx(noise**2, rel=0.08)


def test_arrays_give_what_floats_give() -> None:
    rng = np.random.default_rng(2)
    each = [Moments.of([drawn(rng, 8, 0.6, 0.02, 0.01)]) for _ in range(4)]
    columns = (np.array([getattr(m, name) for m in each]) for name in ("figure", "product", "sentinel", "df"))
    together = Moments(*columns)
    slope = Slope.fit(together, PRIOR)
    for index, moments in enumerate(each):
        one = Slope.fit(moments, PRIOR)
        assert slope.value[index] == pytest.approx(one.value)
        assert slope.variance(1e-4)[index] == pytest.approx(one.variance(1e-4))
        assert [column[index] for column in slope.residual(together)] == pytest.approx(one.residual(moments))
