"""Simulated processes: logs of one metric's estimates, ``(suites, pairs, baseline + fresh processes)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_vq.gate.policy import DEFAULT

from .suite import Array, Observed

FRESH = DEFAULT.max_processes
Draw = Callable[[np.random.Generator, tuple[int, int, int], float], Array]


@dataclass(frozen=True, slots=True)
class Pace:
    """How the machine's own pace varies, in sigmas; every pair follows it by a share of its own."""

    step: float = 0.0  # of a random walk from one process to the next
    jump: float = 0.0  # independent from process to process
    error: float | None = None  # the sentinel's; None where nothing sees the pace


@dataclass(frozen=True, slots=True)
class Reading:
    """One estimate that a process gives of every pair."""

    shares: tuple[float, float]  # of the machine's pace that a pair follows, uniform between them
    noise: float = 1.0  # in the scenario's sigmas


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of noise at one between-process sigma (of logs)."""

    name: str
    sigma: float
    draw: Draw
    pace: Pace = Pace()

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, int, int], readings: Sequence[Reading]
    ) -> list[tuple[Observed, Observed]]:
        """``(baseline, fresh)`` processes of unchanged pairs, for each of ``readings``: one machine's, all of them.

        ``shape`` is ``(suites, pairs, baseline processes)``.
        """
        suites, pairs, baseline = shape
        machine, pace = (suites, 1, baseline + FRESH), self.pace
        walk = np.cumsum(rng.standard_normal(machine) * pace.step, axis=2)
        moves = (walk + rng.standard_normal(machine) * pace.jump) * self.sigma
        observed = []
        for reading in readings:
            values = self.draw(rng, (suites, pairs, baseline + FRESH), self.sigma * reading.noise)
            sentinel: Array = np.zeros(machine)
            if self.is_paced:
                values = values + rng.uniform(*reading.shares, (suites, pairs, 1)) * moves
                if pace.error is not None:
                    sentinel = moves + rng.standard_normal(machine) * pace.error * self.sigma * reading.noise
            observed.append(
                (
                    Observed(values[:, :, :baseline], sentinel[:, :, :baseline]),
                    Observed(values[:, :, baseline:], sentinel[:, :, baseline:]),
                )
            )
        return observed

    @property
    def is_paced(self) -> bool:
        """Whether the machine's pace varies."""
        return bool(self.pace.step or self.pace.jump)

    @property
    def is_watched(self) -> bool:
        """Whether its sentinel tells."""
        return not self.is_paced or self.pace.error is not None


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
        Scenario(name, sigma, draw, pace)
        for name, draw, pace in (
            ("unequal pairs", unequal, Pace()),
            ("wild pairs", wild, Pace()),
            ("heavy tails", heavy, Pace()),
            ("disturbed processes", disturbed, Pace()),
            ("common shocks", common, Pace()),
            ("pace", normal, Pace(jump=2.0, error=0.5)),
            ("drift", normal, Pace(step=0.3, error=0.3)),
            ("drift, no sentinel", normal, Pace(step=0.3)),
        )
        for sigma in (0.01, 0.02)
    ),
)
