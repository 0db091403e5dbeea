"""How well a percentile, or a difference of two accuracies, is known from what was measured. Pure.

Every bound here is a 95 % one: of a percentile one-sided (its upper bound decides that a limit holds, its lower one
that it does not), of an accuracy's difference two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pytest_vq.schema.record import Record

_ERROR = 0.05
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A figure with its 95 % bounds, in its own unit."""

    value: float
    low: float
    high: float


def samples_needed(share: float) -> int:
    """The fewest samples whose largest is an upper 95 % bound of the ``share`` quantile: 299 for 0.99, 598 for 0.995.

    All n samples lie below the quantile with a chance of share^n, which must be below 5 %.
    """
    least = math.floor(math.log(_ERROR) / math.log(share))
    return least if share**least < _ERROR else least + 1


def percentile_bounds(times: Sequence[float], share: float) -> Bounded | None:
    """The ``share`` quantile of ``times`` with its bounds, in their unit; None of fewer than `samples_needed`.

    Order statistics (Conover, Practical Nonparametric Statistics, 3.2). The number of samples above the quantile is
    binomial, whatever their distribution, so the sample with so few above it that no more than 5 % of such numbers are
    as small is an upper bound. The requests are taken as independent.
    """
    import numpy as np
    from scipy.special import bdtr

    n = len(times)
    if n < samples_needed(share):
        return None
    chances = bdtr(np.arange(n + 1), n, 1 - share)  # of that many samples, or fewer, above the quantile
    above_high = int(np.searchsorted(chances, _ERROR, side="right")) - 1
    above_low = int(np.searchsorted(chances, 1 - _ERROR, side="left"))
    ordered = np.sort(np.asarray(times, dtype=float))
    low = ordered[max(n - above_low, 1) - 1]
    return Bounded(float(np.quantile(ordered, share)), float(low), float(ordered[n - above_high - 1]))


def accuracy_difference(one: Record, other: Record) -> Bounded | None:
    """The accuracy of ``one`` less that of ``other``, a fraction; None where either has no labelled images.

    Where both rows say which images they had right, the same images are compared with one another (Agresti and Min
    2005, "Simple improved confidence intervals for comparing matched proportions"); else the two are taken as
    independent draws (Agresti and Caffo 2000), whose interval is wider.
    """
    figures = (one.fidelity, other.fidelity)
    accuracies = [f.accuracy for f in figures if f.accuracy is not None]
    numbers = [f.labelled_images for f in figures if f.labelled_images]
    if len(accuracies) < 2 or len(numbers) < 2:
        return None
    difference = accuracies[0] - accuracies[1]
    bits = [r.right_answers for r in (one, other) if r.right_answers is not None]
    if len(bits) == 2 and numbers[0] == numbers[1]:
        centre, error = _matched(int(bits[0], 16), int(bits[1], 16), numbers[0])
    else:
        centre, error = _independent(accuracies, numbers)
    # An adjusted interval is not centred on the figure itself, which must not fall outside it.
    return Bounded(difference, min(centre - _Z * error, difference), max(centre + _Z * error, difference))


def _matched(one: int, other: int, images: int) -> tuple[float, float]:
    """Half an image is added to each of the four kinds: right in both, in one, in the other, in neither."""
    gained, lost, total = (one & ~other).bit_count() + 0.5, (other & ~one).bit_count() + 0.5, images + 2
    centre = (gained - lost) / total
    return centre, math.sqrt(((gained + lost) / total - centre**2) / total)


def _independent(accuracies: Sequence[float], numbers: Sequence[int]) -> tuple[float, float]:
    """An image of each kind, right and wrong, is added to both."""
    shares = [(a * n + 1) / (n + 2) for a, n in zip(accuracies, numbers, strict=True)]
    variances = [p * (1 - p) / (n + 2) for p, n in zip(shares, numbers, strict=True)]
    return shares[0] - shares[1], math.sqrt(sum(variances))
