"""Does a pair under load keep its latency bound: what its row shows, and no more. Pure.

The bounds on the share of late requests decide. Where they are close enough, and yet the row is no proof (requests
depend on each other too much, or the service is too busy), it stays open, as in the verdict on a tail.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import MOST_INFLATION, MOST_UTILISATION, ServingFigures, ServingTerms
from pytest_vq.wording import between, figure, milliseconds, plain_percent


class Claim(StrEnum):
    """Whether the bound is kept."""

    CONFIRMED = "confirmed"
    MISSED = "missed"
    OPEN = "open"


def shown_claim(record: Record, allowed_rate: float) -> Claim:
    """What the row of a pair under load shows of its own latency bound, where ``allowed_rate`` of requests may miss it.

    MISSED where even the lower bound on their share is above that, CONFIRMED where the upper one is not and nothing
    makes it doubtful.
    """
    figures = record.serving
    if figures.violation_low is not None and figures.violation_low > allowed_rate:
        return Claim.MISSED
    if figures.violation_high is None or figures.violation_high > allowed_rate or any(doubts_of(record)):
        return Claim.OPEN
    return Claim.CONFIRMED


def claim_within(record: Record, limit_ms: float, allowed_rate: float) -> Claim | None:
    """What the row of a pair under load shows of another bound; None where its own tells nothing of that.

    What keeps a tighter bound keeps a wider one, and what misses a wider one misses a tighter one.
    """
    terms = record.setup.serving
    if terms is None:
        return None
    bound_ms, claim = terms.latency_bound_ms, shown_claim(record, allowed_rate)
    tells = {
        Claim.CONFIRMED: bound_ms <= limit_ms,
        Claim.MISSED: bound_ms >= limit_ms,
        Claim.OPEN: bound_ms == limit_ms,
    }
    return claim if tells[claim] else None


def doubts_of(record: Record) -> Iterator[str]:
    """Why the bounds of a row prove nothing, whatever they are."""
    figures = record.serving
    if record.disturbance is not None:
        yield f"disturbed: {record.disturbance}"
    if figures.variance_inflation is not None and figures.variance_inflation > MOST_INFLATION:
        yield (
            f"requests depend on each other too much: variance inflation {figure(figures.variance_inflation)}, above "
            f"{MOST_INFLATION:g}"
        )
    if figures.utilisation is not None and figures.utilisation > MOST_UTILISATION:
        yield f"utilisation {plain_percent(figures.utilisation)}, above {plain_percent(MOST_UTILISATION)}"


def late_words(figures: ServingFigures) -> str:
    """``0.1 % late (0.05 % … 0.2 %)``; what is not known is left out."""
    if figures.violation_rate is None:
        return "no share of late requests measured"
    bounds = between(figures.violation_low, figures.violation_high, plain_percent)
    return f"{plain_percent(figures.violation_rate)} late" + (f" ({bounds})" if bounds else "")


def bracket_words(low: float | None, high: float | None) -> str:
    """The highest rate as it is known: ``222 … 240``; empty where nothing was searched."""
    if low is None:
        return "" if high is None else f"below {figure(high)}"
    if low == 0:
        return "none kept it" if high is None else f"below {figure(high)}"
    return f"from {figure(low)}" if high is None else f"{figure(low)} … {figure(high)}"


def claim_words(record: Record, terms: ServingTerms) -> str:
    """``confirmed: 99.5 % within 10 ms at 200 queries/s: 0.1 % late (0.05 % … 0.2 %), 0.5 % allowed``."""
    figures = record.serving
    rate = "" if figures.target_qps is None else f" at {figure(figures.target_qps)} queries/s"
    claimed = f"{terms.percentile:g} % within {terms.latency_bound_ms:g} ms{rate}"
    tail = "" if figures.p995_ms is None else f", p99.5 {milliseconds(figures.p995_ms)}"
    doubts = "".join(f"; {doubt}" for doubt in doubts_of(record))
    allowed = f"{plain_percent(terms.allowed_rate)} allowed"
    return f"{shown_claim(record, terms.allowed_rate)}: {claimed}: {late_words(figures)}, {allowed}{tail}{doubts}"
