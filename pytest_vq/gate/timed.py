"""Verdicts on absolute time. Pure.

Of latency there are three readings. The 10 % quantile is the steadiest between processes, and decides. The median and
the 95 % quantile are what a reader sees and a caller waits for; they vary more, so to ask them to prove a PASS would
leave nearly everything undecided on a shared CPU (tried). They FAIL where their own noise allows it, and an estimate
that is much worse blocks a PASS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_vq.gate import noise
from pytest_vq.gate.comparison import Comparison, Metric
from pytest_vq.gate.fleet import judge_new_card, knows_cards
from pytest_vq.gate.machine import compared, unless_machine_changed
from pytest_vq.gate.noise import LATENCY, Reading
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import TOO_FEW, Found, needs_another_look, settle, undecided, verdict_of
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.figures import present
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import milliseconds


def latency(question: Question, entry: Entry) -> Found:
    """The verdict on absolute time (milliseconds), and whether another fresh process should look."""
    if question.disturbance is not None:
        return undecided(LATENCY, f"cannot be judged: {question.disturbance}")
    if not all(_has_interval(c) for c in question.candidates):
        return undecided(LATENCY, TOO_FEW)
    uuid = question.candidates[-1].device_uuid
    groups = (entry.processes, entry.anchor.estimates)
    seen = any(p.device_uuid == uuid for group in groups for p in group)
    # Two cards of one model differ by per cents: absolute time is compared with the same card's where there is any.
    recent, anchor = (
        [p for p in group if _has_interval(p) and (p.device_uuid == uuid or not seen)] for group in groups
    )
    if not recent:
        return undecided(LATENCY, f"the baseline has {TOO_FEW}")
    metric = _absolute(question, entry, noise.STEADY)
    if not seen and knows_cards(question):
        return judge_new_card(question, metric, recent)
    found = settle(question, compared(question, metric, recent, anchor))
    return unless_machine_changed(question, found, recent, metric.pace) if seen else _unseen(question, found)


def typical(question: Question, entry: Entry) -> list[Found]:
    """The verdicts on the median and the 95 % quantile (milliseconds), and whether another process should look.

    A reading that one side lacks has none, and neither has one of a card that the baseline never met.
    """
    if question.disturbance is not None or not all(map(_has_interval, question.candidates)):
        return []
    found, cards = [], {candidate.device_uuid for candidate in question.candidates}
    for reading in (noise.MEDIAN, noise.P95):
        recent, anchor = (
            [p for p in group if _has_interval(p) and reading.ms(p) and p.device_uuid in cards]
            for group in (entry.processes, entry.anchor.estimates)
        )
        if recent and all(map(reading.ms, question.candidates)):
            metric = _absolute(question, entry, reading)
            verdict = _settle_typical(question, compared(question, metric, recent, anchor))
            found.append(unless_machine_changed(question, verdict, recent, reading.pace))
    return found


def _settle_typical(question: Question, comparisons: Sequence[Comparison]) -> Found:
    failing = [comparison for comparison in comparisons if _is_proven(comparison)]
    worst = failing[0] if failing else max(comparisons, key=_least_effect)
    status = Status.FAIL if failing else Status.PASS
    resolution = max(question.policy.typical_resolution, worst.scale.limits.tolerance)
    if not failing and _least_effect(worst) > math.log1p(resolution):
        status = Status.INCONCLUSIVE
    verdict = verdict_of(question, status, worst)
    return verdict, needs_another_look(question, status, worst)


def _least_effect(comparison: Comparison) -> float:
    """By how much a median or tail is worse, in logs: as it is, or given the sentinel, whichever is less.

    A faster machine excuses nothing and accuses nobody: a tail that did not get shorter with it is not worse.
    """
    return min(comparison.effect, comparison.raw_effect)


def _is_proven(comparison: Comparison) -> bool:
    # In a busy hour any median is slower: without the sentinel's own beside it, that proves nothing.
    is_worth = _least_effect(comparison) >= math.log1p(comparison.scale.limits.tolerance)
    return comparison.judgement.fails and comparison.scale.calibrated and comparison.metric.given and is_worth


def _has_interval(estimates: Estimates) -> bool:
    return estimates.latency_low_ms is not None and estimates.latency_high_ms is not None


def _absolute(question: Question, entry: Entry, reading: Reading) -> Metric:
    policy, is_steady = question.policy, reading is noise.STEADY

    def log(estimates: Estimates) -> float:
        return math.log(present(reading.ms(estimates)))

    return Metric(
        name=reading.name,
        words=reading.words,
        kind=reading.kind(entry.setup),
        log=log,
        half_width=lambda p: math.log(present(p.latency_high_ms) / present(p.latency_low_ms)) / 2,
        natural=lambda group: math.exp(sum(map(log, group)) / len(group)),
        shown=milliseconds,
        tolerance=question.tolerances.latency_tolerance,
        tolerances=(policy.latency_tolerance, policy.uncalibrated_latency_tolerance),
        slope=policy.latency_slope,
        error_share=policy.steady_share if is_steady else policy.typical_share,
        default_sigma=policy.default_prior_sigma if is_steady else policy.default_typical_sigma,
        pace=reading.pace,
    )


def _unseen(question: Question, found: Found) -> Found:
    """Absolute time that changed on a device that the baseline does not know proves nothing."""
    verdict, _ = found
    if verdict.status not in (Status.FAIL, Status.IMPROVED):
        return verdict, False
    why = f"this device ({question.candidates[-1].device_uuid}) is not among the baseline's: save it with --vq-save"
    return replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; {why}"), False
