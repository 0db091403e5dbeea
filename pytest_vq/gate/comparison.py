"""One timed metric of one pair against one reference, whatever the metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_vq.gate import stats
from pytest_vq.gate.covariance import Moments, Pair, Slope
from pytest_vq.gate.noise import Pace
from pytest_vq.gate.policy import Policy, SlopePrior
from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import Effect, Later, Limits, Prior
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.figures import present


@dataclass(frozen=True, slots=True)
class Metric:
    """How one timed metric reads its estimates. Logs are positive = worse."""

    name: str
    words: str  # what it is, in a reason
    kind: str  # of noise
    log: Callable[[Estimates], float]
    half_width: Callable[[Estimates], float]  # of its 95 % interval within the process, in logs
    natural: Callable[[Sequence[Estimates]], float]  # the typical figure, for a reader
    shown: Callable[[float], str]
    tolerance: float | None  # the marker's
    tolerances: tuple[float, float]  # calibrated, uncalibrated
    slope: SlopePrior  # of the figure on the sentinel
    error_share: float  # of the suite's
    default_sigma: float  # between processes, where nothing better is known
    pace: Pace  # what the sentinel says beside the figure
    given: bool = False  # whether what the sentinel explains is taken out
    is_paired: bool = False  # over FP32, in the same process
    note: str = ""  # on the change, for a reader
    has_own_interval: bool = False  # whether ``half_width`` is of the very estimate that ``log`` reads

    @property
    def is_watched(self) -> bool:
        """Whether a machine that slowly changes its pace would be noticed, and not be taken for a change."""
        return self.given or self.is_paired

    def pairs(self, processes: Sequence[Estimates]) -> list[Pair]:
        """Every process's figure and sentinel, in logs."""
        return [(self.log(p), math.log(present(self.pace.ms(p))) if self.given else 0.0) for p in processes]


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
    fresh: tuple[Estimates, ...]
    reference: tuple[Estimates, ...]
    label: str
    scale: Scale
    effect: float  # given the sentinel, where that is taken out
    raw_effect: float  # as it is
    error: float
    judgement: stats.Judgement
    may_pass: bool  # at the settling look, if it is still to come
    may_fail: bool  # at the last one

    @property
    def worth_failing(self) -> bool:
        """Whether the estimate reaches the tolerance."""
        return self.effect >= math.log1p(self.scale.limits.tolerance)


def compare_with_reference(
    question: Question, metric: Metric, recent: Sequence[Estimates], reference: Sequence[Estimates], label: str = ""
) -> Comparison:
    """The fresh processes against ``reference``, with the noise that the ``recent`` processes show.

    Those beyond the confirming look count only where the machine's pace is watched: the longer they take, the further
    it wanders, and they all wander together.
    """
    if not metric.is_watched:
        question = question.until_confirmed()
    policy, scale = question.policy, _scale(question, metric, recent, reference)
    fresh, known = metric.pairs(question.candidates), metric.pairs(reference)
    base, pace = _mean(known)
    effects = [y - base - scale.slope.value * (x - pace) for y, x in fresh]
    moved = _mean(fresh)[1] - pace
    fixed = scale.within + moved**2 * scale.slope.variance(scale.variance)
    error = math.sqrt(scale.variance * (1 / len(known) + 1 / len(fresh)) + fixed)
    found = Effect.of(effects, error, scale.df, math.sqrt(scale.variance), policy)
    last, settling = (
        Later(math.sqrt(scale.variance * (1 / len(known) + 1 / processes) + fixed), max(processes - len(fresh), 0))
        for processes in (policy.max_processes, policy.settling_look if metric.is_watched else policy.confirming_look)
    )
    last_error = policy.fail_error(question.comparisons, policy.max_processes, metric.error_share)
    then = replace(scale.limits, pass_error=policy.pass_error_at(len(fresh) + settling.more))
    return Comparison(
        metric=metric,
        fresh=question.candidates,
        reference=tuple(reference),
        label=label,
        scale=scale,
        effect=float(found.mean),
        raw_effect=_mean(fresh)[0] - base,
        error=error,
        judgement=stats.judge(found, scale.limits, policy),
        may_pass=settling.more > 0 and bool(stats.may_pass(found, settling, then, policy)),
        may_fail=bool(stats.may_fail(found, last, last_error, policy)),
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
        known = prior or Prior(policy.default_prior_df, metric.default_sigma**2, 0)
        processes = len(question.candidates)
        errors = (
            policy.fail_error(question.comparisons, processes, metric.error_share),
            policy.pass_error_at(processes),
        )
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
