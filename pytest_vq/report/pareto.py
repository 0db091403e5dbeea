"""Which pairs of a model no other beats: latency (or throughput) against peak memory against fidelity. Pure.

Pairs of different models are not placed together: fidelity is that to a model's own FP32, and says nothing of which
model answers better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_vq.report.candidates import Candidate, by_model, candidates_of
from pytest_vq.report.uncertainty import accuracy_difference
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.results import Row
from pytest_vq.wording import listed

Costs = tuple[float, float, float]
# What the words of `Standing.shown` mean, for whatever shows them.
STANDING_WORDS = (
    "best where no other scheme of the model is at least as good in latency, peak memory and fidelity, and clearly "
    "better in one; of two that tie, whatever one is better in lies within the noise"
)
_NAMED = 3  # other pairs, of which any number may be meant
SPEED, MEMORY, FIDELITY = range(3)


@dataclass(frozen=True, slots=True)
class Axes:
    """What pairs are placed by. Every cost is lower for the better pair."""

    by_throughput: bool = False  # speed is images a second, back to back; else the median time of a request
    by_accuracy: bool = False  # fidelity is accuracy; else SQNR against FP32, which is lossless

    @property
    def names(self) -> tuple[str, str, str]:
        """Of the three axes."""
        speed = "throughput" if self.by_throughput else "latency"
        return speed, "peak memory", "accuracy" if self.by_accuracy else "SQNR"

    def speed_cost(self, candidate: Candidate) -> float | None:
        """Milliseconds a request, or an image; None where it was not measured."""
        timing = candidate.record.timing
        if not self.by_throughput:
            return timing.latency_ms
        return 1000 / timing.throughput_ips if timing.throughput_ips else None

    def fidelity_cost(self, candidate: Candidate) -> float | None:
        """The share of wrong answers, or the noise's amplitude over the signal's; None where it was not measured."""
        fidelity = candidate.record.fidelity
        if self.by_accuracy:
            return None if fidelity.accuracy is None else 1 - fidelity.accuracy
        if candidate.is_reference:
            return 0.0
        return None if fidelity.sqnr_db is None else 10.0 ** (-fidelity.sqnr_db / 20)

    def costs(self, candidate: Candidate) -> Costs | None:
        """On all three axes; None where one was not measured."""
        found = [self._cost(candidate, axis) for axis in (SPEED, MEMORY, FIDELITY)]
        known = [cost for cost in found if cost is not None]
        return (known[0], known[1], known[2]) if len(known) == len(found) else None

    def lacking(self, candidate: Candidate) -> list[str]:
        """The names of the axes on which ``candidate`` was not measured."""
        return [name for axis, name in enumerate(self.names) if self._cost(candidate, axis) is None]

    def clearly_better(self, one: Candidate, other: Candidate, axis: int) -> bool:
        """Whether ``one`` is better on ``axis``, so that the 95 % intervals do not overlap."""
        mine, theirs = self._cost(one, axis), self._cost(other, axis)
        if mine is None or theirs is None or mine >= theirs:
            return False
        if axis == SPEED and not self.by_throughput:
            return _clearly_faster(one, other)
        if axis == FIDELITY and self.by_accuracy:
            difference = accuracy_difference(one.record, other.record)
            return difference is not None and difference.low > 0
        return True

    def _cost(self, candidate: Candidate, axis: int) -> float | None:
        if axis == SPEED:
            return self.speed_cost(candidate)
        return self.fidelity_cost(candidate) if axis == FIDELITY else candidate.record.memory.peak_memory_bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pair stands among those of its model."""

    candidate: Candidate
    is_best: bool  # no other is at least as good on every axis, and clearly better on one
    ties: tuple[Candidate, ...]  # of the best, those that this one is clearly better than on no axis
    behind: tuple[Candidate, ...]  # of the best, those that beat it
    lacking: tuple[str, ...]  # axes on which it was not measured: it is not placed

    @property
    def shown(self) -> str:
        """``best``, ``best, tie with fp16``, ``behind fp16``, or why it is not placed."""
        if self.lacking:
            return f"not placed: {' and '.join(self.lacking)} not measured"
        if not self.is_best:
            return f"behind {_listed(self.behind)}"
        return f"best, tie with {_listed(self.ties)}" if self.ties else "best"


def _listed(candidates: Sequence[Candidate]) -> str:
    return listed([candidate.short_name for candidate in candidates], _NAMED)


def axes_of(candidates: Sequence[Candidate], *, by_throughput: bool = False) -> Axes:
    """The axes of one model's pairs: accuracy where each of them was measured on labelled images."""
    labelled = bool(candidates) and all(c.record.fidelity.accuracy is not None for c in candidates)
    return Axes(by_throughput, labelled)


def place(candidates: Sequence[Candidate], axes: Axes) -> tuple[Standing, ...]:
    """One model's pairs, each with its standing.

    To beat another takes figures that are as good on every axis, and one that is clearly better: figures alone order
    the pairs, so that there is always a best one, and noise alone puts none behind.
    """
    placed = [(candidate, costs) for candidate in candidates if (costs := axes.costs(candidate)) is not None]
    beaten_by = {
        one.name: [other.name for other, theirs in placed if _beats((other, theirs), (one, mine), axes)]
        for one, mine in placed
    }
    best = [candidate for candidate, _ in placed if not beaten_by[candidate.name]]
    return tuple(_standing(candidate, best, beaten_by.get(candidate.name), axes) for candidate in candidates)


def standings_of(rows: Sequence[Row]) -> Mapping[CaseId, Standing]:
    """The standing of each pair in ``rows`` among its model's, by latency: what charts and tables show of it."""
    groups = by_model(candidates_of(rows)).values()
    return {
        standing.candidate.record.case_id: standing for group in groups for standing in place(group, axes_of(group))
    }


def front(candidates: Sequence[Candidate], axes: Axes) -> tuple[Candidate, ...]:
    """The best of ``candidates``."""
    return tuple(standing.candidate for standing in place(candidates, axes) if standing.is_best)


def _clearly_faster(one: Candidate, other: Candidate) -> bool:
    """Whether the medians' intervals lie apart. A pair without one has its figure, a disturbed one decides nothing."""
    if one.record.disturbance is not None or other.record.disturbance is not None:
        return False
    (_, end), (start, _) = _interval(one), _interval(other)
    return end < start


def _interval(candidate: Candidate) -> tuple[float, float]:
    latency_ms = candidate.record.timing.latency_ms
    return candidate.latency_interval_ms or (latency_ms, latency_ms)


def _beats(one: tuple[Candidate, Costs], other: tuple[Candidate, Costs], axes: Axes) -> bool:
    no_worse = all(mine <= theirs for mine, theirs in zip(one[1], other[1], strict=True))
    return no_worse and any(axes.clearly_better(one[0], other[0], axis) for axis in (SPEED, MEMORY, FIDELITY))


def _standing(candidate: Candidate, best: Sequence[Candidate], beaten_by: Sequence[str] | None, axes: Axes) -> Standing:
    if beaten_by is None:
        return Standing(candidate, False, (), (), tuple(axes.lacking(candidate)))
    if beaten_by:
        return Standing(candidate, False, (), tuple(c for c in best if c.name in beaten_by), ())
    ties = [
        other
        for other in best
        if other.name != candidate.name
        and not any(axes.clearly_better(candidate, other, axis) for axis in (SPEED, MEMORY, FIDELITY))
    ]
    return Standing(candidate, True, tuple(ties), (), ())
