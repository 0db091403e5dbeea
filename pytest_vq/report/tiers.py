"""The three tiers of a model: fast, balanced and accurate, among the pairs that hold every limit. Pure.

- fast: the lowest latency (the highest throughput, where that is what matters);
- accurate: the highest fidelity, and of those that the noise cannot tell from it the fastest;
- balanced: the Pareto-best pair nearest to the ideal one. Each axis (latency, peak memory, and fidelity as the share of
  wrong answers or the noise's amplitude over the signal's) runs from 0, the best of the Pareto-best pairs, to 1, the
  worst of them; the distance is the Euclidean one from 0 on all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_vq.report.candidates import Candidate
from pytest_vq.report.pareto import FIDELITY, SPEED, Axes, front


@dataclass(frozen=True, slots=True)
class Pick:
    """The pair of one tier, and those that the noise cannot tell from it."""

    candidate: Candidate
    ties: tuple[Candidate, ...] = ()
    distance: float | None = None  # of the balanced one from the ideal, 0 ... √3

    @property
    def shown(self) -> str:
        """``net-int8``, or ``net-int8 (tie with fp16)``; pairs of other models by their whole names."""
        model = self.candidate.model
        names = [tied.short_name if tied.model == model else tied.name for tied in self.ties]
        return self.candidate.name + (f" (tie with {', '.join(names)})" if names else "")


@dataclass(frozen=True, slots=True)
class Tiers:
    """One model's tiers; None where no pair that holds has the figures for it."""

    model: str
    fast: Pick | None
    balanced: Pick | None
    accurate: Pick | None

    @property
    def coincidence(self) -> str:
        """Which tiers are one and the same pair, in words; empty where none are."""
        tiers = {"fast": self.fast, "balanced": self.balanced, "accurate": self.accurate}
        groups: dict[str, list[str]] = {}
        for tier, pick in tiers.items():
            if pick is not None:
                groups.setdefault(pick.candidate.name, []).append(tier)
        return ", ".join(f"{' = '.join(same)}" for same in groups.values() if len(same) > 1)


def tiers_of(model: str, holding: Sequence[Candidate], axes: Axes) -> Tiers:
    """The tiers of ``model`` among ``holding``, its pairs that hold every limit."""
    return Tiers(model, fastest(holding, axes), balanced(holding, axes), most_faithful(holding, axes))


def fastest(candidates: Sequence[Candidate], axes: Axes) -> Pick | None:
    """The one of the lowest speed cost; None where it was measured of none."""
    known = [(cost, c) for c in candidates if (cost := axes.speed_cost(c)) is not None]
    if not known:
        return None
    best = min(known, key=lambda found: (found[0], found[1].name))[1]
    return Pick(best, _ties(best, [c for _, c in known], axes, SPEED))


def smallest(candidates: Sequence[Candidate]) -> Pick | None:
    """The one of the lowest peak memory, which no interval blurs; None where it was measured of none."""
    peaks = [(peak, c.name, c) for c in candidates if (peak := c.record.memory.peak_memory_bytes) is not None]
    if not peaks:
        return None
    least, _, best = min(peaks, key=lambda found: found[:2])
    return Pick(best, tuple(c for peak, _, c in peaks if peak == least and c is not best))


def most_faithful(candidates: Sequence[Candidate], axes: Axes) -> Pick | None:
    """The fastest of those that the noise cannot tell from the highest fidelity; None where it was measured of none."""
    known = [(cost, c) for c in candidates if (cost := axes.fidelity_cost(c)) is not None]
    if not known:
        return None
    highest = min(known, key=lambda found: (found[0], found[1].name))[1]
    equal = [c for _, c in known if not axes.clearly_better(highest, c, FIDELITY)]
    quickest = fastest(equal, axes)
    best = highest if quickest is None else quickest.candidate
    return Pick(best, tuple(c for c in equal if c is not best))


def balanced(candidates: Sequence[Candidate], axes: Axes) -> Pick | None:
    """The Pareto-best of ``candidates`` with the smallest normalised distance; the faster one of two alike."""
    best = front(candidates, axes)
    costs = [found for candidate in best if (found := axes.costs(candidate)) is not None]
    if not costs:
        return None
    low = [min(column) for column in zip(*costs, strict=True)]
    high = [max(column) for column in zip(*costs, strict=True)]
    scaled = [
        [
            (cost - least) / (most - least) if most > least else 0.0
            for cost, least, most in zip(row, low, high, strict=True)
        ]
        for row in costs
    ]
    ranked = [(math.hypot(*row), cost, candidate) for row, cost, candidate in zip(scaled, costs, best, strict=True)]
    distance, _, nearest = min(ranked, key=lambda entry: (entry[0], entry[1], entry[2].name))
    return Pick(nearest, distance=distance)


def _ties(best: Candidate, others: Sequence[Candidate], axes: Axes, axis: int) -> tuple[Candidate, ...]:
    return tuple(c for c in others if c is not best and not axes.clearly_better(best, c, axis))
