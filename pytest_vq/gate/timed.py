"""Verdicts on the timed metrics: absolute latency, and the speedup over FP32 from paired blocks.

Of absolute latency there are three readings. The 10 % quantile is the steadiest between processes, and decides. The
median and the 95 % quantile are what a reader sees and a caller waits for; they vary more, so to ask them to prove a
PASS would leave nearly everything undecided on a shared CPU (tried). They FAIL where their own noise allows it, and an
estimate that is much worse blocks a PASS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_vq.gate import noise, stats
from pytest_vq.gate.comparison import (
    Comparison,
    Metric,
    compare_with_reference,
    moderated,
    needs_another_look,
    settle,
    verdict_of,
)
from pytest_vq.gate.fleet import judge_new_card, knows_cards
from pytest_vq.gate.noise import Pace, Reading
from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import Prior
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.figures import present
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import milliseconds, percent, times

LATENCY, SPEEDUP = "latency", "speedup"
TOO_FEW = "too few samples to gate time (an interval needs 6)"

Found = tuple[MetricVerdict, bool]  # the verdict, and whether another fresh process should look


def latency(question: Question, entry: Entry) -> Found:
    """The verdict on absolute time (milliseconds), and whether another fresh process should look."""
    if question.disturbance is not None:
        return _inconclusive(LATENCY, f"cannot be judged: {question.disturbance}")
    if not all(_has_interval(c) for c in question.candidates):
        return _inconclusive(LATENCY, TOO_FEW)
    uuid = question.candidates[-1].device_uuid
    groups = (entry.processes, entry.anchor.estimates)
    seen = any(p.device_uuid == uuid for group in groups for p in group)
    # Two cards of one model differ by per cents: absolute time is compared with the same card's where there is any.
    recent, anchor = (
        [p for p in group if _has_interval(p) and (p.device_uuid == uuid or not seen)] for group in groups
    )
    if not recent:
        return _inconclusive(LATENCY, f"the baseline has {TOO_FEW}")
    metric = _absolute(question, entry, noise.STEADY)
    if not seen and knows_cards(question):
        return judge_new_card(question, metric, recent)
    found = settle(question, _compared(question, metric, recent, anchor))
    return _unless_machine_changed(question, found, recent, metric.pace) if seen else _unseen(question, found)


def typical(question: Question, entry: Entry) -> list[Found]:
    """The verdicts on the median and the 95 % quantile (milliseconds), and whether another process should look.

    A reading that one side lacks has none, and neither has one of a card that the baseline never met.
    """
    if question.disturbance is not None or not all(map(_has_interval, question.candidates)):
        return []
    found = []
    for reading in (noise.MEDIAN, noise.P95):
        recent, anchor = (
            [p for p in group if _has_interval(p) and reading.ms(p) and p.device_uuid in _uuids(question)]
            for group in (entry.processes, entry.anchor.estimates)
        )
        if recent and all(map(reading.ms, question.candidates)):
            metric = _absolute(question, entry, reading)
            verdict = _settle_typical(question, _compared(question, metric, recent, anchor))
            found.append(_unless_machine_changed(question, verdict, recent, reading.pace))
    return found


def _uuids(question: Question) -> set[str]:
    return {candidate.device_uuid for candidate in question.candidates}


def _settle_typical(question: Question, comparisons: Sequence[Comparison]) -> Found:
    # In a busy hour any median is slower: without the sentinel's own beside it, that proves nothing.
    failing = [c for c in comparisons if c.judgement.fails and c.scale.calibrated and c.metric.given]
    worst = failing[0] if failing else max(comparisons, key=lambda c: c.effect)
    status = Status.FAIL if failing else Status.PASS
    resolution = max(question.policy.typical_resolution, worst.scale.limits.tolerance)
    if not failing and worst.effect > math.log1p(resolution):
        status = Status.INCONCLUSIVE
    verdict = verdict_of(question, status, worst)
    return verdict, needs_another_look(question, status, worst)


def _has_interval(estimates: Estimates) -> bool:
    return estimates.latency_low_ms is not None and estimates.latency_high_ms is not None


def _absolute(question: Question, entry: Entry, reading: Reading) -> Metric:
    policy, is_steady = question.policy, reading is noise.STEADY

    def log(estimates: Estimates) -> float:
        return math.log(present(reading.ms(estimates)))

    return Metric(
        name=reading.name,
        words=reading.words,
        kind=reading.kind(entry.setup.is_reference),
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


def _compared(
    question: Question, metric: Metric, recent: Sequence[Estimates], anchor: Sequence[Estimates]
) -> list[Comparison]:
    """The fresh processes against the recent ones and, where it is another, the anchor."""
    comparisons = [
        compare_with_reference(question, _given_sentinel(metric, (*question.candidates, *recent)), recent, recent)
    ]
    if anchor and anchor != recent:
        metric = _given_sentinel(metric, (*question.candidates, *recent, *anchor))
        comparisons.append(compare_with_reference(question, metric, recent, anchor, "anchor "))
    return comparisons


def _given_sentinel(metric: Metric, processes: Sequence[Estimates]) -> Metric:
    """``metric`` at the machine's usual pace, if all ``processes`` timed the same sentinel; else as it is."""
    if not _one_sentinel(processes, metric.pace):
        return metric
    kind, note = metric.kind + noise.GIVEN_SENTINEL, f"{metric.note} given the sentinel"
    return replace(metric, kind=kind, note=note, given=True)


