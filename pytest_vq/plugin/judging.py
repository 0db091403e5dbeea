"""From what was measured to a verdict: decide, look again where it is a suspect, explain where it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vq.errors import VqError
from pytest_vq.files import write_json
from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.outcome import Outcome, Profile
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status, Tolerances, Verdict
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.explained import explained_file

if TYPE_CHECKING:
    from pytest_vq.gate.noise import Noise


@dataclass(frozen=True, slots=True)
class Means:
    """What judging is done with."""

    store: BaselineStore
    noise: Callable[[str], Noise]  # of the baselines of a device, by its slug
    measure_again: Callable[[], Outcome]  # the same, in a fresh process
    profile: Callable[[], Profile]  # the same; raises a VqError where it cannot be profiled
    explanations: Path  # directory of the operators' tables


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of one pair or callable.

    Its test's tolerances, how many pairs and callables share the gate's error, and its scheme's lower bound of SQNR.
    """

    tolerances: Tolerances
    comparisons: int
    min_sqnr_db: float | None = None


def judge(outcome: Outcome, demand: Demand, means: Means) -> Outcome:
    """``outcome`` with its verdict; a suspect is measured again, in fresh processes, before it is called one."""
    verdict = _decide(outcome, demand, means)
    while verdict.more_processes:
        for _ in range(verdict.more_processes):
            outcome = _joined(outcome, means.measure_again())
        verdict = _decide(outcome, demand, means)
    record = replace(outcome.record, verdict=verdict.status, reason=verdict.reason)
    outcome = replace(
        outcome, record=record, time_decided=_decides_time(verdict), tolerances_over=_tolerances_over(verdict)
    )
    return _explained(outcome, verdict, means) if verdict.status is Status.FAIL else outcome


def _joined(outcome: Outcome, again: Outcome) -> Outcome:
    """``outcome`` with what a further fresh process measured of the same."""
    doubt = outcome.record.disturbance or again.record.disturbance
    return replace(
        outcome,
        record=replace(outcome.record, disturbance=doubt),
        estimates=(*outcome.estimates, *again.estimates),
        samples=(*outcome.samples, *again.samples),
    )


def _decides_time(verdict: Verdict) -> bool | None:
    from pytest_vq.gate.machine import CLOCKS
    from pytest_vq.gate.noise import DEVICE_SPEEDUP, LATENCY, SPEEDUP
    from pytest_vq.schema.serving import OFFLINE_RATE, VIOLATIONS

    of_time = (LATENCY, SPEEDUP, DEVICE_SPEEDUP, CLOCKS, VIOLATIONS, OFFLINE_RATE)
    timed = [metric.status for metric in verdict.metrics if metric.metric in of_time]
    return any(status not in (Status.INCONCLUSIVE, Status.INCOMPARABLE) for status in timed) if timed else None


def _tolerances_over(verdict: Verdict) -> float | None:
    """How many tolerances the worst metric that FAILs is off; None where one has none, as a missed lower bound."""
    failed = [metric for metric in verdict.metrics if metric.status is Status.FAIL]
    over = [metric.effect / metric.tolerance for metric in failed if metric.effect is not None and metric.tolerance]
    return max(over) if over and len(over) == len(failed) else None


def _decide(outcome: Outcome, demand: Demand, means: Means) -> Verdict:
    from pytest_vq.gate.decide import decide
    from pytest_vq.gate.question import Question

    device = outcome.environment.device_slug
    entries = means.store.entries(device, outcome.record.identity.model)
    question = Question(
        candidates=outcome.estimates,
        setup=outcome.record.setup,
        entries=entries,
        elsewhere=None if entries else means.store.nearest_device(device),
        noise=means.noise(device),
        tolerances=demand.tolerances,
        min_sqnr_db=demand.min_sqnr_db,
        disturbance=outcome.record.disturbance,
        comparisons=max(1, demand.comparisons),
    )
    if question.setup.serving is None:
        return decide(question)
    from pytest_vq.serve.serving_verdict import decide_serving

    return decide_serving(question, outcome.record)


def _explained(outcome: Outcome, verdict: Verdict, means: Means) -> Outcome:
    """``outcome`` of a FAIL, which stands whatever becomes of its explanation."""
    record = outcome.record
    if record.setup.serving is not None:  # what a request spends its time in, the pair's own row explains
        return outcome
    entry = means.store.entry(outcome.environment.device_slug, record.identity.model, record.setup)
    if entry is None:  # a lower bound was missed: there is no before
        return outcome
    try:
        sentences = _what_changed(record, verdict, entry.operators, means)
    except VqError as error:
        why = str(error).partition("\n")[0]
        sentences = [f"this cannot be told: {why}"]
    return replace(outcome, explanation=tuple(sentences))


def _what_changed(record: Record, verdict: Verdict, before: Mapping[str, Operator], means: Means) -> list[str]:
    """One profiled pass against the baseline's: in sentences, and both tables as a file."""
    from pytest_vq.gate.explain import what_changed

    profile = means.profile()
    now, peak = profile.operators, profile.peak_stacks
    failed = [metric.metric for metric in verdict.metrics if metric.status is Status.FAIL]
    tables = {"reason": verdict.reason, "failed": failed, "before": before, "now": now, "peak": peak}
    write_json(means.explanations / explained_file(record.id), tables)
    return what_changed(failed, before, now, peak)
