"""The statistics of processes: how noisy they are, learnt over all pairs, and what a difference between them proves.

All on natural logarithms, positive = worse, one value a process. The functions take floats or numpy arrays alike: the
calibration in ``bench/calibration`` runs the very same code on millions of simulated pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pytest_vq.gate.covariance import Moments, Pair, Slope
from pytest_vq.gate.policy import DEFAULT, Policy, SlopePrior
from pytest_vq.schema.estimates import Entry, Estimates

LATENCY, LATENCY_FP32, SPEEDUP, SENTINEL = "latency", "latency of fp32", "speedup", "sentinel"
GIVEN_SENTINEL = " given the sentinel"
_FLAT = SlopePrior(0.0, 1.0)  # of what follows nothing


@dataclass(frozen=True, slots=True)
class Prior:
    """The between-process variance of a device's pairs: scaled inverse chi-squared with ``df`` degrees of freedom."""

    df: float
    variance: float  # of natural logarithms
    pairs: int


@dataclass(frozen=True, slots=True)
class Noise:
    """What a device's baselines teach about noise: kind of metric -> prior; a kind too little is known of is absent."""

    priors: Mapping[str, Prior] = field(default_factory=lambda: MappingProxyType({}))

    def prior(self, kind: str) -> Prior | None:
        """The prior of ``kind``; fp32's falls back to that of the other precisions."""
        return self.priors.get(kind) or self.priors.get(kind.replace(LATENCY_FP32, LATENCY))


@dataclass(frozen=True, slots=True)
class Judgement:
    """One comparison at one look; arrays where the arguments were."""

    fails: Any
    improves: Any
    passes: Any
    critical: Any  # the effect (in logs) that the error rate demands


def steady_ms(estimates: Estimates) -> float:
    """The estimate that is steadiest between processes, in milliseconds: the 10 % quantile, else the median."""
    return estimates.latency_ms if estimates.latency_q10_ms is None else estimates.latency_q10_ms


def learn_noise(entries: Iterable[tuple[str, Entry]] | Iterable[Entry], policy: Policy = DEFAULT) -> Noise:
    """The pool: per kind of timed metric, the prior of the between-process variance over a device's pairs.

    ``entries`` are all baselines of one device. Kinds with fewer than ``policy.min_pool_pairs`` replicated pairs are
    left out (their pairs are then judged on their own, or as uncalibrated).
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for item in entries:
        entry = item if isinstance(item, Entry) else item[1]
        for kind, groups, prior in _replicates(entry, policy):
            moments = Moments.of(groups)
            squares, df = Slope.fit(moments, prior, policy).residual(moments)
            if df > 0:
                found.setdefault(kind, []).append((squares / df, df))
    priors = {}
    for kind, spreads in found.items():
        if len(spreads) >= policy.min_pool_pairs:
            variances, dfs = zip(*spreads, strict=True)
            priors[kind] = fit_prior(variances, dfs, policy)
    return Noise(MappingProxyType(priors))


def _replicates(entry: Entry, policy: Policy) -> Iterable[tuple[str, list[list[Pair]], SlopePrior]]:
    """Kind -> figures and sentinels of the entry's processes, in groups of replicates; and how they may hang together.

    Replicates ran on one device; where the sentinel matters, also with one version of what fixes it. Without it, its
    logarithm counts as 0.
    """
    timed = [p for p in entry.processes if p.latency_low_ms is not None]
    kind = LATENCY_FP32 if entry.setup.precision == "fp32" else LATENCY
    times = [(p, math.log(steady_ms(p))) for p in timed]
    yield from _with_and_without_sentinel(kind, times, policy.latency_slope)
    yield SENTINEL, _grouped((fixes_sentinel(p), math.log(p.sentinel_ms), 0.0) for p in timed if p.sentinel_ms), _FLAT
    if entry.setup.precision != "fp32":
        ratios = [(p, -math.log(p.speedup)) for p in entry.processes if p.speedup and p.speedup_low is not None]
        yield from _with_and_without_sentinel(SPEEDUP, ratios, policy.speedup_slope)


def _with_and_without_sentinel(
    kind: str, figures: list[tuple[Estimates, float]], prior: SlopePrior
) -> Iterable[tuple[str, list[list[Pair]], SlopePrior]]:
    devices = kind != SPEEDUP  # two cards differ in their times, not in their ratios
    yield kind, _grouped((p.device_uuid if devices else None, y, 0.0) for p, y in figures), prior
    known = [(p, y, math.log(p.sentinel_ms)) for p, y in figures if p.sentinel_ms]
    yield kind + GIVEN_SENTINEL, _grouped((fixes_sentinel(p), y, x) for p, y, x in known), prior


def fixes_sentinel(estimates: Estimates) -> tuple[str | None, ...]:
    """What the sentinel's time depends on besides the machine's pace."""
    return (estimates.device_uuid, *(estimates.versions.get(name) for name in ("torch", "pytest-vq")))


def _grouped(keyed: Iterable[tuple[Any, float, float]]) -> list[list[Pair]]:
    groups: dict[Any, list[Pair]] = {}
    for key, figure, sentinel in keyed:
        groups.setdefault(key, []).append((figure, sentinel))
    return list(groups.values())


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


def judge(
    effect: Any,
    least: Any,
    most: Any,
    error: Any,
    sigma: Any,
    df: Any,
    tolerance: float,
    resolution: float,
    alphas: tuple[float, float],
    policy: Policy = DEFAULT,
) -> Judgement:
    """One look at one comparison: mean ``effect`` with standard ``error`` on ``df``; logs, positive = worse.

    ``least`` and ``most`` are the best and worst fresh process's own effects: each must confirm a change, by half of
    what is worth failing for and by the ``sigma`` of one process, for the change to count. ``alphas`` are the
    one-sided errors of finding a change and of excluding the resolution.
    """
    import numpy as np

    critical = error * quantile(1 - alphas[0], df)
    worth = math.log1p(tolerance)
    confirming = np.maximum(policy.confirmation * worth, policy.confirmation_sigmas * sigma)
    fails = (effect > critical) & (effect >= worth) & (least >= confirming)
    improves = (effect < -critical) & (effect <= -worth) & (most <= -confirming)
    passes = effect + error * quantile(1 - alphas[1], df) < math.log1p(resolution)
    return Judgement(fails, improves, passes, critical)


def quantile(probability: float, df: Any) -> Any:
    """Student's t quantile; normal for infinite ``df``."""
    from scipy.special import stdtrit

    return stdtrit(df, probability)
