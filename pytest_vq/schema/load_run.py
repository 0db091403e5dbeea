"""What load is put on a service, and what became of every request of it. Frozen values; importing this loads nothing.

A *query* is what the load generator sends at once, a *request* is one sample of it: a query of MultiStream has
``samples_per_query`` requests, the one query of Offline has all of them, and elsewhere the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_vq.errors import SelectionError
from pytest_vq.schema.served import ServedFacts

# MLPerf's scenarios: one query after the other, the same with several samples each, arrivals of a Poisson process, and
# everything at once.
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
ENGINES = ("loadgen", "builtin")

# What becomes of a request; any other outcome is an error's class.
OK = "ok"
REFUSED = "refused"  # a full queue, or a server that says it is too busy
UNANSWERED = "unanswered"  # not within the time that a query may take
UNSENT = "unsent"  # the time of the whole run was over

Ended = tuple[int, bool]  # of a query: its latency in nanoseconds, and whether it was answered

_LAGGING_SHARE = 0.1  # of the latency bound: what sending may add to a latency before the latency means nothing


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load that one process puts on a service, and how long it may take.

    Raises SelectionError for a plan that cannot be carried out.
    """

    scenario: str
    queries: int  # of Offline: requests of its one query
    target_qps: float | None = None  # of Server; None elsewhere
    samples_per_query: int = 8  # of MultiStream
    latency_bound_ms: float = 10.0
    percentile: float = 99.5  # of requests that must be answered within the bound
    seed: int = 0  # of the schedule, and of the choice and order of samples
    warmup_requests: int = 10  # sent one after the other beforehand, and not counted
    query_limit_s: float = 10.0  # after so long without an answer a query ends, as unanswered
    run_limit_s: float = 600.0  # after so long everything ends
    build_limit_s: float = 600.0  # for building and warming what is served, before the run

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise SelectionError(f"there is no scenario {self.scenario!r}, only {', '.join(SCENARIOS)}")
        if (self.scenario == "Server") != (self.target_qps is not None):
            raise SelectionError("the scenario Server, and no other, takes a rate: target_qps, in queries per second")
        positive = ("queries", "target_qps", "samples_per_query", "latency_bound_ms", "query_limit_s", "run_limit_s")
        for name in positive:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise SelectionError(f"{name} must be above 0, not {value}")
        if not 0 < self.percentile < 100:
            raise SelectionError(f"a percentile lies between 0 and 100, not at {self.percentile}")

    @property
    def lag_limit_ms(self) -> float:
        """How late the given percentile of queries may be sent at most, in milliseconds."""
        return self.latency_bound_ms * _LAGGING_SHARE


@dataclass(frozen=True, slots=True)
class Requests:
    """Every request of a run, in the order sent: columns of one length. Times are from the start of the load.

    A request that ended early keeps the time of that; its outcome says that this is no answer's.
    """

    query: tuple[int, ...]  # which query it was part of
    sample: tuple[int, ...]  # which sample it asked about
    scheduled_ns: tuple[int, ...]  # when it ought to be sent; latencies count from here
    sent_ns: tuple[int, ...]  # when the service was handed it
    completed_ns: tuple[int, ...]
    outcome: tuple[str, ...]  # OK, REFUSED, UNANSWERED, UNSENT, or the class of the error

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True)
class LoadRun:
    """One run: what was asked of it, what sent the load, and what became of every request."""

    plan: LoadPlan
    load_engine: str  # one of ENGINES: runs of different ones are not comparable
    engine_version: str
    requests: Requests
    messages: Mapping[str, str] = field(default_factory=dict)  # outcome -> what the first error of it said
    invalid: str | None = None  # why no figure of this run counts, with the figure that says so
    facts: ServedFacts | None = None  # what the service told of itself, where it does

    @property
    def latencies_ns(self) -> tuple[int, ...]:
        """Completed minus scheduled, of every query: its last request's. Of Offline, of every request."""
        return tuple(latency for latency, _ in self.ended)

    @property
    def duration_s(self) -> float:
        """From the first query's schedule to the last request's end."""
        return (max(self.requests.completed_ns) - min(self.requests.scheduled_ns)) / 1e9

    @property
    def answered_per_s(self) -> float:
        """Requests answered in a second of the run. Of Offline, this is its result."""
        return self.requests.outcome.count(OK) / self.duration_s

    def violations(self, latency_bound_ms: float | None = None) -> tuple[bool, ...]:
        """Of every query, in the order sent: was it late, or never answered? The bound is the plan's by default."""
        bound_ns = (self.plan.latency_bound_ms if latency_bound_ms is None else latency_bound_ms) * 1e6
        return tuple(not answered or latency > bound_ns for latency, answered in self.ended)

    def percentile_ms(self, percentile: float) -> float | None:
        """The latency that ``percentile`` percent of queries kept; see `percentile_ms`."""
        return percentile_ms(self.ended, percentile)

    @property
    def ended(self) -> tuple[Ended, ...]:
        """How every query ended, in the order sent; of Offline, every request."""
        requests = self.requests
        keys = range(len(requests)) if self.plan.scenario == "Offline" else requests.query
        ended: dict[int, Ended] = {}
        columns = zip(keys, requests.completed_ns, requests.scheduled_ns, requests.outcome, strict=True)
        for key, completed, scheduled, outcome in columns:
            latency, answered = ended.get(key, (0, True))
            ended[key] = max(latency, completed - scheduled), answered and outcome == OK
        return tuple(ended.values())


def percentile_ms(ended: Iterable[Ended], percentile: float) -> float | None:
    """The latency that ``percentile`` percent of ``ended`` kept, as LoadGen counts it; in milliseconds.

    A query that was not answered is slower than all that were. None where the percentile falls on one of those.
    """
    slowest_last = sorted(ended, key=lambda query: (not query[1], query[0]))
    latency_ns, answered = slowest_last[int(len(slowest_last) * round(percentile / 100, 9))]
    return latency_ns / 1e6 if answered else None


def why_invalid(plan: LoadPlan, requests: Requests) -> str | None:
    """Why no figure of a run counts, with the figure that says so; None where they do."""
    if unsent := requests.outcome.count(UNSENT):
        return (
            f"the run was ended after its limit of {plan.run_limit_s:g} s with {unsent} of {len(requests)} requests "
            "not sent: ask for fewer queries, or allow more time"
        )
    if plan.scenario != "Server":  # elsewhere a query is scheduled at the moment when it is sent
        return None
    lags_ns = sorted(sent - due for sent, due in zip(requests.sent_ns, requests.scheduled_ns, strict=True))
    lag_ms = lags_ns[int(len(lags_ns) * round(plan.percentile / 100, 9))] / 1e6
    if lag_ms <= plan.lag_limit_ms:
        return None
    return (
        f"its own sending lagged: {plan.percentile:g} % of {len(lags_ns)} queries were sent within {lag_ms:.2f} ms of "
        f"their time, {plan.lag_limit_ms:g} ms are allowed (a tenth of the bound); free a processor for the sender, or "
        "ask for a lower rate"
    )
