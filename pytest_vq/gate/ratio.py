"""The verdict on the speedup over FP32, taken in the same process: of latency, or of device time. Pure.

Where launches bound a row, its latency compares how the host dispatches two models, and not what the precision did to
the device's work: there the speedup of device time is gated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_vq.gate import noise
from pytest_vq.gate.comparison import Metric
from pytest_vq.gate.machine import compared, unless_machine_changed
from pytest_vq.gate.noise import DEVICE_SPEEDUP, SPEEDUP
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import TOO_FEW, Found, settle, undecided
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.figures import present
from pytest_vq.wording import times


@dataclass(frozen=True, slots=True)
class _Ratio:
    """One way to read a speedup: FP32's time over the candidate's."""

    name: str
    figure: Callable[[Estimates], float | None]
    half_width: Callable[[Estimates], float]  # of its 95 % interval within the process, in logs
    has_own_interval: bool
    note: str

    def known(self, group: Sequence[Estimates]) -> list[Estimates]:
        """Those of ``group`` that have it."""
        return [estimates for estimates in group if self.figure(estimates) is not None]


_LATENCY = _Ratio(
    name=SPEEDUP,
    figure=lambda e: e.speedup,
    half_width=lambda e: math.log(present(e.speedup_high) / present(e.speedup_low)) / 2,
    has_own_interval=True,
    note=" time against FP32",
)
# Of a few spans, and without an interval: what it varies by is known from between the processes.
_DEVICE_TIME = _Ratio(
    name=DEVICE_SPEEDUP,
    figure=lambda e: e.device_speedup,
    half_width=lambda _: 0.0,
    has_own_interval=False,
    note=" device time against FP32",
)


def speedup(question: Question, entry: Entry) -> Found | None:
    """The verdict on the speedup over FP32, and whether to look again; None where there is none to judge."""
    if _is_launch_bound(question, entry):
        return _judged(question, _DEVICE_TIME, entry.processes, entry.anchor.estimates)
    measured = [_LATENCY.known(group) for group in (question.candidates, entry.processes)]
    if entry.setup.is_reference or not any(measured):
        return None
    if len(measured[0]) < len(question.candidates) and question.disturbance is None:
        return undecided(SPEEDUP, "was not measured this time, the baseline has it")
    if not measured[1]:
        return undecided(SPEEDUP, "the baseline has none")
    if not all(map(_has_interval, question.candidates)) and question.disturbance is None:
        return undecided(SPEEDUP, TOO_FEW)
    recent, anchor = ([p for p in group if _has_interval(p)] for group in (entry.processes, entry.anchor.estimates))
    if not recent:
        return undecided(SPEEDUP, f"the baseline has {TOO_FEW}")
    return _judged(question, _LATENCY, recent, anchor)


def _has_interval(estimates: Estimates) -> bool:
    return None not in (estimates.speedup, estimates.speedup_low, estimates.speedup_high)


def _is_launch_bound(question: Question, entry: Entry) -> bool:
    """Whether launches bound the row now, and both sides have what can be compared instead."""
    if entry.setup.is_reference or not _DEVICE_TIME.known(entry.processes):
        return False
    return all(c.launch_bound and c.device_speedup for c in question.candidates)


def _judged(question: Question, ratio: _Ratio, recent: Sequence[Estimates], anchor: Sequence[Estimates]) -> Found:
    if question.disturbance is not None:
        return undecided(ratio.name, f"cannot be judged: {question.disturbance}")
    policy, recent, anchor = question.policy, ratio.known(recent), ratio.known(anchor)

    def log(estimates: Estimates) -> float:
        return -math.log(present(ratio.figure(estimates)))

    metric = Metric(
        name=ratio.name,
        words=ratio.name,
        kind=ratio.name,
        log=log,
        half_width=ratio.half_width,
        natural=lambda group: math.exp(-sum(map(log, group)) / len(group)),
        shown=times,
        tolerance=question.tolerances.speedup_tolerance,
        tolerances=(policy.speedup_tolerance, policy.uncalibrated_speedup_tolerance),
        slope=policy.speedup_slope,
        error_share=policy.steady_share,
        default_sigma=policy.default_prior_sigma,
        pace=noise.STEADY_PACE,
        note=ratio.note,
        has_own_interval=ratio.has_own_interval,
        is_paired=True,
    )
    found = settle(question, compared(question, metric, recent, anchor))
    return unless_machine_changed(question, found, recent, metric.pace, policy.drift_share)
