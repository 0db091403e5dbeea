"""The machine beside the measurement: what its pace explains of a change, and where it is another one. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from pytest_vq.gate import noise, stats
from pytest_vq.gate.comparison import Comparison, Metric, compare_with_reference, moderated
from pytest_vq.gate.noise import Pace
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import Found
from pytest_vq.gate.stats import Prior
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.figures import present
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import percent

CLOCKS = "clocks"


def slower_clocks(question: Question, entry: Entry) -> MetricVerdict | None:
    """Why times taken now are of another machine than the baseline's: less power allowed, or slower clocks.

    INCOMPARABLE, by name; None where there is nothing to say. Only processes that know the figure count.
    """
    known = [(c.power_limit_mw, c.sm_clock_mhz) for c in question.candidates]
    before = [(p.power_limit_mw, p.sm_clock_mhz) for p in entry.processes]
    (limits, clocks), (limits_before, clocks_before) = (
        ([x for x in column if x is not None] for column in zip(*group, strict=True)) for group in (known, before)
    )
    if limits and limits_before and min(limits) < min(limits_before):
        figures = f"a power limit of {min(limits) / 1e3:.0f} W, at least {min(limits_before) / 1e3:.0f} W"
    elif clocks and clocks_before and median(clocks) < (1 - question.policy.clock_share) * min(clocks_before):
        figures = f"an SM clock of {median(clocks):.0f} MHz while timing, at least {min(clocks_before):.0f} MHz"
    else:
        return None
    reason = f"times cannot be compared: {figures} in the baseline; set it alike (nvidia-smi -pl, -lgc), or record anew"
    return MetricVerdict(CLOCKS, Status.INCOMPARABLE, reason)


def compared(
    question: Question, metric: Metric, recent: Sequence[Estimates], anchor: Sequence[Estimates]
) -> list[Comparison]:
    """The fresh processes against the recent ones and, where it is another, the anchor."""
    comparisons = [
        compare_with_reference(question, given_sentinel(metric, (*question.candidates, *recent)), recent, recent)
    ]
    if anchor and anchor != recent:
        metric = given_sentinel(metric, (*question.candidates, *recent, *anchor))
        comparisons.append(compare_with_reference(question, metric, recent, anchor, "anchor "))
    return comparisons


def given_sentinel(metric: Metric, processes: Sequence[Estimates]) -> Metric:
    """``metric`` at the machine's usual pace, if all ``processes`` timed the same sentinel; else as it is."""
    if not _one_sentinel(processes, metric.pace):
        return metric
    kind, note = metric.kind + noise.GIVEN_SENTINEL, f"{metric.note} given the sentinel"
    return replace(metric, kind=kind, note=note, given=True)


def _one_sentinel(processes: Sequence[Estimates], pace: Pace) -> bool:
    return all(map(pace.ms, processes)) and len({noise.fixes_sentinel(p) for p in processes}) == 1


def unless_machine_changed(
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
