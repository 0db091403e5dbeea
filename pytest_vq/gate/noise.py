"""How noisy processes are, learnt over all pairs of a device. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pytest_vq.gate.covariance import Moments, Pair, Slope
from pytest_vq.gate.policy import DEFAULT, Policy, SlopePrior
from pytest_vq.gate.stats import Prior, fit_prior, scatter
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup

SPEEDUP, DEVICE_SPEEDUP = "speedup", "device speedup"
SENTINEL, SENTINEL_MEDIAN = "sentinel", "sentinel median"
GIVEN_SENTINEL = " given the sentinel"
_OF_FP32 = " of fp32"
_OF_CALLABLES = " of callables"
_FLAT = SlopePrior(0.0, 1.0)  # of what follows nothing


@dataclass(frozen=True, slots=True)
class Pace:
    """One way to read the sentinel's time, in milliseconds: how fast the machine was."""

    kind: str  # of its noise
    ms: Callable[[Estimates], float | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a process's absolute time, in milliseconds, and the sentinel's time that goes with it."""

    name: str  # of the metric, and of its kind of noise
    words: str  # what it is, in a reason
    ms: Callable[[Estimates], float | None]
    pace: Pace

    def kind(self, setup: Setup) -> str:
        """The kind of its noise: FP32's is its own, and so is that of callables, which may do anything."""
        if setup.is_callable:
            return self.name + _OF_CALLABLES
        return self.name + (_OF_FP32 if setup.is_reference else "")


def steady_ms(estimates: Estimates) -> float:
    """The estimate that is steadiest between processes, in milliseconds: the 10 % quantile, else the median."""
    return estimates.latency_ms if estimates.latency_q10_ms is None else estimates.latency_q10_ms


STEADY_PACE = Pace(SENTINEL, lambda e: e.sentinel_ms)
MEDIAN_PACE = Pace(SENTINEL_MEDIAN, lambda e: e.sentinel_median_ms)
STEADY = Reading("latency", "latency (10 % quantile)", steady_ms, STEADY_PACE)
MEDIAN = Reading("median latency", "median latency", lambda e: e.latency_ms, MEDIAN_PACE)
P95 = Reading("p95 latency", "p95 latency", lambda e: e.latency_p95_ms, MEDIAN_PACE)
READINGS = (STEADY, MEDIAN, P95)
LATENCY, LATENCY_FP32, LATENCY_CALLABLES = (STEADY.name + whose for whose in ("", _OF_FP32, _OF_CALLABLES))


@dataclass(frozen=True, slots=True)
class Noise:
    """What a device's baselines teach about noise: kind of metric -> prior; a kind too little is known of is absent."""

    priors: Mapping[str, Prior] = field(default_factory=lambda: MappingProxyType({}))
    cards: Prior | None = None  # of the variance between cards of one model; None where baselines hold one card only

    def prior(self, kind: str) -> Prior | None:
        """The prior of ``kind``; fp32's falls back to that of the other precisions.

        That of callables falls back to none: how much forwards of models vary says little of any other code.
        """
        return self.priors.get(kind) or self.priors.get(kind.replace(_OF_FP32, ""))


def learn_noise(entries: Iterable[Entry], policy: Policy = DEFAULT) -> Noise:
    """The pool: per kind of timed metric, the prior of the between-process variance over a device's pairs.

    ``entries`` are all baselines of one device; times under load are another matter, and teach nothing here. Kinds with
    fewer than ``policy.min_pool_pairs`` replicated pairs are left out (their pairs are then judged on their own, or as
    uncalibrated).
    """
    found: dict[str, list[tuple[float, float]]] = {}
    entries = [entry for entry in entries if entry.setup.serving is None]
    cards = _learn_cards(entries)
    for entry in entries:
        for kind, groups, prior in _replicates(entry, policy):
            moments = Moments.of(groups)
            squares, df = Slope.fit(moments, prior, policy).residual(moments)
            if df >= policy.min_learning_df:
                found.setdefault(kind, []).append((squares / df, df))
    priors = {}
    for kind, spreads in found.items():
        if len(spreads) >= policy.min_pool_pairs:
            variances, dfs = zip(*spreads, strict=True)
            priors[kind] = fit_prior(variances, dfs, policy)
    return Noise(MappingProxyType(priors), cards)


def _learn_cards(entries: Sequence[Entry]) -> Prior | None:
    """The variance between the cards of a device, of logs of absolute time.

    A card is fast or slow in all its pairs: their variances are averaged, and have one pair's degrees of freedom.
    """
    spreads: list[tuple[float, int]] = []
    for entry in entries:
        cards: dict[str, list[float]] = {}
        for process in entry.processes:
            if process.latency_low_ms is not None:
                cards.setdefault(process.device_uuid, []).append(math.log(steady_ms(process)))
        if len(cards) > 1:
            means = [sum(logs) / len(logs) for logs in cards.values()]
            spreads.append(scatter([means]))
    if not spreads:
        return None
    variance = sum(squares / df for squares, df in spreads) / len(spreads)
    return Prior(df=float(max(df for _, df in spreads)), variance=variance, pairs=len(spreads))


def _replicates(entry: Entry, policy: Policy) -> Iterable[tuple[str, list[list[Pair]], SlopePrior]]:
    """Kind -> figures and sentinels of the entry's processes, in groups of replicates; and how they may hang together.

    Replicates ran on one device; where the sentinel matters, also with one version of what fixes it. Without it, its
    logarithm counts as 0.
    """
    timed = [p for p in entry.processes if p.latency_low_ms is not None]
    for reading in READINGS:
        kind, prior = reading.kind(entry.setup), policy.latency_slope
        read = [(p, reading.ms(p), reading.pace.ms(p)) for p in timed]
        figures = [(p, math.log(ms), pace) for p, ms, pace in read if ms]
        yield kind, _grouped((p.device_uuid, y, 0.0) for p, y, _ in figures), prior
        yield kind + GIVEN_SENTINEL, _given_sentinel(figures), prior
    for pace in (STEADY_PACE, MEDIAN_PACE):
        paces = [(p, pace.ms(p)) for p in timed]
        yield pace.kind, _grouped((fixes_sentinel(p), math.log(ms), 0.0) for p, ms in paces if ms), _FLAT
    if not entry.setup.is_reference:
        intervals = [p for p in entry.processes if p.speedup_low is not None]
        for kind, ratios in (
            (SPEEDUP, [(p, p.speedup) for p in intervals]),
            (DEVICE_SPEEDUP, [(p, p.device_speedup) for p in entry.processes]),
        ):
            logs = [(p, -math.log(ratio), p.sentinel_ms) for p, ratio in ratios if ratio]
            # Two cards differ in their times, not in their ratios.
            yield kind, _grouped((None, y, 0.0) for _, y, _ in logs), policy.speedup_slope
            yield kind + GIVEN_SENTINEL, _given_sentinel(logs), policy.speedup_slope


def _given_sentinel(figures: list[tuple[Estimates, float, float | None]]) -> list[list[Pair]]:
    return _grouped((fixes_sentinel(p), y, math.log(pace)) for p, y, pace in figures if pace)


def fixes_sentinel(estimates: Estimates) -> tuple[str | None, ...]:
    """What the sentinel's time depends on besides the machine's pace."""
    return (estimates.device_uuid, *(estimates.versions.get(name) for name in ("torch", "pytest-vq")))


def _grouped(keyed: Iterable[tuple[Any, float, float]]) -> list[list[Pair]]:
    groups: dict[Any, list[Pair]] = {}
    for key, figure, sentinel in keyed:
        groups.setdefault(key, []).append((figure, sentinel))
    return list(groups.values())
