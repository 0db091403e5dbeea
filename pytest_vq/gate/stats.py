"""The mathematics of a decision: moderated variances, the prior they are drawn from, and what a difference proves.

All on natural logarithms, positive = worse, one value a process. The functions take floats or numpy arrays alike: the
calibration in ``bench/calibration`` runs the very same code on millions of simulated pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vq.gate.covariance import Moments
from pytest_vq.gate.policy import DEFAULT, Policy


@dataclass(frozen=True, slots=True)
class Prior:
    """The between-process variance of a device's pairs: scaled inverse chi-squared with ``df`` degrees of freedom."""

    df: float
    variance: float  # of natural logarithms
    pairs: int


@dataclass(frozen=True, slots=True)
class Effect:
    """The fresh processes' mean effect at one look, how well it is known, and how far single processes lie from it."""

    mean: Any
    error: Any  # standard error of the mean
    df: Any
    least: Any  # the best fresh process's own effect, the dissenters aside
    most: Any  # the worst one's
    sigma: Any  # of one process

    @classmethod
    def of(cls, effects: Any, error: Any, df: Any, sigma: Any, policy: Policy = DEFAULT) -> Effect:
        """The effect that the fresh processes' own ``effects`` show; the last axis is theirs."""
        import numpy as np

        ordered = np.sort(effects, axis=-1)
        aside = policy.dissenters(ordered.shape[-1])
        return cls(ordered.mean(axis=-1), error, df, ordered[..., aside], ordered[..., -1 - aside], sigma)


@dataclass(frozen=True, slots=True)
class Later:
    """A look that is still to come: the standard error of the mean there, and how many processes it is away."""

    error: Any
    more: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What is worth failing for, what a PASS must exclude, and the one-sided errors of both findings."""

    tolerance: float
    resolution: float
    fail_error: float
    pass_error: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """One comparison at one look; arrays where the arguments were."""

    fails: Any
    improves: Any
    passes: Any
    critical: Any  # the effect (in logs) that the error rate demands


def scatter(groups: Iterable[Sequence[float]]) -> tuple[float, int]:
    """The sum of squares around each group's mean, and its degrees of freedom."""
    moments = Moments.of([(value, 0.0) for value in values] for values in groups)
    return moments.figure, moments.df


def fit_prior(variances: Sequence[float], dfs: Sequence[float], policy: Policy = DEFAULT) -> Prior:
    """The prior of which ``variances`` (with ``dfs`` degrees of freedom) are draws, a few wild ones aside.

    Moments of log variances (Smyth 2004, "Linear models and empirical Bayes methods", section 6.2, as in limma's
    fitFDist): their excess spread over what the degrees of freedom explain gives the prior's, through the inverse of
    the trigamma function. Capped, because few pairs cannot prove that all are alike. A few pairs far noisier than their
    kind would make the prior useless for all others (Phipson et al. 2016, "Robust hyperparameter estimation"): those
    that a first fit, to the quieter half, finds implausible are left out of the second.
    """
    import numpy as np
    from scipy.special import fdtrc, psi

    s2 = np.maximum(np.asarray(variances, dtype=float), policy.sigma_floor**2)
    df = np.asarray(dfs, dtype=float)
    logs = np.log(s2) - psi(df / 2) + np.log(df / 2)
    middle = float(np.median(logs))
    first = _prior_of(middle, float(((logs[logs <= middle] - middle) ** 2).mean()), df, policy)
    usual = fdtrc(df, first.df, s2 / first.variance) >= policy.wild_p
    logs, df = logs[usual], df[usual]
    return _prior_of(float(logs.mean()), float(logs.var(ddof=1)) if len(logs) > 1 else 0.0, df, policy)


