"""One pair under load, from its terms to what five fresh processes saw. What runs a load is handed in.

First the pair is looked over: alone, with one request after the other; then with all at once. Of Server the rate is
what the test asks for, or what a baseline stores, or is searched for. Only then comes what is judged: as many processes
as a verdict on a tail takes, with a number of requests that is fixed before the first is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_vq.schema.load_run import LoadPlan, LoadRun
from pytest_vq.schema.serving import MOST_UTILISATION, OFFLINE, SERVER, ServingTerms
from pytest_vq.serve.searching import Bracket, Probes, search_rate
from pytest_vq.serve.serving_plans import (
    answered_qps,
    full_batch_s,
    given_time,
    plan_of,
    planned_requests,
    query_s_of,
    requests_at_once,
)
from pytest_vq.serve.tails import MOST_REQUESTS, PROCESSES, TailClaim

BUDGET_S = 120.0  # of load on one pair, all processes together, where no budget is given
STORED_SHARE = 0.9  # of the highest rate that kept the bound: what a baseline's gate sends
_BELOW_MOST = 0.95  # of the highest utilisation: how far two Offline rates of one service hardly ever differ
_ATTEMPTS = 4  # at a rate to store, each below the last: one that turned out to be too high is searched for again
_OTHER_SEED = 1000  # beyond every seed that is used: of a process that takes another one's place
_ALONE = 50  # requests of the look over
_PROBE_S, _PROBE_LEAST, _PROBE_MOST = 5.0, 500, 2000  # of one rate that is tried: seconds and requests

PutLoad = Callable[[LoadPlan], LoadRun]


@dataclass(frozen=True, slots=True)
class Runs:
    """What puts a load on the pair, each in a process of its own."""

    look_over: PutLoad  # it judges the pair, and times its batches, before
    load: PutLoad
    offline: PutLoad  # nobody is refused
    fallback: PutLoad | None = None  # with FP32 in the pair's place; None where that is not asked for


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a pair under load."""

    terms: ServingTerms
    stored_qps: float | None = None  # the rate of the baseline; None where there is none
    searches: bool = False  # for the highest rate, also where the rate is known
    budget_s: float = BUDGET_S


@dataclass(frozen=True, slots=True)
class PairUnderLoad:
    """What became of the loads."""

    alone: LoadRun
    loads: tuple[LoadRun, ...]  # what is judged, a process each; none where no rate keeps the bound
    offline_qps: float | None = None
    target_qps: float | None = None
    bracket: Bracket | None = None
    fallback: LoadRun | None = None
    is_short: bool = False  # the budget allowed fewer requests than a verdict likes
    repeats: int = 0  # processes that did not count, and gave way to another one each
    untold: str | None = None  # why no rate was found, where that is no fault of the pair


def serve(wanted: Wanted, runs: Runs) -> PairUnderLoad:
    """Put the pair under the loads that ``wanted`` takes.

    Raises MeasurementError where the budget allows too few requests to judge anything, or all of them failed.
    """
    terms = wanted.terms
    alone = runs.look_over(plan_of(terms, "SingleStream", _ALONE))
    at_once = requests_at_once(terms, full_batch_s(alone))
    if terms.scenario == OFFLINE:
        plans = [plan_of(terms, OFFLINE, at_once, seed=seed) for seed in range(PROCESSES)]
        return PairUnderLoad(alone, tuple(map(runs.offline, plans)))
    if terms.scenario == SERVER:
        offline_qps = answered_qps(runs.offline(plan_of(terms, OFFLINE, at_once)))
        return _serve_at_rate(wanted, runs, alone, offline_qps)
    query_s = query_s_of(terms, alone)
    requests = planned_requests(wanted.budget_s, 1 / query_s)
    plans = [plan_of(terms, terms.scenario, requests, seed=seed) for seed in range(PROCESSES)]
    loads = tuple(runs.load(given_time(plan, query_s)) for plan in plans)
    return PairUnderLoad(alone, loads, is_short=_is_short(loads))


