"""The decision between two environments measured side by side, in alternating processes. Pure.

Each round ran both sides next to each other, so the machine's drift cancels from the round's ratio; the ratios of the
rounds are the replicates, their variance moderated over all pairs of the comparison. The number of rounds is fixed
beforehand: there is one look and one reference, and the whole error of the suite goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_vq.gate import agreement, bounds, stats
from pytest_vq.gate.comparison import moderated
from pytest_vq.gate.noise import LATENCY, MEDIAN, SPEEDUP, STEADY
from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import TOO_FEW
from pytest_vq.gate.stats import Effect, Limits, Prior
from pytest_vq.schema.estimates import Anchor, Entry, Estimates
from pytest_vq.schema.figures import present
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import MetricVerdict, Status, Tolerances, Verdict
from pytest_vq.wording import count, differences, interval, milliseconds, percent, plain_percent, times

MIN_ROUNDS = 3
_READINGS = {reading.name: reading for reading in (STEADY, MEDIAN)}


@dataclass(frozen=True, slots=True)
class Sides:
    """One pair on both sides: ``a[i]`` and ``b[i]`` are estimates of processes that ran next to each other."""

    setup: Setup
    a: tuple[Estimates, ...]
    b: tuple[Estimates, ...]
    min_sqnr_db: float | None = None
    disturbance: str | None = None


def decide_paired(
    pairs: Mapping[CaseId, Sides], tolerances: Tolerances | None = None, policy: Policy = DEFAULT
) -> dict[CaseId, Verdict]:
    """The verdict on side B of every pair, by id, with side A as its baseline.

    Raises ValueError where a pair has fewer than three rounds, or sides of unequal length.
    """
    for name, sides in pairs.items():
        if len(sides.a) != len(sides.b) or len(sides.a) < MIN_ROUNDS:
            raise ValueError(f"{name}: {len(sides.a)} and {len(sides.b)} processes; need {MIN_ROUNDS} rounds of both")
    # With a fixed number of rounds there is no early look that would need every process to confirm it.
    policy = replace(policy, confirmation=0.0, confirmation_sigmas=-math.inf)
    priors = {metric: _prior(metric, pairs.values(), policy) for metric in (LATENCY, MEDIAN.name, SPEEDUP)}
    terms = _Terms(tolerances or Tolerances(), policy, len(pairs))
    return {name: _decide(sides, priors, terms) for name, sides in pairs.items()}


@dataclass(frozen=True, slots=True)
class _Terms:
    """What holds for every pair of one comparison."""

    tolerances: Tolerances
    policy: Policy
    comparisons: int


def _decide(sides: Sides, priors: Mapping[str, Prior], terms: _Terms) -> Verdict:
    tolerances, policy = terms.tolerances, terms.policy
    entry = Entry(sides.setup, Anchor(sides.a, "side A", sides.a[-1].date_utc), sides.a)
    question = Question(sides.b, sides.setup, (entry,), tolerances=tolerances, min_sqnr_db=sides.min_sqnr_db)
    question = replace(question, comparisons=terms.comparisons)
    found = agreement.lower_bounds(question) + agreement.changes(question, entry)
    found += [_timed(metric, sides, priors[metric], terms) for metric in _metrics(sides)]
    memory = bounds.memory(sides.b, entry, tolerances, policy)
    found += [verdict for verdict in (memory, bounds.model_size(sides.b, entry, tolerances, policy)) if verdict]
    verdict = Verdict.of(found)
    differs = differences(sides.a[-1], sides.b[-1])
    if verdict.status is Status.PASS or not differs:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; differs: {differs}")


def _metrics(sides: Sides) -> tuple[str, ...]:
    has_speedup = not (sides.setup.is_reference or sides.setup.is_callable)
    return (LATENCY, MEDIAN.name, SPEEDUP) if has_speedup else (LATENCY, MEDIAN.name)


def _log(metric: str, estimates: Estimates) -> float | None:
    """The figure's logarithm, positive = slower; None where this process has too few samples."""
    if metric in _READINGS:
        return None if estimates.latency_low_ms is None else math.log(present(_READINGS[metric].ms(estimates)))
    has_interval = estimates.speedup is not None and estimates.speedup_low is not None
    return -math.log(present(estimates.speedup)) if has_interval else None


def _effects(metric: str, sides: Sides) -> list[float] | None:
    """The change of each round, in logs; None where one of its processes has no estimate."""
    logs = [(_log(metric, a), _log(metric, b)) for a, b in zip(sides.a, sides.b, strict=True)]
    known = [b - a for a, b in logs if a is not None and b is not None]
    return known if len(known) == len(logs) else None


