"""Does a pair hold a limit: yes, no, undecided where the figure's 95 % interval straddles it, or not measured. Pure.

An upper limit is held below it, a lower one from it on. What a run did not measure is never guessed: the answer says
how to measure it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from pytest_vq.report.candidates import Candidate
from pytest_vq.report.limits import Constraint, Quantity
from pytest_vq.report.serving_claims import Claim, claim_within, doubts_of, late_words
from pytest_vq.report.uncertainty import Bounded, accuracy_difference, percentile_bounds, samples_needed
from pytest_vq.schema.figures import present
from pytest_vq.schema.record import Record
from pytest_vq.wording import count, figure, milliseconds


class Answer(StrEnum):
    """Whether a limit is held."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"


# What one limit's answer makes of several: one that is broken counts, whatever the others are.
_WORST_FIRST = (Answer.NO, Answer.NOT_MEASURED, Answer.UNDECIDED, Answer.YES)


_OF_CLAIM = {Claim.CONFIRMED: Answer.YES, Claim.MISSED: Answer.NO, Claim.OPEN: Answer.UNDECIDED}
_P995 = 99.5  # the percentile that rows under load hold as a figure


@dataclass(frozen=True, slots=True)
class Check:
    """One pair's answer to one limit. Figures are in the limit's unit; what is not known of them is None."""

    constraint: Constraint
    answer: Answer
    value: float | None = None
    low: float | None = None  # its 95 % interval; equal to the value where that is exact
    high: float | None = None
    reason: str = ""  # why it is not known
    hint: str = ""  # how to measure it

    @property
    def figure_shown(self) -> str:
        """``9.80 ms (9.70 ms … 9.90 ms)``; empty where there is no figure."""
        if self.value is None:
            return ""
        figure = self.constraint.shown(self.value)
        if self.low is None or self.high is None or self.low == self.high:
            return figure
        return f"{figure} ({self.constraint.shown(self.low)} … {self.constraint.shown(self.high)})"

    @property
    def shown(self) -> str:
        """``no: 17.1 ms (16.9 ms … 17.3 ms)``, and why where that needs words."""
        words = ", ".join(part for part in (self.figure_shown, self.reason) if part)
        return f"{self.answer}: {words}" if words else str(self.answer)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run knows of one quantity of a pair."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    hint: str = ""
    is_known_above: bool = False  # without a figure: it is above the limit all the same, for the reason given
    answer: Answer | None = None  # where no interval of the figure decides


def check(constraint: Constraint, candidate: Candidate) -> Check:
    """The answer of ``candidate`` to ``constraint``."""
    reading = _READ[constraint.quantity](candidate, constraint)
    return _check_of(constraint, reading)


def check_served(constraint: Constraint, served: Record) -> Check:
    """The answer of a row under load to ``constraint``, which is asked of such."""
    return _check_of(constraint, _read_served(served, constraint))


def _check_of(constraint: Constraint, reading: Reading) -> Check:
    answer = _answer(constraint, reading) if reading.answer is None else reading.answer
    return Check(constraint, answer, reading.value, reading.low, reading.high, reading.reason, reading.hint)


def worst_answer(answers: Iterable[Answer]) -> Answer:
    """What several limits come to: ``yes`` only where each is held, and where there is none."""
    return min(answers, key=_WORST_FIRST.index, default=Answer.YES)


def _answer(constraint: Constraint, reading: Reading) -> Answer:
    if reading.value is None:
        return Answer.NO if reading.is_known_above else Answer.NOT_MEASURED
    if reading.low is None or reading.high is None:
        return Answer.NOT_MEASURED
    if reading.reason:
        return Answer.UNDECIDED
    if constraint.is_upper:
        holds, breaks = reading.high < constraint.limit, reading.low >= constraint.limit
    else:
        holds, breaks = reading.low >= constraint.limit, reading.high < constraint.limit
    if holds:
        return Answer.YES
    return Answer.NO if breaks else Answer.UNDECIDED


def read_latency(candidate: Candidate, _: Constraint | None = None) -> Reading:
    """The median in milliseconds with its interval; times that a disturbance spoilt decide nothing."""
    timing = candidate.record.timing
    if candidate.latency_interval_ms is None:
        hint = "an interval of the median needs 6 samples: measure with a longer --vq-budget"
        return Reading(timing.latency_ms, reason=count(timing.samples, "sample"), hint=hint)
    return _undisturbed(candidate, Bounded(timing.latency_ms, *candidate.latency_interval_ms))


def _undisturbed(candidate: Candidate, times: Bounded) -> Reading:
    """Times as they are, or with the reason why they decide nothing."""
    found = candidate.record.disturbance
    if found is None:
        return Reading(times.value, times.low, times.high)
    hint = "what was disturbed while it was measured decides nothing: measure it again"
    return Reading(times.value, times.low, times.high, f"disturbed: {found}", hint)


