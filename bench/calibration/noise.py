"""Simulated processes: logs of one metric's estimates, ``(suites, pairs, baseline + fresh processes)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .suite import Array

FRESH = 3
Draw = Callable[[np.random.Generator, tuple[int, int, int], float], Array]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of noise at one between-process sigma (of logs)."""

    name: str
    sigma: float
    draw: Draw

    def sample(self, rng: np.random.Generator, suites: int, pairs: int, baseline: int) -> tuple[Array, Array]:
        """``(baseline, fresh)`` processes of unchanged pairs."""
        values = self.draw(rng, (suites, pairs, baseline + FRESH), self.sigma)
        return values[:, :, :baseline], values[:, :, baseline:]


def normal(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """The textbook case: all pairs equally noisy."""
    return rng.standard_normal(shape) * sigma


def unequal(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """Pairs differ in noise: the middle 90 % by a factor of 5."""
    factors: Array = np.exp(0.5 * rng.standard_normal((*shape[:2], 1)))
    return normal(rng, shape, sigma) * factors


def wild(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """One pair in twenty is eight times as noisy as the others."""
    return normal(rng, shape, sigma) * np.where(rng.random((*shape[:2], 1)) < 0.05, 8.0, 1.0)


def heavy(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """Student's t with 4 degrees of freedom, scaled to ``sigma``."""
    return rng.standard_t(4, shape) * (sigma / 2**0.5)


def disturbed(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """3 % of the processes are slowed, by 8 % on average (exponential)."""
    return normal(rng, shape, sigma) + (rng.random(shape) < 0.03) * rng.exponential(0.08, shape)


def common(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """Half of the variance is the machine's: shared by all pairs of a process."""
    shared = rng.standard_normal((shape[0], 1, shape[2]))
    return (rng.standard_normal(shape) + shared) * (sigma / 2**0.5)


def drifting(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """The machine's speed wanders from process to process (a random walk of 0.3 sigma a step), seen by nothing."""
    walk = np.cumsum(rng.standard_normal((shape[0], 1, shape[2])) * 0.3 * sigma, axis=2)
    return normal(rng, shape, sigma) + walk


def watched(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """The same, divided by a sentinel: what is left of the machine is the sentinel's own error, shared by all pairs."""
    return normal(rng, shape, sigma) - rng.standard_normal((shape[0], 1, shape[2])) * 0.3 * sigma


def sampled(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Array:
    """The 10 % quantile of 40 samples each: skewed (exponential, mean 3 %), autocorrelated (0.6), plus ``sigma``."""
    samples = np.empty((40, *shape), dtype=np.float32)
    state = rng.standard_exponential(shape, dtype=np.float32)
    for index in range(samples.shape[0]):
        renew = rng.random(shape, dtype=np.float32) > 0.6
        state = np.where(renew, rng.standard_exponential(shape, dtype=np.float32), state)
        samples[index] = state
    low: Array = np.partition(samples, 4, axis=0)[4].astype(float)
    return normal(rng, shape, sigma) + 0.03 * low


SCENARIOS = (
    *(Scenario("normal", sigma, normal) for sigma in (0.002, 0.005, 0.01, 0.02)),
    Scenario("autocorrelated samples", 0.01, sampled),
    *(
        Scenario(name, sigma, draw)
        for name, draw in (
            ("unequal pairs", unequal),
            ("wild pairs", wild),
            ("heavy tails", heavy),
            ("disturbed processes", disturbed),
            ("common shocks", common),
            ("drift", watched),
            ("drift, no sentinel", drifting),
        )
        for sigma in (0.01, 0.02)
    ),
)
