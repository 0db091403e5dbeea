"""Verdicts on the timed metrics: absolute latency, and the speedup over FP32 from paired blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_vq.gate import noise, stats
from pytest_vq.gate.comparison import Comparison, Metric, compare_with_reference, moderated, settle
from pytest_vq.gate.fleet import judge_new_card, knows_cards
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
    metric = _absolute(question, entry)
    if not seen and knows_cards(question):
        return judge_new_card(question, metric, recent)
    found = settle(question, _compared(question, metric, recent, anchor))
    return _unless_machine_changed(question, found, recent, math.inf) if seen else _unseen(question, found)


def _has_interval(estimates: Estimates) -> bool:
    return estimates.latency_low_ms is not None and estimates.latency_high_ms is not None


def _absolute(question: Question, entry: Entry) -> Metric:
    return Metric(
        name=LATENCY,
        kind=noise.LATENCY_FP32 if entry.setup.is_reference else noise.LATENCY,
        log=lambda p: math.log(noise.steady_ms(p)),
        half_width=lambda p: math.log(present(p.latency_high_ms) / present(p.latency_low_ms)) / 2,
        natural=lambda group: math.exp(sum(math.log(noise.steady_ms(p)) for p in group) / len(group)),
        shown=milliseconds,
        tolerance=question.tolerances.latency_tolerance,
        tolerances=(question.policy.latency_tolerance, question.policy.uncalibrated_latency_tolerance),
        slope=question.policy.latency_slope,
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
    if not _one_sentinel(processes):
        return metric
    kind, note = metric.kind + noise.GIVEN_SENTINEL, f"{metric.note} given the sentinel"
    return replace(metric, kind=kind, note=note, sentinel=lambda p: math.log(present(p.sentinel_ms)))


def _one_sentinel(processes: Sequence[Estimates]) -> bool:
    return all(p.sentinel_ms for p in processes) and len({noise.fixes_sentinel(p) for p in processes}) == 1


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
        kind=noise.SPEEDUP,
        log=lambda p: -math.log(present(p.speedup)),
        half_width=lambda p: math.log(present(p.speedup_high) / present(p.speedup_low)) / 2,
        natural=lambda group: math.exp(sum(math.log(present(p.speedup)) for p in group) / len(group)),
        shown=times,
        tolerance=question.tolerances.speedup_tolerance,
        tolerances=(question.policy.speedup_tolerance, question.policy.uncalibrated_speedup_tolerance),
        slope=question.policy.speedup_slope,
        note=" time against FP32",
        has_own_interval=True,
    )
    found = settle(question, _compared(question, metric, recent, anchor))
    return _unless_machine_changed(question, found, recent, question.policy.drift_share)


def _inconclusive(metric: str, why: str) -> Found:
    return MetricVerdict(metric, Status.INCONCLUSIVE, f"{metric}: {why}"), False


def _unseen(question: Question, found: Found) -> Found:
    """Absolute time that changed on a device that the baseline does not know proves nothing."""
    verdict, _ = found
    if verdict.status not in (Status.FAIL, Status.IMPROVED):
        return verdict, False
    why = f"this device ({question.candidates[-1].device_uuid}) is not among the baseline's: save it with --vq-save"
    return replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; {why}"), False


def _unless_machine_changed(question: Question, found: Found, recent: Sequence[Estimates], share: float) -> Found:
    """A change proves nothing where the machine changed too and may explain it: by ``share`` of how far it moved."""
    verdict, again = found
    moved = _sentinel_move(question, recent) if verdict.status in (Status.FAIL, Status.IMPROVED) else None
    if moved is None or abs(math.log1p(present(verdict.effect))) >= share * abs(math.log1p(moved)):
        return verdict, again
    why = f"but the sentinel, a fixed workload, moved by {percent(moved)}: the machine changed"
    return replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; {why}"), not question.last_look


def _sentinel_move(question: Question, recent: Sequence[Estimates]) -> float | None:
    """The relative move of the sentinel, if it is beyond what the baseline's processes saw; else None."""
    policy = question.policy
    if not _one_sentinel((*question.candidates, *recent)):
        return None
    fresh, before = ([math.log(present(p.sentinel_ms)) for p in group] for group in (question.candidates, recent))
    move = sum(fresh) / len(fresh) - sum(before) / len(before)
    prior = question.noise.prior(noise.SENTINEL) or Prior(policy.default_prior_df, policy.drift_sigma**2, 0)
    variance, df = moderated(prior, [before, fresh], policy)
    limit = float(stats.quantile(1 - policy.drift_p / 2, df)) * math.sqrt(variance * (1 / len(fresh) + 1 / len(before)))
    return math.expm1(move) if abs(move) > max(limit, math.log1p(policy.drift_minimum)) else None