def _one_sentinel(processes: Sequence[Estimates], pace: Pace) -> bool:
    return all(map(pace.ms, processes)) and len({noise.fixes_sentinel(p) for p in processes}) == 1


def speedup(question: Question, entry: Entry) -> Found | None:
    """The verdict on the paired speedup over FP32, and whether to look again; None where there is none to judge."""
    measured = [[c for c in group if c.speedup is not None] for group in (question.candidates, entry.processes)]
    if entry.setup.is_reference or not any(measured):
        return None
    if question.disturbance is not None:
        return _inconclusive(SPEEDUP, f"cannot be judged: {question.disturbance}")
    if len(measured[0]) < len(question.candidates):
        return _inconclusive(SPEEDUP, "was not measured this time, the baseline has it")
    if any(c.speedup_low is None or c.speedup_high is None for c in question.candidates):
        return _inconclusive(SPEEDUP, TOO_FEW)
    recent, anchor = (
        [p for p in group if p.speedup and p.speedup_low and p.speedup_high]
        for group in (entry.processes, entry.anchor.estimates)
    )
    if not recent:
        return _inconclusive(SPEEDUP, f"the baseline has {'none' if not measured[1] else TOO_FEW}")
    metric = Metric(
        name=SPEEDUP,
        words=SPEEDUP,
        kind=noise.SPEEDUP,
        log=lambda p: -math.log(present(p.speedup)),
        half_width=lambda p: math.log(present(p.speedup_high) / present(p.speedup_low)) / 2,
        natural=lambda group: math.exp(sum(math.log(present(p.speedup)) for p in group) / len(group)),
        shown=times,
        tolerance=question.tolerances.speedup_tolerance,
        tolerances=(question.policy.speedup_tolerance, question.policy.uncalibrated_speedup_tolerance),
        slope=question.policy.speedup_slope,
        error_share=question.policy.steady_share,
        default_sigma=question.policy.default_prior_sigma,
        pace=noise.STEADY_PACE,
        note=" time against FP32",
        has_own_interval=True,
        is_paired=True,
    )
    found = settle(question, _compared(question, metric, recent, anchor))
    return _unless_machine_changed(question, found, recent, metric.pace, question.policy.drift_share)


def _inconclusive(metric: str, why: str) -> Found:
    return MetricVerdict(metric, Status.INCONCLUSIVE, f"{metric}: {why}"), False


def _unseen(question: Question, found: Found) -> Found:
    """Absolute time that changed on a device that the baseline does not know proves nothing."""
    verdict, _ = found
    if verdict.status not in (Status.FAIL, Status.IMPROVED):
        return verdict, False
    why = f"this device ({question.candidates[-1].device_uuid}) is not among the baseline's: save it with --vq-save"
    return replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; {why}"), False


def _unless_machine_changed(
    question: Question, found: Found, recent: Sequence[Estimates], pace: Pace, share: float = math.inf
) -> Found:
    """A change proves nothing where the machine changed too and may explain it: by ``share`` of how far it moved."""
    verdict, again = found
    moved = _sentinel_move(question, recent, pace) if verdict.status in (Status.FAIL, Status.IMPROVED) else None
    if moved is None or abs(math.log1p(present(verdict.effect))) >= share * abs(math.log1p(moved)):
        return verdict, again
    why = f"but the sentinel, a fixed workload, moved by {percent(moved)}: the machine changed"
    return replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; {why}"), not question.confirms


def _sentinel_move(question: Question, recent: Sequence[Estimates], pace: Pace) -> float | None:
    """The relative move of the sentinel, if it is beyond what the baseline's processes saw; else None."""
    policy = question.policy
    if not _one_sentinel((*question.candidates, *recent), pace):
        return None
    fresh, before = ([math.log(present(pace.ms(p))) for p in group] for group in (question.candidates, recent))
    move = sum(fresh) / len(fresh) - sum(before) / len(before)
    prior = question.noise.prior(pace.kind) or Prior(policy.default_prior_df, policy.drift_sigma**2, 0)
    variance, df = moderated(prior, [before, fresh], policy)
    limit = float(stats.quantile(1 - policy.drift_p / 2, df)) * math.sqrt(variance * (1 / len(fresh) + 1 / len(before)))
    return math.expm1(move) if abs(move) > max(limit, math.log1p(policy.drift_minimum)) else None