def _prior(metric: str, pairs: Iterable[Sides], policy: Policy) -> Prior:
    spreads = []
    for sides in pairs:
        effects = _effects(metric, sides) if metric in _metrics(sides) else None
        if effects:
            squares, df = stats.scatter([effects])
            spreads.append((squares / df, df))
    if len(spreads) < policy.min_pool_pairs:
        sigma = policy.default_typical_sigma if metric == MEDIAN.name else policy.default_prior_sigma
        return Prior(policy.default_prior_df, 2 * sigma**2, 0)
    variances, dfs = zip(*spreads, strict=True)
    return stats.fit_prior(variances, dfs, policy)


def _timed(metric: str, sides: Sides, prior: Prior, terms: _Terms) -> MetricVerdict:
    tolerances, policy = terms.tolerances, terms.policy
    effects = _effects(metric, sides)
    if sides.disturbance is not None or effects is None:
        why = TOO_FEW if sides.disturbance is None else f"cannot be judged: {sides.disturbance}"
        return MetricVerdict(metric, Status.INCONCLUSIVE, f"{metric}: {why}")
    marked = tolerances.latency_tolerance if metric in _READINGS else tolerances.speedup_tolerance
    usual = policy.latency_tolerance if metric in _READINGS else policy.speedup_tolerance
    tolerance = usual if marked is None else marked
    resolution = max(policy.resolution, tolerance)
    effect = sum(effects) / len(effects)
    variance, df = moderated(prior, [effects], policy)
    error = math.sqrt(variance / len(effects))
    share = policy.typical_share if metric == MEDIAN.name else policy.steady_share
    limits = Limits(tolerance, resolution, policy.suite_error * share / terms.comparisons, policy.pass_error)
    found = stats.judge(Effect(effect, error, df, min(effects), max(effects), math.sqrt(variance)), limits, policy)
    half, margin = (error * float(stats.quantile(p, df)) for p in (0.975, policy.power))
    change, low, high = (math.expm1(effect + step) for step in (0.0, -half, half))
    verdict = MetricVerdict(
        metric=metric,
        status=_typical_status(found, effect, limits, policy) if metric == MEDIAN.name else _status(found),
        reason="",
        baseline=_typical(metric, sides.a),
        current=_typical(metric, sides.b),
        effect=change,
        effect_low=low,
        effect_high=high,
        tolerance=tolerance,
        detectable=math.expm1(max(math.log1p(tolerance), float(found.critical)) + margin),
    )
    return replace(verdict, reason=_reason(verdict, len(effects), resolution))


def _reason(verdict: MetricVerdict, rounds: int, resolution: float) -> str:
    reading = _READINGS.get(verdict.metric)
    words, shown, note = (reading.words, milliseconds, "") if reading else (SPEEDUP, times, " time against FP32")
    text = (
        f"{words} {shown(present(verdict.baseline))} → {shown(present(verdict.current))} "
        f"({percent(present(verdict.effect))}{note}, "
        f"{interval(present(verdict.effect_low), present(verdict.effect_high))}), "
        f"tolerance {plain_percent(present(verdict.tolerance))}, {count(rounds, 'round')} side by side"
    )
    if verdict.status is not Status.INCONCLUSIVE:
        return text
    seen = f"the smallest this comparison could have seen is {plain_percent(present(verdict.detectable))}"
    return f"{text}: a slowdown of {plain_percent(resolution)} is neither shown nor excluded, {seen}"


def _status(found: stats.Judgement) -> Status:
    if found.fails:
        return Status.FAIL
    if found.improves:
        return Status.IMPROVED
    return Status.PASS if found.passes else Status.INCONCLUSIVE


def _typical_status(found: stats.Judgement, effect: float, limits: Limits, policy: Policy) -> Status:
    """Of a median: it fails by its own noise, or blocks a PASS where it is much worse, and proves nothing else."""
    if found.fails:
        return Status.FAIL
    blocks = effect > math.log1p(max(policy.typical_resolution, limits.tolerance))
    return Status.INCONCLUSIVE if blocks else Status.PASS


def _typical(metric: str, group: Sequence[Estimates]) -> float:
    figures = [_READINGS[metric].ms(e) if metric in _READINGS else e.speedup for e in group]
    return math.exp(sum(math.log(present(figure)) for figure in figures) / len(figures))