def _serve_at_rate(wanted: Wanted, runs: Runs, alone: LoadRun, offline_qps: float) -> PairUnderLoad:
    terms, load = wanted.terms, _Repeating(runs.load)
    given_qps = terms.target_qps or (None if wanted.searches else wanted.stored_qps)
    if given_qps:
        loads = _load_all(wanted, load, given_qps)
        fallback = _load_fallback(runs, loads)
        return PairUnderLoad(alone, loads, offline_qps, given_qps, None, fallback, _is_short(loads), load.repeats)
    bracket = _first_search(wanted, load, alone, offline_qps)
    for _ in range(_ATTEMPTS):
        rate = rate_to_store(bracket.low, offline_qps)
        if not rate:
            # Where even the lowest rate tried was not told, no higher one tells anything of the pair.
            is_told = not bracket.probes or bracket.probes[min(bracket.probes)] is not None
            untold = None if is_told else load.invalid
            return PairUnderLoad(alone, (), offline_qps, None, bracket, repeats=load.repeats, untold=untold)
        loads = _load_all(wanted, load, rate)
        missed = _missed_share(loads)
        if missed is None or missed <= terms.allowed_rate:
            break
        # A rate that the run which stores it does not keep would FAIL whoever comes after it: search on below.
        bracket = _search(wanted, load, offline_qps, {**bracket.probes, rate: missed})
    is_kept = missed is not None and missed <= terms.allowed_rate
    fallback, stored = _load_fallback(runs, loads), bracket if is_kept else None
    return PairUnderLoad(alone, loads, offline_qps, rate, stored, fallback, _is_short(loads), load.repeats)


def _load_all(wanted: Wanted, load: PutLoad, rate_qps: float) -> tuple[LoadRun, ...]:
    requests = planned_requests(wanted.budget_s, rate_qps)
    return tuple(
        load(plan_of(wanted.terms, SERVER, requests, target_qps=rate_qps, seed=1 + seed)) for seed in range(PROCESSES)
    )


def _load_fallback(runs: Runs, loads: Sequence[LoadRun]) -> LoadRun | None:
    return None if runs.fallback is None else runs.fallback(loads[0].plan)


def _is_short(loads: Sequence[LoadRun]) -> bool:
    return loads[0].plan.queries < MOST_REQUESTS


class _Repeating:
    """A load that is put on again, once and with other arrivals, where its process does not count.

    LoadGen's rules have it so: what lagged was the sender, and says nothing of the service.
    """

    def __init__(self, run: PutLoad) -> None:
        self._run = run
        self.repeats = 0
        self.invalid: str | None = None  # why the last process that did not count did not

    def __call__(self, plan: LoadPlan) -> LoadRun:
        found = self._run(plan)
        if found.invalid is None:
            return found
        self.repeats += 1
        found = self._run(replace(plan, seed=plan.seed + _OTHER_SEED))
        self.invalid = found.invalid or self.invalid
        return found


def _missed_share(loads: Sequence[LoadRun]) -> float | None:
    """The share of late requests in the processes that count; None where none does."""
    shares = [share for share in map(late_share, loads) if share is not None]
    return sum(shares) / len(shares) if shares else None


def rate_to_store(max_qps_low: float, offline_qps: float) -> float:
    """The rate at which the gate tests from now on; 0 where no rate kept the bound.

    It is below the highest that kept it by a margin, because the search errs; and below the highest at which anything
    could be claimed, because the next run's Offline rate, which it is a share of, is another one.
    """
    return min(STORED_SHARE * max_qps_low, _BELOW_MOST * MOST_UTILISATION * offline_qps)


def tail_claim(terms: ServingTerms) -> TailClaim:
    """What the terms claim."""
    return TailClaim(percentile=terms.percentile)


def late_share(run: LoadRun) -> float | None:
    """The share of the requests of one run that were late; None where the run does not count."""
    late = run.violations()
    return None if run.invalid is not None else sum(late) / len(late)


def _first_search(wanted: Wanted, load: PutLoad, alone: LoadRun, offline_qps: float) -> Bracket:
    typical_ms = alone.percentile_ms(50)
    if typical_ms is None or typical_ms > wanted.terms.latency_bound_ms:
        return Bracket(0.0, alone.answered_per_s, {})  # alone, and late: with others it would be later
    return _search(wanted, load, offline_qps)


def _search(wanted: Wanted, load: PutLoad, offline_qps: float, known: Probes | None = None) -> Bracket:
    def tried(rate: float) -> float | None:
        requests = round(min(max(_PROBE_S * rate, _PROBE_LEAST), _PROBE_MOST))
        return late_share(load(plan_of(wanted.terms, SERVER, requests, target_qps=rate)))

    return search_rate(tried, wanted.terms.allowed_rate, offline_qps, known)
