"""The verdict on a serving row. Pure.

Two searched maxima are not compared: each is uncertain by as much as the change that is looked for. What is compared is
a claim with what happened at one rate: the test's, or the one that the baseline stores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_vq.gate.agreement import changes, lower_bounds
from pytest_vq.gate.comparison import Metric
from pytest_vq.gate.decide import BASELINE, find_entry, naming_suspects
from pytest_vq.gate.machine import compared
from pytest_vq.gate.noise import STEADY_PACE
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import settle, undecided
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.figures import present
from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import OFFLINE, OFFLINE_RATE, VIOLATIONS, ServingTerms
from pytest_vq.schema.verdict import MetricVerdict, Status, Verdict
from pytest_vq.serve.serving_record import terms_of
from pytest_vq.serve.serving_runs import rate_to_store, tail_claim
from pytest_vq.serve.tails import TailVerdict, decide_tail
from pytest_vq.wording import figure, milliseconds


def stored_qps(entry: Entry | None) -> float | None:
    """The rate that a baseline's gate sends, in queries a second: what its anchor's bracket gives.

    None where there is no baseline, or none with a bracket, and 0 where no rate kept the bound then.
    """
    if entry is None:
        return None
    for estimates in reversed(entry.anchor.estimates):
        serving = estimates.serving
        if serving is not None and serving.max_qps_low is not None and serving.offline_qps is not None:
            return rate_to_store(serving.max_qps_low, serving.offline_qps)
    return None


def decide_serving(question: Question, record: Record) -> Verdict:
    """The verdict on ``record``, whose processes are the candidates of ``question``."""
    terms = terms_of(question.setup)
    entry, obstacle = find_entry(question)
    answers = lower_bounds(question)
    if obstacle is not None and (terms.scenario == OFFLINE or terms.asks_for_rate):
        return Verdict.of([*answers, obstacle])
    answers += [] if entry is None else changes(question, entry)
    if terms.asks_for_rate and stored_qps(entry) is None:
        reason = f"no rate is stored for {question.setup.words} on this device: record one with --vq-save"
        return Verdict.of([*answers, MetricVerdict(BASELINE, Status.NO_BASELINE, reason)])
    if terms.scenario == OFFLINE and entry is not None:
        found = _offline_rate(question, entry)
    else:
        found = _tail(question, record, terms, entry)
    verdict = Verdict.of([*answers, _unless_unseen(question, found, terms, entry)])
    return verdict if entry is None else naming_suspects(verdict, entry, question.candidates[-1])


def _tail(question: Question, record: Record, terms: ServingTerms, entry: Entry | None) -> MetricVerdict:
    figures = record.serving
    if question.disturbance is not None:
        return undecided(VIOLATIONS, f"cannot be judged: {question.disturbance}")[0]
    stored = None if terms.target_qps else stored_qps(entry)
    if stored and not _is_rate(stored, figures.target_qps):
        sent = "no rate" if figures.target_qps is None else f"{figure(figures.target_qps)} queries/s"
        advice = "accept it with pytest-vq baselines accept, or run without --vq-search to compare"
        return MetricVerdict(
            VIOLATIONS,
            Status.INCOMPARABLE,
            f"{VIOLATIONS}: {sent} searched for, {figure(stored)} queries/s in the baseline; {advice}",
        )
    if figures.violation_rate is None:
        alone = milliseconds(record.timing.latency_ms)
        bound = f"{terms.percentile:g} % within {terms.latency_bound_ms:g} ms"
        return undecided(VIOLATIONS, f"no rate was found that keeps {bound}; alone, a request takes {alone}")[0]
    tail = _decided_tail(record, terms)
    before = _p995_before(entry, figures.target_qps)
    rate = f" at {figure(figures.target_qps)} queries/s" if figures.target_qps else ""
    now = "" if figures.p995_ms is None else f"; p99.5 {milliseconds(figures.p995_ms)}"
    was = "" if before is None or not now else f", {milliseconds(before)} in the baseline"
    return MetricVerdict(
        VIOLATIONS,
        tail.status,
        f"{VIOLATIONS}{rate}: {tail.reason}{now}{was}",
        current=figures.violation_rate,
        tolerance=terms.allowed_rate,
    )


def _decided_tail(record: Record, terms: ServingTerms) -> TailVerdict:
    """The verdict that the figures of a row give; what late requests they come from, only its processes knew."""
    figures = record.serving
    return decide_tail(
        TailVerdict(
            status=Status.PASS,
            reason="",
            requests=record.timing.samples,
            late=figures.late_requests or 0,
            inflation=present(figures.variance_inflation),
            violation_low=present(figures.violation_low),
            violation_high=present(figures.violation_high),
            utilisation=figures.utilisation or 0.0,
        ),
        tail_claim(terms),
    )


def _p995_before(entry: Entry | None, target_qps: float | None) -> float | None:
    """The geometric mean of what the baseline's processes had at the same rate."""
    servings = [estimates.serving for estimates in entry.processes] if entry else []
    known = [s.p995_ms for s in servings if s and s.p995_ms and _is_rate(s.target_qps, target_qps)]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else None


def _is_rate(one: float | None, other: float | None) -> bool:
    """Whether two rates are the same: files hold them rounded."""
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-6)


def _offline_rate(question: Question, entry: Entry) -> MetricVerdict:
    """The rate itself, process by process, as any time is compared: here nothing was searched."""
    if question.disturbance is not None:
        return undecided(OFFLINE_RATE, f"cannot be judged: {question.disturbance}")[0]
    if not all(estimates.serving and estimates.serving.offline_qps for estimates in question.candidates):
        return undecided(OFFLINE_RATE, "cannot be judged: a process got no answer at all")[0]
    policy = question.policy

    def rate(estimates: Estimates) -> float:
        return present(estimates.serving.offline_qps if estimates.serving else None)

    def natural(group: Sequence[Estimates]) -> float:
        return math.exp(sum(math.log(rate(estimates)) for estimates in group) / len(group))

    metric = Metric(
        name=OFFLINE_RATE,
        words=OFFLINE_RATE,
        kind=OFFLINE_RATE,
        log=lambda estimates: -math.log(rate(estimates)),
        half_width=lambda _: 0.0,
        natural=natural,
        shown=lambda value: f"{figure(value)}/s",
        tolerance=question.tolerances.latency_tolerance,
        tolerances=(policy.latency_tolerance, policy.uncalibrated_latency_tolerance),
        slope=policy.latency_slope,
        error_share=policy.steady_share,
        default_sigma=policy.default_prior_sigma,
        pace=STEADY_PACE,
    )
    verdict, _ = settle(question, compared(question, metric, entry.processes, entry.anchor.estimates))
    return verdict


def _unless_unseen(
    question: Question, verdict: MetricVerdict, terms: ServingTerms, entry: Entry | None
) -> MetricVerdict:
    """A device that the baseline never met may be slower by itself; unless the test itself asked for the rate."""
    if entry is None or terms.target_qps is not None or verdict.status is not Status.FAIL:
        return verdict
    uuid = question.candidates[-1].device_uuid
    if any(process.device_uuid == uuid for process in (*entry.processes, *entry.anchor.estimates)):
        return verdict
    why = f"this device ({uuid}) is not among the baseline's: save it with --vq-save"
    return replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; {why}")
