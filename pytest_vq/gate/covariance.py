"""A timed figure given the sentinel's: how the one follows the other, learnt and taken out. Pure.

Analysis of covariance. A model's time follows the machine's pace by a share of its own: on a shared CPU by 0.4 to 0.8
of the sentinel's changes, so dividing by the sentinel would overdo it. The share is the slope of a regression within
groups of replicates, shrunk towards a prior as in ridge regression; what is not known of it widens the interval by the
square of how far the sentinel moved, so that a machine out of its usual range proves nothing.

All on logarithms; sums may be floats or numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vq.gate.policy import DEFAULT, Policy, SlopePrior

Pair = tuple[float, float]  # (log of the figure, log of the sentinel's time)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums of squares and products around the groups' means, and their degrees of freedom."""

    figure: Any
    product: Any
    sentinel: Any
    df: Any

    @classmethod
    def of(cls, groups: Iterable[Sequence[Pair]]) -> Moments:
        """The moments of ``groups`` of replicates."""
        figure = product = sentinel = 0.0
        df = 0
        for group in groups:
            if len(group) > 1:
                middle_y, middle_x = (sum(column) / len(group) for column in zip(*group, strict=True))
                figure += sum((y - middle_y) ** 2 for y, _ in group)
                product += sum((y - middle_y) * (x - middle_x) for y, x in group)
                sentinel += sum((x - middle_x) ** 2 for _, x in group)
                df += len(group) - 1
        return cls(figure, product, sentinel, df)


@dataclass(frozen=True, slots=True)
class Slope:
    """The share of the sentinel's changes that a figure follows, and what that is known from."""

    value: Any
    sentinel: Any  # sum of squares
    weight: float  # the prior's, in the unit of ``sentinel``
    prior_sd: float

    @classmethod
    def fit(cls, moments: Moments, prior: SlopePrior, policy: Policy = DEFAULT) -> Slope:
        """Ridge regression towards the prior's mean; its weight is right for a typical noise of the figure."""
        weight = (policy.default_prior_sigma / prior.sd) ** 2
        value = (moments.product + weight * prior.mean) / (moments.sentinel + weight)
        return cls(value, moments.sentinel, weight, prior.sd)

    def residual(self, moments: Moments) -> tuple[Any, Any]:
        """The sum of squares that the slope leaves, and its degrees of freedom."""
        squares = moments.figure - 2 * self.value * moments.product + self.value**2 * moments.sentinel
        return squares, moments.df - self.sentinel / (self.sentinel + self.weight)

    def variance(self, noise: Any) -> Any:
        """Of the slope's error, where ``noise`` is the variance of the figure: its own, and the prior's pull."""
        pull = (self.weight * self.prior_sd) ** 2
        return (noise * self.sentinel + pull) / (self.sentinel + self.weight) ** 2
