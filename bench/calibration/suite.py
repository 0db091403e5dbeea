"""The decision of `pytest_vq.baseline.decide` over arrays: whole suites at once, by the same statistics.

Shapes are ``(suites, pairs, processes)``; values are logs, positive = worse. ``tests/unit/test_calibration.py`` holds
this to `decide` case by case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_vq.baseline import stats
from pytest_vq.baseline.policy import DEFAULT, Policy

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
ANCHOR = 5  # processes that the store lets an anchor grow to


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


def pools(baseline: Array, policy: Policy = DEFAULT) -> tuple[Array, Array]:
    """Every suite's prior, ``(df, variance)`` of shape ``(suites, 1)``, learnt from its baselines."""
    suites, _, n = baseline.shape
    variances = baseline.var(axis=2, ddof=1)
    dfs = np.full(baseline.shape[1], n - 1.0)
    priors = [stats.fit_prior(variances[s], dfs, policy) for s in range(suites)]  # type: ignore[arg-type]
    return np.array([[p.df] for p in priors]), np.array([[p.variance] for p in priors])


def look(
    baseline: Array, fresh: Array, prior: tuple[Array, Array], tolerance: float, comparisons: int, policy: Policy
) -> Look:
    """One metric of every pair, after the processes in ``fresh``."""
    n, m = baseline.shape[2], fresh.shape[2]
    squares = baseline.var(axis=2) * n + fresh.var(axis=2) * m
    variance, df = stats.moderate(squares, n + m - 2.0, prior[0], prior[1], policy)
    alphas = policy.fail_error(comparisons, m), policy.pass_error_per_look()
    resolution = max(policy.resolution, tolerance)
    judged = []
    for reference in (baseline, baseline[:, :, :ANCHOR]) if n > ANCHOR else (baseline,):
        base, k = reference.mean(axis=2), reference.shape[2]
        effect = fresh.mean(axis=2) - base
        error = np.sqrt(variance * (1 / k + 1 / m))
        least, most = fresh.min(axis=2) - base, fresh.max(axis=2) - base
        judgement = stats.judge(
            effect, least, most, error, np.sqrt(variance), df, tolerance, resolution, alphas, policy
        )
        last = np.sqrt(variance * (1 / k + 1 / policy.max_looks))
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


def decide_suites(
    metrics: list[tuple[Array, Array, float, Flags]], comparisons: int, policy: Policy = DEFAULT
) -> Outcome:
    """All looks at suites of pairs. ``metrics``: baseline, three fresh processes, tolerance, and whose it is."""
    priors = [pools(baseline[:, has], policy) for baseline, _, _, has in metrics]
    looks = []
    for m in range(1, policy.max_looks + 1):
        together: Look | None = None
        for (baseline, fresh, tolerance, has), prior in zip(metrics, priors, strict=True):
            one = look(baseline, fresh[:, :, :m], prior, tolerance, comparisons, policy)
            one = Look(one.fails & has, one.passes | ~has, one.open & has)
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
