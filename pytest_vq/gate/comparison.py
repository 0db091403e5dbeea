"""One timed metric of one pair against its references, whatever the metric: the comparison, and what it settles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_vq.gate import stats
from pytest_vq.gate.covariance import Moments, Pair, Slope
from pytest_vq.gate.policy import Policy, SlopePrior
from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import Effect, Limits, Prior
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import TO_KEEP_IT, count, interval, percent, plain_percent


@dataclass(frozen=True, slots=True)
class Metric:
    """How one timed metric reads its estimates. Logs are positive = worse."""

    name: str
    kind: str  # of noise
    log: Callable[[Estimates], float]
    half_width: Callable[[Estimates], float]  # of its 95 % interval within the process, in logs
    natural: Callable[[Sequence[Estimates]], float]  # the typical figure, for a reader
    shown: Callable[[float], str]
    tolerance: float | None  # the marker's
    tolerances: tuple[float, float]  # calibrated, uncalibrated
    slope: SlopePrior  # of the figure on the sentinel
    sentinel: Callable[[Estimates], float] | None = None  # log of its time; None where it says nothing here
    note: str = ""  # on the change, for a reader
    has_own_interval: bool = False  # whether ``half_width`` is of the very estimate that ``log`` reads

    def pairs(self, processes: Sequence[Estimates]) -> list[Pair]:
        """Every process's figure and sentinel, in logs."""
        return [(self.log(p), self.sentinel(p) if self.sentinel else 0.0) for p in processes]


@dataclass(frozen=True, slots=True)
class Scale:
    """How precisely a comparison is made, and by which limits."""

    variance: float  # between processes, of logs, given the sentinel
    df: float
    slope: Slope
    within: float  # variance that the processes' own intervals add to what is known from between them
    limits: Limits
    calibrated: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The fresh processes against one reference; effects in logs."""

    metric: Metric
    reference: tuple[Estimates, ...]
    label: str
    scale: Scale
    effect: float
    error: float
    judgement: stats.Judgement
    can_settle: bool  # whether the last look could exclude the resolution

    @property
    def worth_failing(self) -> bool:
        """Whether the estimate reaches the tolerance."""
        return self.effect >= math.log1p(self.scale.limits.tolerance)


def compare_with_reference(
    question: Question, metric: Metric, recent: Sequence[Estimates], reference: Sequence[Estimates], label: str = ""
) -> Comparison:
    """The fresh processes against ``reference``, with the noise that the ``recent`` processes show."""
    policy, scale = question.policy, _scale(question, metric, recent, reference)
    fresh, known = metric.pairs(question.candidates), metric.pairs(reference)
    base, pace = _mean(known)
    effects = [y - base - scale.slope.value * (x - pace) for y, x in fresh]
    effect, moved = sum(effects) / len(effects), _mean(fresh)[1] - pace
    fixed = scale.within + moved**2 * scale.slope.variance(scale.variance)
    error = math.sqrt(scale.variance * (1 / len(known) + 1 / len(fresh)) + fixed)
    found = Effect(effect, error, scale.df, min(effects), max(effects), math.sqrt(scale.variance))
    last = math.sqrt(scale.variance * (1 / len(known) + 1 / policy.max_looks) + fixed)
    reach = last * float(stats.quantile(1 - scale.limits.pass_error, scale.df))
    return Comparison(
        metric=metric,
        reference=tuple(reference),
        label=label,
        scale=scale,
        effect=effect,
        error=error,
        judgement=stats.judge(found, scale.limits, policy),
        can_settle=reach < math.log1p(scale.limits.resolution),
    )


def _mean(pairs: Sequence[Pair]) -> Pair:
    figures, sentinels = zip(*pairs, strict=True)
    return sum(figures) / len(pairs), sum(sentinels) / len(pairs)


def _scale(question: Question, metric: Metric, recent: Sequence[Estimates], reference: Sequence[Estimates]) -> Scale:
    policy, prior = question.policy, question.noise.prior(metric.kind)
    pooled = prior is not None and prior.df + len(recent) - 1 >= policy.min_error_df
    calibrated = pooled or len(recent) >= policy.min_processes
    tolerance = metric.tolerance
    if tolerance is None:
        tolerance = metric.tolerances[0 if calibrated else 1]
    resolution = max(policy.resolution, tolerance)
    moments = Moments.of([metric.pairs(recent), metric.pairs(question.candidates)])
    slope = Slope.fit(moments, metric.slope, policy)
    if calibrated:
        within = _excess(metric, recent, question.candidates)
        known = prior or Prior(policy.default_prior_df, policy.default_prior_sigma**2, 0)
        errors = policy.fail_error(question.comparisons, len(question.candidates)), policy.pass_error_per_look()
    else:
        within = _within(metric, reference) + _within(metric, question.candidates)
        typical = max(policy.uncalibrated_sigma**2, prior.variance if prior else 0.0)
        known = Prior(policy.default_prior_df, typical, 0)
        errors = policy.uncalibrated_error, policy.uncalibrated_error
    variance, df = stats.moderate(*slope.residual(moments), known.df, known.variance, policy)
    return Scale(float(variance), float(df), slope, within, Limits(tolerance, resolution, *errors), calibrated)


def moderated(prior: Prior, groups: Sequence[Sequence[float]], policy: Policy) -> tuple[float, float]:
    """The moderated variance of ``groups`` of logs, and its degrees of freedom."""
    squares, df = stats.scatter(groups)
    variance, total = stats.moderate(squares, df, prior.df, prior.variance, policy)
    return float(variance), float(total)


def _excess(metric: Metric, recent: Sequence[Estimates], fresh: Sequence[Estimates]) -> float:
    """The variance that fresh processes have beyond the baseline's: a noisier hour, by their own intervals."""
    if not metric.has_own_interval:
        return 0.0
    now, before = (_within(metric, group) * len(group) for group in (fresh, recent))
    return max(0.0, now - before) / len(fresh)


