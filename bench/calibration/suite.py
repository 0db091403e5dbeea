"""The decision of `pytest_vq.gate.decide` over arrays: whole suites at once, by the same statistics.

Shapes are ``(suites, pairs, processes)``; values are logs, positive = worse. ``tests/unit/test_calibration.py`` holds
this to `decide` case by case.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pytest_vq.gate import stats
from pytest_vq.gate.covariance import Moments, Slope
from pytest_vq.gate.policy import DEFAULT, Policy, SlopePrior

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
ANCHOR = 5  # processes that the store lets an anchor grow to


@dataclass(frozen=True, slots=True)
class Observed:
    """Processes of suites: logs of one metric, and of the sentinel's time, ``(suites, 1, processes)``; 0 for none."""

    values: Array
    sentinel: Array

    def first(self, processes: int) -> Observed:
        """The first so many processes."""
        return Observed(self.values[:, :, :processes], self.sentinel[:, :, :processes])

    def moments(self) -> Moments:
        """Around every pair's own mean."""
        y, x = (a - a.mean(axis=2, keepdims=True) for a in (self.values, self.sentinel))
        own = np.broadcast_to((x**2).sum(axis=2), y.shape[:2])
        return Moments((y**2).sum(axis=2), (y * x).sum(axis=2), own, y.shape[2] - 1.0)

    def __len__(self) -> int:
        return int(self.values.shape[2])


@dataclass(frozen=True, slots=True)
class Measured:
    """One timed metric of suites; ``has`` says which pairs have it."""

    baseline: Observed
    fresh: Observed
    tolerance: float
    slope: SlopePrior
    has: Flags


@dataclass(frozen=True, slots=True)
class Look:
    """What one metric says after some fresh processes."""

    fails: Flags
    passes: Flags  # a PASS or IMPROVED: settled and not worse
    open: Flags  # to be looked at again, if it is not the last look

    def __or__(self, other: Look) -> Look:
        """Both metrics of a pair together."""
        return Look(self.fails | other.fails, self.passes & other.passes, self.open | other.open)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How suites ended after up to three looks."""

    fails: Flags
    passes: Flags
    looks: NDArray[np.int64]
    fails_at_once: Flags  # on the first process alone


def pools(metric: Measured, policy: Policy = DEFAULT) -> tuple[Array, Array]:
    """Every suite's prior, ``(df, variance)`` of shape ``(suites, 1)``, learnt from its baselines."""
    moments = metric.baseline.moments()
    squares, df = Slope.fit(moments, metric.slope, policy).residual(moments)
    squares, dfs = squares[:, metric.has], np.broadcast_to(df, squares.shape)[:, metric.has]
    priors = [stats.fit_prior(s / d, d, policy) for s, d in zip(squares, dfs, strict=True)]
    return np.array([[p.df] for p in priors]), np.array([[p.variance] for p in priors])


def look(metric: Measured, m: int, prior: tuple[Array, Array], comparisons: int, policy: Policy) -> Look:
    """One metric of every pair, after ``m`` fresh processes."""
    fresh, tolerance = metric.fresh.first(m), metric.tolerance
    before, after = metric.baseline.moments(), fresh.moments()
    moments = Moments(*(getattr(before, f.name) + getattr(after, f.name) for f in fields(Moments)))
    slope = Slope.fit(moments, metric.slope, policy)
    variance, df = stats.moderate(*slope.residual(moments), *prior, policy)
    alphas = policy.fail_error(comparisons, m), policy.pass_error_per_look()
    resolution = max(policy.resolution, tolerance)
    judged = []
    n = len(metric.baseline)
    for reference in (metric.baseline, metric.baseline.first(ANCHOR)) if n > ANCHOR else (metric.baseline,):
        base, pace, k = reference.values.mean(axis=2), reference.sentinel.mean(axis=2), len(reference)
        effects = fresh.values - base[:, :, None] - slope.value[:, :, None] * (fresh.sentinel - pace[:, :, None])
        fixed = (fresh.sentinel.mean(axis=2) - pace) ** 2 * slope.variance(variance)
        error, last = (np.sqrt(variance * (1 / k + 1 / each) + fixed) for each in (m, policy.max_looks))
        effect = effects.mean(axis=2)
        found = stats.Effect(effect, error, df, effects.min(axis=2), effects.max(axis=2), np.sqrt(variance))
        judgement = stats.judge(found, stats.Limits(tolerance, resolution, *alphas), policy)
        reach = last * stats.quantile(1 - alphas[1], df) < np.log1p(resolution)
        judged.append((judgement, reach, effect >= np.log1p(tolerance)))
    return _settled(judged)


def _settled(judged: list[tuple[stats.Judgement, Flags, Flags]]) -> Look:
    recent, reach, worth = judged[0]
    fails: Flags = np.logical_or.reduce([j.fails for j, _, _ in judged])
    settled = (recent.passes | recent.improves) & ~fails
    undecided = ~settled & ~fails & (reach | worth)
    for anchor, anchor_reach, anchor_worth in judged[1:]:
        doubtful = settled & anchor_worth & ~anchor.passes
        settled = settled & ~doubtful
        undecided = undecided | (doubtful & (anchor_reach | anchor_worth))
    return Look(fails, settled, fails | undecided)


def decide_suites(metrics: list[Measured], comparisons: int, policy: Policy = DEFAULT) -> Outcome:
    """All looks at suites of pairs, each with three fresh processes."""
    priors = [pools(metric, policy) for metric in metrics]
    looks = []
    for m in range(1, policy.max_looks + 1):
        together: Look | None = None
        for metric, prior in zip(metrics, priors, strict=True):
            one = look(metric, m, prior, comparisons, policy)
            one = Look(one.fails & metric.has, one.passes | ~metric.has, one.open & metric.has)
            together = one if together is None else together | one
        assert together is not None
        looks.append(together)
    return _ended(looks)


def _ended(looks: list[Look]) -> Outcome:
    fails, passes = looks[-1].fails.copy(), looks[-1].passes.copy()
    used = np.full(fails.shape, len(looks))
    for index in reversed(range(len(looks) - 1)):
        stop = ~looks[index].open
        fails = np.where(stop, looks[index].fails, fails)
        passes = np.where(stop, looks[index].passes, passes)
        used = np.where(stop, index + 1, used)
    return Outcome(fails, passes & ~fails, used, looks[0].fails)
