"""Absolute time on a card that the baseline never met, judged by how much the cards that it knows differ. Pure.

A card's effect is common to all its pairs: it is one draw of the variance between cards, however many pairs show it, so
it takes most of the whole suite's error once, and has the cards' few degrees of freedom. What a pair's own processes
add is shared among the pairs as ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pytest_vq.gate import stats
from pytest_vq.gate.comparison import Metric, moderated
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import Found
from pytest_vq.gate.stats import Prior
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import count, interval, percent, plain_percent


@dataclass(frozen=True, slots=True)
class _Distance:
    """How far the new card's processes lie from the mean of the known cards, and how well that is known; logs."""

    base: float  # the mean of the cards' means
    cards: int
    effect: float
    least: float  # the best process's own
    most: float
    card_error: float
    card_df: float
    process_error: float
    process_df: float
    sigma: float  # of one process

    def margin(self, card_alpha: float, process_alpha: float) -> float:
        """What either error allows, one-sided."""
        card = self.card_error * float(stats.quantile(1 - card_alpha, self.card_df))
        process = self.process_error * float(stats.quantile(1 - process_alpha, self.process_df))
        return math.hypot(card, process)


def knows_cards(question: Question) -> bool:
    """Whether the baselines of this device hold enough cards to tell how much they differ."""
    cards = question.noise.cards
    return cards is not None and cards.df >= question.policy.min_cards - 1


def judge_new_card(question: Question, metric: Metric, recent: Sequence[Estimates]) -> Found:
    """The verdict on ``metric``, and whether another fresh process should look; `knows_cards` must hold."""
    policy, tolerance = question.policy, metric.tolerance
    if tolerance is None:
        tolerance = metric.tolerances[0]
    distance = _distance(question, metric, recent)
    pair_alpha = policy.fail_error(question.comparisons, len(question.candidates), metric.error_share)
    own, card_alpha = (1 - policy.card_share) * pair_alpha, policy.card_share * policy.suite_error
    critical = distance.margin(card_alpha, own)
    worth, resolution = math.log1p(tolerance), max(policy.resolution, tolerance)
    confirming = max(policy.confirmation * worth, policy.confirmation_sigmas * distance.sigma)
    half = policy.pass_error_at(len(question.candidates)) / 2
    status = Status.INCONCLUSIVE
    if distance.effect > critical and distance.effect >= worth and distance.least >= confirming:
        status = Status.FAIL
    elif distance.effect < -critical and distance.effect <= -worth and distance.most <= -confirming:
        status = Status.IMPROVED
    elif distance.effect + distance.margin(half, half) < math.log1p(resolution):
        status = Status.PASS
    detectable = math.expm1(max(worth, critical) + distance.margin(1 - policy.power, 1 - policy.power))
    reason = _reason(question, metric, distance)
    if status is Status.INCONCLUSIVE:
        reason += f": the smallest this run could have seen is {plain_percent(detectable)}"
    verdict = MetricVerdict(
        metric=metric.name,
        status=status,
        reason=reason,
        baseline=math.exp(distance.base),
        current=metric.natural(question.candidates),
        effect=math.expm1(distance.effect),
        tolerance=tolerance,
        detectable=detectable,
    )
    # More processes of this card cannot tell it from the others, but can tell its pair's own noise from a change.
    by_card_alone = distance.card_error * float(stats.quantile(1 - card_alpha, distance.card_df))
    if question.confirms and status is Status.FAIL:
        return verdict, False
    return verdict, status is Status.FAIL or distance.effect > max(by_card_alone, worth)


def _distance(question: Question, metric: Metric, recent: Sequence[Estimates]) -> _Distance:
    policy, cards = question.policy, question.noise.cards
    if cards is None:
        raise ValueError("the baselines of this device do not know how much its cards differ")
    known: dict[str, list[float]] = {}
    for process in recent:
        known.setdefault(process.device_uuid, []).append(metric.log(process))
    base = fmean([fmean(logs) for logs in known.values()])
    fresh = [metric.log(process) for process in question.candidates]
    prior = question.noise.prior(metric.kind) or Prior(policy.default_prior_df, policy.default_prior_sigma**2, 0)
    variance, df = moderated(prior, [*known.values(), fresh], policy)
    return _Distance(
        base=base,
        cards=len(known),
        effect=fmean(fresh) - base,
        least=min(fresh) - base,
        most=max(fresh) - base,
        # What the known cards' own processes add is in the variance between their means already.
        card_error=math.sqrt(cards.variance * (1 + 1 / len(known))),
        card_df=cards.df,
        process_error=math.sqrt(variance / len(fresh)),
        process_df=df,
        sigma=math.sqrt(variance),
    )


def _reason(question: Question, metric: Metric, distance: _Distance) -> str:
    now, half = metric.natural(question.candidates), distance.margin(0.025, 0.025)
    change, low, high = (math.expm1(distance.effect + step) for step in (0.0, -half, half))
    return (
        f"{metric.words} {metric.shown(math.exp(distance.base))} → {metric.shown(now)} ({percent(change)}, "
        f"{interval(low, high)}) on a card that is new to the baseline, judged by how much its "
        f"{count(distance.cards, 'card')} differ, {len(question.candidates)} fresh"
    )