def _within(metric: Metric, processes: Sequence[Estimates]) -> float:
    """The variance that the processes' own 95 % intervals leave in their mean."""
    return sum((metric.half_width(p) / 1.96) ** 2 for p in processes) / len(processes) ** 2


def settle(question: Question, comparisons: Sequence[Comparison]) -> tuple[MetricVerdict, bool]:
    """The worse of the comparisons with the recent processes (first) and the anchor decides; and whether to look again.

    An anchor may rest on few processes: it fails on proof like the other, but what it leaves open blocks a PASS only
    by an estimate that would be worth failing for.
    """
    recent = comparisons[0]
    failing = [c for c in comparisons if c.judgement.fails]
    doubtful = [c for c in comparisons[1:] if c.worth_failing and not c.judgement.passes]
    improved = [c for c in comparisons if c.judgement.improves]
    if failing:
        status, chosen = Status.FAIL, failing[0]
    elif not (recent.judgement.passes or recent.judgement.improves):
        status, chosen = Status.INCONCLUSIVE, recent
    elif doubtful:
        status, chosen = Status.INCONCLUSIVE, doubtful[0]
    elif improved:
        status, chosen = Status.IMPROVED, improved[0]
    else:
        status, chosen = Status.PASS, recent
    return _verdict(question, status, chosen), not question.last_look and _needs_another_look(status, chosen)


def _needs_another_look(status: Status, chosen: Comparison) -> bool:
    """A FAIL must be confirmed; what is inconclusive is looked at again if it could still become PASS or FAIL."""
    if status is Status.INCONCLUSIVE:
        return chosen.can_settle or chosen.worth_failing
    return status is Status.FAIL


def _verdict(question: Question, status: Status, chosen: Comparison) -> MetricVerdict:
    metric, scale = chosen.metric, chosen.scale
    half = chosen.error * float(stats.quantile(0.975, scale.df))
    margin = chosen.error * float(stats.quantile(question.policy.power, scale.df))
    effect, low, high = (math.expm1(chosen.effect + step) for step in (0.0, -half, half))
    detectable = math.expm1(max(math.log1p(scale.limits.tolerance), float(chosen.judgement.critical)) + margin)
    base, current = metric.natural(chosen.reference), metric.natural(question.candidates)
    known = count(len(chosen.reference), "baseline process", "baseline processes")
    return MetricVerdict(
        metric=metric.name,
        status=status,
        reason=(
            f"{metric.name} {chosen.label}{metric.shown(base)} → {metric.shown(current)} "
            f"({percent(effect)}{metric.note}, {interval(low, high)}), "
            f"tolerance {plain_percent(scale.limits.tolerance)}, {known}, {len(question.candidates)} fresh"
            f"{_advice(question, status, scale, detectable)}"
        ),
        baseline=base,
        current=current,
        effect=effect,
        effect_low=low,
        effect_high=high,
        tolerance=scale.limits.tolerance,
        detectable=detectable,
    )


def _advice(question: Question, status: Status, scale: Scale, detectable: float) -> str:
    text = ""
    if status is Status.INCONCLUSIVE:
        seen = f"the smallest this run could have seen is {plain_percent(detectable)}"
        text = f": a slowdown of {plain_percent(scale.limits.resolution)} is neither shown nor excluded, {seen}"
    elif status is Status.IMPROVED:
        text = TO_KEEP_IT
    if not scale.calibrated:
        text += f" (uncalibrated: save {question.policy.min_processes} or more fresh processes with --vq-save)"
    return text
