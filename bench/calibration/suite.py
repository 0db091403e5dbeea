"""The decision of `pytest_vq.gate.decide` over arrays: whole suites at once, by the same statistics.

Shapes are ``(suites, pairs, processes)``; values are logs, positive = worse. ``tests/unit/test_calibration.py`` holds
this to `decide` case by case.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

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
    error_share: float = DEFAULT.steady_share
    watched: bool = True  # whether something tells the machine's pace from the pair's
    decides: bool = True  # False for a median or a 95 % quantile: it fails, or blocks a PASS, and proves none


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
class _Judged:
    """What one reference says."""

    judgement: stats.Judgement
    least_effect: Array  # given the sentinel or without it, whichever is less
    worth: Flags  # of failing
    may_pass: Flags  # at the settling look, if it is still to come
    may_fail: Flags


@dataclass(frozen=True, slots=True)
class Outcome:
    """How suites ended after all the looks that they asked for."""

    fails: Flags
    passes: Flags
    processes: NDArray[np.int64]
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
    looks_on = metric.watched or m < policy.confirming_look
    m = m if metric.watched else min(m, policy.confirming_look)
    fresh = metric.fresh.first(m)
    before, after = metric.baseline.moments(), fresh.moments()
    moments = Moments(*(getattr(before, f.name) + getattr(after, f.name) for f in fields(Moments)))
    slope = Slope.fit(moments, metric.slope, policy)
    variance, df = stats.moderate(*slope.residual(moments), *prior, policy)
    errors = policy.fail_error(comparisons, m, metric.error_share), policy.pass_error_at(m)
    limits = stats.Limits(metric.tolerance, max(policy.resolution, metric.tolerance), *errors)
    settles = policy.settling_look if metric.watched else policy.confirming_look
    then = replace(limits, pass_error=policy.pass_error_at(max(settles, m)))
    last_error = policy.fail_error(comparisons, policy.max_processes, metric.error_share)
    judged = []
    n = len(metric.baseline)
    for reference in (metric.baseline, metric.baseline.first(ANCHOR)) if n > ANCHOR else (metric.baseline,):
        base, pace, k = reference.values.mean(axis=2), reference.sentinel.mean(axis=2), len(reference)
        effects = fresh.values - base[:, :, None] - slope.value[:, :, None] * (fresh.sentinel - pace[:, :, None])
        fixed = (fresh.sentinel.mean(axis=2) - pace) ** 2 * slope.variance(variance)
        now, settling, last = (
            stats.Later(np.sqrt(variance * (1 / k + 1 / each) + fixed), max(each - m, 0))
            for each in (m, settles, policy.max_processes)
        )
        found = stats.Effect.of(effects, now.error, df, np.sqrt(variance), policy)
        judged.append(
            _Judged(
                judgement=stats.judge(found, limits, policy),
                least_effect=np.minimum(found.mean, fresh.values.mean(axis=2) - base),
                worth=found.mean >= np.log1p(metric.tolerance),
                may_pass=stats.may_pass(found, settling, then, policy) & (settling.more > 0),
                may_fail=stats.may_fail(found, last, last_error, policy),
            )
        )
    result = _settled(judged, m, policy) if metric.decides else _blocked(judged, m, policy)
    return result if looks_on else replace(result, open=np.zeros_like(result.open))


def _settled(judged: list[_Judged], m: int, policy: Policy) -> Look:
    """As `pytest_vq.gate.settling.settle`."""
    recent, *others = judged
    fails: Flags = np.logical_or.reduce([j.judgement.fails for j in judged])
    passes = (recent.judgement.passes | recent.judgement.improves) & ~fails
    undecided = ~passes & ~fails & _is_open(recent, m, policy)
    for anchor in others:
        doubtful = passes & anchor.worth & ~anchor.judgement.passes
        passes = passes & ~doubtful
        undecided = undecided | (doubtful & _is_open(anchor, m, policy))
    return Look(fails, passes, undecided if m >= policy.confirming_look else fails | undecided)


def _is_open(judged: _Judged, m: int, policy: Policy) -> Flags:
    may_fail = judged.may_fail if m >= policy.confirming_look else True
    return judged.may_pass | (judged.worth & may_fail)


def _blocked(judged: list[_Judged], m: int, policy: Policy) -> Look:
    """As `pytest_vq.gate.timed.typical`."""
    worth = np.log1p(policy.latency_tolerance)
    fails: Flags = np.logical_or.reduce([j.judgement.fails & (j.least_effect >= worth) for j in judged])
    worst = np.argmax([j.least_effect for j in judged], axis=0)[None]
    effect, is_open = (
        np.take_along_axis(np.array(each), worst, axis=0)[0]
        for each in ([j.least_effect for j in judged], [_is_open(j, m, policy) for j in judged])
    )
    blocks = ~fails & (effect > np.log1p(policy.typical_resolution))  # the tolerance is less: nobody marked it wider
    undecided = blocks & is_open
    return Look(fails, ~fails & ~blocks, undecided if m >= policy.confirming_look else fails | undecided)


def decide_suites(metrics: list[Measured], comparisons: int, policy: Policy = DEFAULT) -> Outcome:
    """All looks at suites of pairs, each with as many fresh processes as a suspect may have."""
    priors = [pools(metric, policy) for metric in metrics]
    looks = []
    for m in policy.looks:
        together: Look | None = None
        for metric, prior in zip(metrics, priors, strict=True):
            one = look(metric, m, prior, comparisons, policy)
            one = Look(one.fails & metric.has, one.passes | ~metric.has, one.open & metric.has)
            together = one if together is None else together | one
        assert together is not None
        if m >= policy.confirming_look:  # a FAIL is the last word, whatever else is open
            together = replace(together, open=together.open & ~together.fails)
        looks.append(together)
    return _ended(looks, policy)


def _ended(looks: list[Look], policy: Policy) -> Outcome:
    fails, passes = looks[-1].fails.copy(), looks[-1].passes.copy()
    used = np.full(fails.shape, policy.looks[-1])
    for index in reversed(range(len(looks) - 1)):
        stop = ~looks[index].open
        fails = np.where(stop, looks[index].fails, fails)
        passes = np.where(stop, looks[index].passes, passes)
        used = np.where(stop, policy.looks[index], used)
    return Outcome(fails, passes & ~fails, used, looks[0].fails)
