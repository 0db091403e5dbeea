"""How noisy processes are, learnt over all pairs of a device. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pytest_vq.gate.covariance import Moments, Pair, Slope
from pytest_vq.gate.policy import DEFAULT, Policy, SlopePrior
from pytest_vq.gate.stats import Prior, fit_prior, scatter
from pytest_vq.schema.estimates import Entry, Estimates

LATENCY, LATENCY_FP32, SPEEDUP, SENTINEL = "latency", "latency of fp32", "speedup", "sentinel"
GIVEN_SENTINEL = " given the sentinel"
_FLAT = SlopePrior(0.0, 1.0)  # of what follows nothing


@dataclass(frozen=True, slots=True)
class Noise:
    """What a device's baselines teach about noise: kind of metric -> prior; a kind too little is known of is absent."""

    priors: Mapping[str, Prior] = field(default_factory=lambda: MappingProxyType({}))
    cards: Prior | None = None  # of the variance between cards of one model; None where baselines hold one card only

    def prior(self, kind: str) -> Prior | None:
        """The prior of ``kind``; fp32's falls back to that of the other precisions."""
        return self.priors.get(kind) or self.priors.get(kind.replace(LATENCY_FP32, LATENCY))


def steady_ms(estimates: Estimates) -> float:
    """The estimate that is steadiest between processes, in milliseconds: the 10 % quantile, else the median."""
    return estimates.latency_ms if estimates.latency_q10_ms is None else estimates.latency_q10_ms


def learn_noise(entries: Iterable[Entry], policy: Policy = DEFAULT) -> Noise:
    """The pool: per kind of timed metric, the prior of the between-process variance over a device's pairs.

    ``entries`` are all baselines of one device. Kinds with fewer than ``policy.min_pool_pairs`` replicated pairs are
    left out (their pairs are then judged on their own, or as uncalibrated).
    """
    found: dict[str, list[tuple[float, float]]] = {}
    entries = list(entries)
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
    kind = LATENCY_FP32 if entry.setup.is_reference else LATENCY
    times = [(p, math.log(steady_ms(p))) for p in timed]
    yield from _with_and_without_sentinel(kind, times, policy.latency_slope)
    yield SENTINEL, _grouped((fixes_sentinel(p), math.log(p.sentinel_ms), 0.0) for p in timed if p.sentinel_ms), _FLAT
    if not entry.setup.is_reference:
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
