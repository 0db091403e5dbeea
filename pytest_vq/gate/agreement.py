"""Verdicts on fidelity and accuracy: against lower bounds, and against what the baseline's processes answered. Pure.

Answers hardly differ between processes of one code on one machine, so a loss of a decibel is a change of the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import binomial_tail
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.spec import FP32
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import TO_KEEP_IT, count

SQNR, COSINE, ACCURACY = "sqnr", "cosine", "accuracy"
CHANGE = " against the baseline"
_EXACT_DB = 200.0  # what an error of nothing is said to be


def lower_bounds(question: Question) -> list[MetricVerdict]:
    """Verdicts on the lower bounds of SQNR (dB) and accuracy (a fraction), those that are set; no baseline needed.

    The tolerances' ``min_sqnr_db`` replaces the question's. FP32 is what SQNR is measured against, so it has none.
    """
    tolerances, candidates = question.tolerances, question.candidates
    bound = question.min_sqnr_db if tolerances.min_sqnr_db is None else tolerances.min_sqnr_db
    found = []
    if bound is not None and question.setup.scheme != FP32:
        found.append(_lower_bound(SQNR, "SQNR against FP32", [c.sqnr_db for c in candidates], bound, "{:.1f} dB"))
    if tolerances.min_accuracy is not None:
        figures = [c.accuracy for c in candidates]
        found.append(_lower_bound(ACCURACY, "accuracy", figures, tolerances.min_accuracy, "{:.3f}"))
    return found


def _lower_bound(metric: str, name: str, values: Sequence[float | None], bound: float, form: str) -> MetricVerdict:
    known = [v for v in values if v is not None]
    if not known:
        reason = f"{name} was not measured; its bound is {form.format(bound)}"
        return MetricVerdict(metric, Status.INCONCLUSIVE, reason, baseline=bound)
    worst = min(known)
    holds = worst >= bound  # false for NaN too
    reason = f"{name} {form.format(worst)}, {'at least' if holds else 'below its bound of'} {form.format(bound)}"
    return MetricVerdict(metric, Status.PASS if holds else Status.FAIL, reason, baseline=bound, current=worst)


def changes(question: Question, entry: Entry) -> list[MetricVerdict]:
    """Verdicts on SQNR, cosine and accuracy against the baseline's; those that neither side has are left out."""
    found = [
        _decibels(question, entry, SQNR, _sqnr_db, "SQNR against FP32 {:.1f} dB → {:.1f} dB"),
        _decibels(question, entry, COSINE, _cosine_db, "cosine to FP32: its error {:.1f} dB → {:.1f} dB below 1"),
        _accuracy(question, entry),
    ]
    return [verdict for verdict in found if verdict is not None]


def _sqnr_db(estimates: Estimates) -> float | None:
    return estimates.sqnr_db


def _cosine_db(estimates: Estimates) -> float | None:
    """How far the cosine is from 1, in dB; what is 2 (1 - cosine) is noise over signal for answers that are close."""
    if estimates.cosine is None:
        return None
    error = 2 * (1 - estimates.cosine)
    return _EXACT_DB if error <= 0 else min(-10 * math.log10(error), _EXACT_DB)


def _decibels(
    question: Question, entry: Entry, metric: str, read: Callable[[Estimates], float | None], form: str
) -> MetricVerdict | None:
    """The verdict on a figure in dB, larger is better: the worst process against the recent ones and the anchor."""
    policy = question.policy
    fresh, recent, anchor = (_known(read, group) for group in _groups(question, entry))
    if not recent:
        return None
    if len(fresh) < len(question.candidates):
        return _not_measured(metric)
    base, now = max(median(recent), median(anchor or recent)), min(fresh)
    allowed = max(policy.fidelity_tolerance_db, max(recent) - min(recent))
    # Above the ceiling the last bits of the kernels speak, which no one chose.
    change = min(now, policy.fidelity_ceiling_db) - min(base, policy.fidelity_ceiling_db)
    reason = f"{form.format(base, now)} ({now - base:+.1f} dB), tolerance {allowed:.3g} dB"
    return _judged(metric, reason, change, allowed, (base, now))


def _accuracy(question: Question, entry: Entry) -> MetricVerdict | None:
    """The verdict on accuracy: image by image where the anchor kept which it had right, else as a difference."""
    fresh, recent, anchor = (_known(lambda e: e.accuracy, group) for group in _groups(question, entry))
    if not recent:
        return None
    if len(fresh) < len(question.candidates):
        return _not_measured(ACCURACY)
    now = question.candidates[-1].right_answers
    before = next((e.right_answers for e in entry.anchor.estimates if e.right_answers is not None), None)
    if now is not None and before is not None and len(now) == len(before):
        figures = (median(anchor or recent), fresh[-1])
        return _paired_accuracy(question, figures, int(before, 16), int(now, 16))
    base, worst = max(median(recent), median(anchor or recent)), min(fresh)
    allowed = max(question.policy.accuracy_tolerance, max(recent) - min(recent))
    reason = f"accuracy {base:.1%} → {worst:.1%} ({100 * (worst - base):+.1f} points), tolerance {allowed:.1%}"
    return _judged(ACCURACY, reason, worst - base, allowed, (base, worst))


def _paired_accuracy(question: Question, figures: tuple[float, float], before: int, now: int) -> MetricVerdict:
    """McNemar's exact test, one-sided each way, on the images that only one of the two had right."""
    lost, gained = (before & ~now).bit_count(), (now & ~before).bit_count()
    error = question.policy.suite_error / max(question.comparisons, 1)
    images = count(lost + gained, "image changed", "images changed")
    reason = f"accuracy {figures[0]:.1%} → {figures[1]:.1%} ({images}: {lost} to wrong, {gained} to right)"
    status = Status.PASS
    if lost > gained and binomial_tail(lost, lost + gained) < error:
        status = Status.FAIL
    elif gained > lost and binomial_tail(gained, lost + gained) < error:
        status, reason = Status.IMPROVED, reason + TO_KEEP_IT
    return MetricVerdict(ACCURACY + CHANGE, status, reason, figures[0], figures[1])


def _groups(question: Question, entry: Entry) -> tuple[Sequence[Estimates], ...]:
    return question.candidates, entry.processes, entry.anchor.estimates


def _known(read: Callable[[Estimates], float | None], group: Sequence[Estimates]) -> list[float]:
    return [value for value in map(read, group) if value is not None]


def _not_measured(metric: str) -> MetricVerdict:
    reason = f"{metric} was not measured this time; the baseline has it"
    return MetricVerdict(metric + CHANGE, Status.INCONCLUSIVE, reason)


def _judged(metric: str, reason: str, change: float, allowed: float, figures: tuple[float, float]) -> MetricVerdict:
    status = Status.PASS
    if change <= -allowed or math.isnan(change):
        status = Status.FAIL
    elif change >= allowed:
        status, reason = Status.IMPROVED, reason + TO_KEEP_IT
    return MetricVerdict(metric + CHANGE, status, reason, figures[0], figures[1])