def _read_percentile(candidate: Candidate, constraint: Constraint) -> Reading:
    """From every stored time of a request. A percentile is no less than the median, which may break the limit alone."""
    if constraint.percentile is None:
        raise ValueError("a limit on a percentile says which one")
    share = constraint.percentile / 100
    if constraint.under_load:
        return _read_under_load(candidate, constraint)
    bounds = percentile_bounds(candidate.samples_ms, share)
    if bounds is not None:
        return _undisturbed(candidate, bounds)
    median = read_latency(candidate)
    if not median.reason and median.low is not None and median.low >= constraint.limit:
        figure = milliseconds(candidate.record.timing.latency_ms)
        return Reading(reason=f"its median alone is {figure}", is_known_above=True)
    needed = samples_needed(share)
    hint = f"{constraint.name} needs {needed} stored samples: measure with --vq-protocol study or a longer --vq-budget"
    return Reading(reason=f"{len(candidate.samples_ms)} of {needed} samples", hint=hint)


def _read_under_load(candidate: Candidate, constraint: Constraint) -> Reading:
    """From its row under load that says most for it; of several that do, from that of the highest rate."""
    readings = [(_read_served(row, constraint), row.serving.target_qps or 0.0) for row in candidate.served]
    if not readings:
        return Reading(reason="not put under load", answer=Answer.NOT_MEASURED)
    best_first = (Answer.YES, Answer.UNDECIDED, Answer.NO, Answer.NOT_MEASURED, None)
    return min(readings, key=lambda found: (best_first.index(found[0].answer), -found[1]))[0]


def _read_served(served: Record, constraint: Constraint) -> Reading:
    figures, percentile = served.serving, present(constraint.percentile)
    claim = claim_within(served, constraint.limit, round((100 - percentile) / 100, 9))
    value = figures.p995_ms if percentile == _P995 else None
    rate = "" if figures.target_qps is None else f"at {figure(figures.target_qps)} queries/s "
    reason = "; ".join([f"{rate}{late_words(figures)}", *doubts_of(served)])
    if claim is None:
        terms = "" if served.setup.serving is None else f", for it was {served.setup.serving.words}"
        hint = f"{constraint.text}: measure under load with that bound (latency_bound_ms)"
        return Reading(reason=f"its row under load does not tell{terms}", hint=hint, answer=Answer.NOT_MEASURED)
    return Reading(value, reason=reason, answer=_OF_CLAIM[claim])


def _read_memory(candidate: Candidate, _: Constraint) -> Reading:
    peak = candidate.record.memory.peak_memory_bytes
    if peak is None:
        return Reading(hint="a row without a peak memory: measure that pair again, alone on its device")
    return Reading(peak, peak, peak)


def _read_top1(candidate: Candidate, _: Constraint) -> Reading:
    """Accuracy over FP32's. FP32's own is taken as it is: the interval is that of the difference, over it."""
    record, reference = candidate.record, candidate.reference
    if record.fidelity.accuracy is None:
        hint = "accuracy needs labelled images: register_model(..., labelled=...); --min-sqnr-db does without"
        return Reading(reason="no labelled images", hint=hint)
    if candidate.is_reference:
        return Reading(1.0, 1.0, 1.0)
    if reference is None or not reference.fidelity.accuracy:
        hint = "accuracy is told against FP32's: measure fp32 of the same model and batch too"
        return Reading(reason="no FP32 with right answers beside it", hint=hint)
    difference = accuracy_difference(record, reference)
    base = reference.fidelity.accuracy
    if difference is None:
        hint = "a row without the number of its labelled images has no interval: measure it again"
        return Reading(record.fidelity.accuracy / base, hint=hint)
    return Reading(1 + difference.value / base, 1 + difference.low / base, 1 + difference.high / base)


def _read_sqnr(candidate: Candidate, _: Constraint) -> Reading:
    """Against eager FP32 of the same weights; it is no sample's figure, so it is exact."""
    if candidate.is_reference:
        return Reading(math.inf, math.inf, math.inf)
    sqnr_db = candidate.record.fidelity.sqnr_db
    if sqnr_db is None:
        return Reading(hint="a row without an SQNR: measure that pair again")
    return Reading(sqnr_db, sqnr_db, sqnr_db)


_READ: dict[Quantity, Callable[[Candidate, Constraint], Reading]] = {
    Quantity.LATENCY: read_latency,
    Quantity.PERCENTILE: _read_percentile,
    Quantity.MEMORY: _read_memory,
    Quantity.TOP1: _read_top1,
    Quantity.SQNR: _read_sqnr,
}
