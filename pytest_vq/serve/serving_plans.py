"""What each process that puts a load on a pair is to send, and how long that may take. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from pytest_vq.errors import MeasurementError
from pytest_vq.schema.load_run import OK, LoadPlan, LoadRun
from pytest_vq.schema.serving import MULTI_STREAM, OFFLINE, ServingTerms
from pytest_vq.serve.tails import plan_requests

_TIME_TO_SPARE = 1.5
_OFFLINE_S = 3.0  # that answering all at once should take
_LEAST_BATCHES = 20  # and at least so many full batches
_MOST_AT_ONCE = 20_000  # requests: where the model takes next to nothing, handing out and counting takes the time


def plan_of(
    terms: ServingTerms, scenario: str, queries: int, *, target_qps: float | None = None, seed: int = 0
) -> LoadPlan:
    """The plan of one process; of the terms it takes what is promised."""
    plan = LoadPlan(
        scenario,
        queries,
        target_qps=target_qps,
        latency_bound_ms=terms.latency_bound_ms,
        percentile=terms.percentile,
        seed=seed,
    )
    if terms.samples_per_query is not None:
        plan = replace(plan, samples_per_query=terms.samples_per_query)
    if scenario == OFFLINE:  # by intention nearly all wait: none is given up before the run is over
        return replace(plan, query_limit_s=plan.run_limit_s)
    return plan if target_qps is None else given_time(plan, 1 / target_qps)


def given_time(plan: LoadPlan, query_s: float) -> LoadPlan:
    """``plan`` with time enough for queries that take, or come every, ``query_s``."""
    needed_s = _TIME_TO_SPARE * plan.queries * query_s + plan.query_limit_s
    return replace(plan, run_limit_s=max(plan.run_limit_s, needed_s))


def planned_requests(budget_s: float, rate_qps: float) -> int:
    """The requests of each process."""
    try:
        return plan_requests(budget_s, rate_qps)
    except ValueError as error:
        raise MeasurementError(str(error)) from None


def requests_at_once(terms: ServingTerms, full_batch_s: float) -> int:
    """How many to send at once: full batches that take some seconds, and no more than the sender bears."""
    most = max(_LEAST_BATCHES, _MOST_AT_ONCE // terms.max_batch_size)
    return min(max(_LEAST_BATCHES, math.ceil(_OFFLINE_S / full_batch_s)), most) * terms.max_batch_size


def query_s_of(terms: ServingTerms, alone: LoadRun) -> float:
    """What a query should take where the next one is sent when it has ended; the first of its samples goes alone."""
    typical_ms = alone.percentile_ms(50)
    if typical_ms is None:
        answered = alone.requests.outcome.count(OK)
        raise MeasurementError(f"only {answered} of {len(alone.requests)} requests were answered ({_said(alone)})")
    if terms.scenario != MULTI_STREAM:
        return typical_ms / 1e3
    others = plan_of(terms, MULTI_STREAM, 1).samples_per_query - 1
    return typical_ms / 1e3 + math.ceil(others / terms.max_batch_size) * full_batch_s(alone)


def full_batch_s(alone: LoadRun) -> float:
    """What a full batch takes, as the process that looked the pair over saw it.

    Raises MeasurementError where it answered nothing, or timed none.
    """
    answered_qps(alone)
    times = alone.facts.batch_times if alone.facts else ()
    if not times:
        raise MeasurementError("the process that looks a pair over did not time its batches")
    return times[-1].execution_ms / 1e3


def answered_qps(run: LoadRun) -> float:
    """Requests answered a second. Raises MeasurementError where none was: then nothing can be measured."""
    if run.answered_per_s == 0:
        raise MeasurementError(f"not one of {len(run.requests)} requests was answered ({_said(run)})")
    return run.answered_per_s


def errors_in_words(runs: Iterable[LoadRun]) -> str:
    """What the first error of each kind said; empty where there was none."""
    return "; ".join(f"{outcome}: {message}" for run in runs for outcome, message in run.messages.items())


def _said(run: LoadRun) -> str:
    return errors_in_words([run]) or "all were too late"
