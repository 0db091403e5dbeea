"""Verdicts on what is (nearly) deterministic: memory and size. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, median_low

from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.verdict import MetricVerdict, Status, Tolerances
from pytest_vq.wording import TO_KEEP_IT, percent, plain_percent, size

MEMORY, SIZE = "peak_memory", "model_size"


def memory(
    candidates: Sequence[Estimates], entry: Entry, tolerances: Tolerances, policy: Policy = DEFAULT
) -> MetricVerdict | None:
    """The verdict on peak memory (bytes), against the recent processes and the anchor; None where neither side has it.

    The middle one of the fresh processes counts (the lower of two): a real allocation is there every time.
    """
    fresh = [c.peak_memory_bytes for c in candidates if c.peak_memory_bytes is not None]
    recent = [p.peak_memory_bytes for p in entry.processes if p.peak_memory_bytes is not None]
    anchor = [p.peak_memory_bytes for p in entry.anchor.estimates if p.peak_memory_bytes is not None]
    if not fresh or not recent:
        return _missing(MEMORY, "peak memory", bool(fresh), bool(recent))
    references = [median(recent), median(anchor or recent)]
    tolerance = _memory_tolerance(entry.setup, recent, tolerances.memory_tolerance, policy)
    return _growth(MEMORY, "peak memory", references, median_low(fresh), tolerance)


def _memory_tolerance(setup: Setup, recent: Sequence[int], marked: float | None, policy: Policy) -> tuple[float, float]:
    """``(relative, at least bytes)``. A marker cannot make a CPU's figures finer than they are."""
    if setup.threads is not None:
        relative, least = policy.cpu_memory(len(recent))
        spread = policy.cpu_memory_spread * (max(recent) - min(recent))
        return relative if marked is None else marked, max(least, spread)
    if marked is not None:
        return marked, 0.0
    if len(set(recent)) < len(recent):
        return 0.0, policy.memory_repeat_bytes
    return policy.memory_relative, policy.memory_minimum_bytes


def model_size(
    candidates: Sequence[Estimates], entry: Entry, tolerances: Tolerances, policy: Policy = DEFAULT
) -> MetricVerdict | None:
    """The verdict on the serialized weights' bytes, against the recent processes and the anchor.

    None where neither side has any: a callable stores nothing.
    """
    fresh = [c.model_size_bytes for c in candidates if c.model_size_bytes is not None]
    latest = (entry.processes[-1].model_size_bytes, entry.anchor.estimates[-1].model_size_bytes)
    references = [size_bytes for size_bytes in latest if size_bytes is not None]
    if not fresh or len(references) < len(latest):
        return _missing(SIZE, "model size", bool(fresh), bool(references))
    marked = tolerances.size_tolerance
    tolerance = (policy.size_relative, float(policy.size_minimum_bytes)) if marked is None else (marked, 0.0)
    return _growth(SIZE, "model size", references, max(fresh), tolerance)


def _growth(
    metric: str, name: str, references: Sequence[float], current: float, tolerance: tuple[float, float]
) -> MetricVerdict:
    relative, least = tolerance
    recent, anchor = references
    base = min(recent, anchor)  # the worse of both comparisons decides
    allowed = max(relative * base, least)
    change = current - base
    effect = change / base if base else 0.0
    status = Status.PASS
    if change > 0 and change >= allowed:
        status = Status.FAIL
    elif change < 0 and -change >= allowed:
        status = Status.IMPROVED
    against = "the anchor's " if base == anchor != recent else ""
    limit = plain_percent(relative) if relative * base > least else size(least)
    reason = f"{name} {against}{size(base)} → {size(current)} ({percent(effect)}, {_signed(change)}), tolerance {limit}"
    if status is Status.IMPROVED:
        reason += TO_KEEP_IT
    bound = allowed / base if base else None
    return MetricVerdict(metric, status, reason, base, current, effect, effect, effect, bound, bound)


def _signed(change: float) -> str:
    return ("+" if change >= 0 else "-") + size(abs(change))


def _missing(metric: str, name: str, fresh: bool, baseline: bool) -> MetricVerdict | None:
    if not fresh and not baseline:
        return None
    if not fresh:
        return MetricVerdict(metric, Status.INCONCLUSIVE, f"{name} was not measured this time; the baseline has it")
    return MetricVerdict(metric, Status.NO_BASELINE, f"the baseline holds no {name}: record it with --vq-save")