def _prior_of(mean: float, spread: float, dfs: Any, policy: Policy) -> Prior:
    """The prior under which log variances of ``dfs``, unbiased, have this ``mean`` and ``spread`` (a variance)."""
    from scipy.special import polygamma, psi

    excess = spread - float(polygamma(1, dfs / 2).mean())
    cap = policy.max_prior_df_per_pair * len(dfs)
    df = min(2 * inverse_trigamma(excess), cap) if excess > 0 else cap
    variance = math.exp(mean + float(psi(df / 2)) - math.log(df / 2))
    return Prior(df=df, variance=max(variance, policy.sigma_floor**2), pairs=len(dfs))


def inverse_trigamma(value: float) -> float:
    """The x with trigamma(x) = ``value`` > 0, by Newton's iteration on 1/trigamma (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        tri = float(polygamma(1, x))
        step = tri * (1 - tri / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x


def moderate(squares: Any, df: Any, prior_df: Any, prior_variance: Any, policy: Policy = DEFAULT) -> tuple[Any, Any]:
    """The moderated variance and its degrees of freedom, from a pair's own sum of squares and the prior.

    ``(d0 s0² + squares) / (d0 + df)``, on ``d0 + df`` degrees of freedom (Smyth 2004, section 3). A pair whose own
    variance is implausible under the prior is noisier than its kind: the prior is dropped for it, as robust
    variants do, or it would raise false alarms for ever.
    """
    import numpy as np
    from scipy.special import fdtrc

    variance = (prior_df * prior_variance + squares) / np.maximum(prior_df + df, 1e-9)
    total = prior_df + df
    own = squares / np.maximum(df, 1)
    usable = (np.asarray(df) >= 2) & (np.asarray(prior_df) > 0)
    ratio = np.where(usable, own / np.maximum(prior_variance, policy.sigma_floor**2), 0.0)
    alone = usable & (fdtrc(np.maximum(df, 1), np.maximum(prior_df, 1e-9), ratio) < policy.outlier_p)
    variance = np.where(alone, own, variance)
    return np.maximum(variance, policy.sigma_floor**2), np.where(alone, df, total)


def judge(effect: Effect, limits: Limits, policy: Policy = DEFAULT) -> Judgement:
    """One look at one comparison.

    The best and the worst fresh process, dissenters aside, must each confirm a change, by half of what is worth failing
    for and by the sigma of one process, for the change to count.
    """
    import numpy as np

    critical = effect.error * quantile(1 - limits.fail_error, effect.df)
    worth = math.log1p(limits.tolerance)
    confirming = np.maximum(policy.confirmation * worth, policy.confirmation_sigmas * effect.sigma)
    fails = (effect.mean > critical) & (effect.mean >= worth) & (effect.least >= confirming)
    improves = (effect.mean < -critical) & (effect.mean <= -worth) & (effect.most <= -confirming)
    passes = effect.mean + effect.error * quantile(1 - limits.pass_error, effect.df) < math.log1p(limits.resolution)
    return Judgement(fails, improves, passes, critical)


def may_fail(effect: Effect, later: Later, fail_error: float, policy: Policy = DEFAULT) -> Any:
    """Whether a later look may show the ``effect`` at the one-sided error that it will have then."""
    critical = later.error * quantile(1 - fail_error, effect.df + later.more)
    return effect.mean + policy.hope * effect.error >= critical


def may_pass(effect: Effect, later: Later, limits: Limits, policy: Policy = DEFAULT) -> Any:
    """Whether a later look may exclude the resolution; its one-sided error is the limits' ``pass_error``."""
    import numpy as np

    least = np.maximum(effect.mean - policy.hope * effect.error, 0.0)
    reach = later.error * quantile(1 - limits.pass_error, effect.df + later.more)
    return least + reach < math.log1p(limits.resolution)


def binomial_tail(least: int, trials: int) -> float:
    """The chance of ``least`` heads or more in ``trials`` throws of a fair coin."""
    from scipy.stats import binom

    return float(binom.sf(least - 1, trials, 0.5))


def quantile(probability: float, df: Any) -> Any:
    """Student's t quantile; normal for infinite ``df``."""
    from scipy.special import stdtrit

    return stdtrit(df, probability)
