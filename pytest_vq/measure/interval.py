"""The interval of one process's median: how far its own samples pin it down, and no further."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_SAMPLES = 6  # two-sided 95 % needs (1/2)^(n-1) <= 0.05; below that no order statistics bound the median
MAX_AUTOCORRELATION = 0.95  # beyond it the effective sample size is a guess


def lag1_autocorrelation(values: Sequence[float]) -> float:
    """The lag-1 autocorrelation of the ranks of ``values`` (in the order taken), clipped to [0, 0.95].

    Ranks, because one outlier hides any dependence in the raw values; corrected for the small-sample bias of
    -(1 + 4r)/n (Kendall 1954, Marriott and Pope 1954). Negative dependence is not taken as a gift.
    """
    series = np.asarray(values, dtype=float)
    n = series.size
    if n < MIN_SAMPLES:
        return 0.0
    ranks = np.empty(n)
    ranks[np.argsort(series, kind="stable")] = np.arange(n) - (n - 1) / 2
    raw = float(ranks[1:] @ ranks[:-1]) / float(ranks @ ranks)
    corrected = (n * raw + 1) / (n - 4) if raw > 0 else raw
    return min(max(corrected, 0.0), MAX_AUTOCORRELATION)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The distribution-free interval of the median of ``values``, in their unit; ``None`` below 6 samples.

    Order statistics at the ranks of the normal approximation to the binomial (Conover, Practical Nonparametric
    Statistics, 3.2), with the sample size replaced by n(1 - r)/(1 + r) for lag-1 autocorrelation r (Bayley and
    Hammersley 1946). Where fewer than 6 effective samples remain, the whole range: the widest these samples can give.
    """
    n = len(values)
    if n < MIN_SAMPLES:
        return None
    r = lag1_autocorrelation(values)
    effective = n * (1 - r) / (1 + r)
    half_ranks = NormalDist().inv_cdf(0.5 + confidence / 2) * 0.5 * n / math.sqrt(effective)
    rank = max(int((n + 1) / 2 - half_ranks), 1)
    ordered = np.partition(np.asarray(values, dtype=float), (rank - 1, n - rank))
    return float(ordered[rank - 1]), float(ordered[n - rank])
