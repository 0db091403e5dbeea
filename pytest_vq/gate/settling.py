"""From comparisons to a verdict on one timed metric, and whether another fresh process should look. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_vq.gate import stats
from pytest_vq.gate.comparison import Comparison, Scale
from pytest_vq.gate.question import Question
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import TO_KEEP_IT, count, interval, percent, plain_percent

Found = tuple[MetricVerdict, bool]  # the verdict, and whether another fresh process should look
TOO_FEW = "too few samples to gate time (an interval needs 6)"


def undecided(metric: str, why: str) -> Found:
    """An INCONCLUSIVE that no further process would change."""
    return MetricVerdict(metric, Status.INCONCLUSIVE, f"{metric}: {why}"), False


def settle(question: Question, comparisons: Sequence[Comparison]) -> Found:
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
    return verdict_of(question, status, chosen), needs_another_look(question, status, chosen)


def needs_another_look(question: Question, status: Status, chosen: Comparison) -> bool:
    """A FAIL must be confirmed; what is inconclusive is looked at again as long as it may become a PASS or a FAIL.

    Beyond the confirming look only by the calibrated rule, the other one has no error to share out among looks, and
    only where the machine's pace is watched.
    """
    if status is not Status.INCONCLUSIVE:
        return status is Status.FAIL and not question.confirms
    if not question.confirms:
        return chosen.may_pass or chosen.worth_failing
    may_fail = chosen.worth_failing and chosen.may_fail
    return chosen.scale.calibrated and chosen.metric.is_watched and (chosen.may_pass or may_fail)


def verdict_of(question: Question, status: Status, chosen: Comparison) -> MetricVerdict:
    """``status`` with the figures of the ``chosen`` comparison, and a reason a person can act on."""
    metric, scale = chosen.metric, chosen.scale
    half = chosen.error * float(stats.quantile(0.975, scale.df))
    margin = chosen.error * float(stats.quantile(question.policy.power, scale.df))
    effect, low, high = (math.expm1(chosen.effect + step) for step in (0.0, -half, half))
    detectable = math.expm1(max(math.log1p(scale.limits.tolerance), float(chosen.judgement.critical)) + margin)
    base, current = metric.natural(chosen.reference), metric.natural(chosen.fresh)
    known = count(len(chosen.reference), "baseline process", "baseline processes")
    return MetricVerdict(
        metric=metric.name,
        status=status,
        reason=(
            f"{metric.words} {chosen.label}{metric.shown(base)} → {metric.shown(current)} "
            f"({percent(effect)}{metric.note}, {interval(low, high)}), "
            f"tolerance {plain_percent(scale.limits.tolerance)}, {known}, {len(chosen.fresh)} fresh"
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
