"""Whether a latency percentile under load may be claimed: from which requests were late, in the order they were due.

"99.5 % of requests within 10 ms" is a claim on the violation rate: at most 0.5 % late. Were requests independent, the
number of late ones would be binomial (MLPerf's early stopping: MLCommons, "Inference policies", appendix "Early
Stopping Criterion"). Under load they are not: who comes behind a late request is late too. So a few late requests say
less than their number, by the variance inflation that the means of consecutive batches show (Law & Kelton, "Simulation
Modeling and Analysis", on batch means; Kish's effective sample size), and the exact interval of Clopper & Pearson
(1934) is taken on the numbers divided by it. ``docs/under-load.md`` has how often this is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_vq.schema.serving import MOST_INFLATION, MOST_UTILISATION
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import plain_percent

PROCESSES = 5
BATCHES = 50  # whose means show the variance, of all processes together
_PER_PROCESS = BATCHES // PROCESSES
MOST_REQUESTS = 10_000  # of one process
_LEAST_PER_BATCH = 2


@dataclass(frozen=True, slots=True)
class TailClaim:
    """What is claimed, and what it takes to believe it."""

    percentile: float = 99.5  # of requests are within the bound
    confidence: float = 0.999  # one-sided, of both bounds on the violation rate
    most_inflation: float = MOST_INFLATION
    most_utilisation: float = MOST_UTILISATION

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 100:
            raise ValueError(f"percentile: {self.percentile} is not between 0 and 100")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence: {self.confidence} is not between 0.5 and 1")

    @property
    def violation_rate(self) -> float:
        """The share of requests that may be late."""
        return (100 - self.percentile) / 100

    @property
    def least_requests(self) -> int:
        """The effective requests below which not even a run with none late proves the claim; 1,379 by default."""
        return least_requests(0, self.violation_rate, self.confidence)


DEFAULT_CLAIM = TailClaim()


@dataclass(frozen=True, slots=True)
class TailVerdict:
    """The answer to a claim, why, and the figures that it follows from."""

    status: Status  # PASS, FAIL or INCONCLUSIVE
    reason: str
    requests: int
    late: int
    inflation: float  # of the variance, at least 1
    violation_low: float  # bounds on the share of requests that are late, each at the claim's confidence
    violation_high: float
    utilisation: float

    @property
    def violation_rate(self) -> float:
        """The share of requests that were late."""
        return self.late / self.requests

    @property
    def effective_requests(self) -> float:
        """How many independent requests would tell as much."""
        return self.requests / self.inflation


def binomial_passes(late: int, requests: int, violation_rate: float, confidence: float) -> bool:
    """Whether ``late`` of ``requests`` independent ones prove a rate of at most ``violation_rate``."""
    from scipy.stats import binom

    return bool(binom.cdf(late, requests, violation_rate) <= 1 - confidence)


def least_requests(late: int, violation_rate: float, confidence: float) -> int:
    """The fewest independent requests that prove a rate of at most ``violation_rate`` where ``late`` were late."""
    low, high = late, late + 1
    while not binomial_passes(late, high, violation_rate, confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_passes(late, middle, violation_rate, confidence):
            high = middle
        else:
            low = middle
    return high


def plan_requests(budget_s: float, rate_qps: float, most: int = MOST_REQUESTS) -> int:
    """How many requests each of the processes sends: fixed beforehand, by the budget for all of them together.

    To go on until the answer is a good one would be one more chance to be wrong at every look. The number is a multiple
    of the batches of a process. Raises ValueError where the budget has no room for that many.
    """
    affordable = min(math.floor(budget_s * rate_qps / PROCESSES), most)
    planned = affordable - affordable % _PER_PROCESS
    if planned < _PER_PROCESS * _LEAST_PER_BATCH:
        least_s = PROCESSES * _PER_PROCESS * _LEAST_PER_BATCH / rate_qps
        raise ValueError(
            f"{budget_s:g} s at {rate_qps:g} queries/s are {affordable} requests in each of {PROCESSES} processes, "
            f"too few to judge a tail: give at least {math.ceil(least_s)} s, or a higher rate"
        )
    return planned


def inflation_of(late: Any) -> Any:
    """By how much the variance of the late share exceeds that of independent requests; at least 1, and 1 at none late.

    ``late`` is an array of booleans ``[..., processes, requests]``, in the order the requests were due. The variance is
    that of the means of ``BATCHES`` batches around the mean of all: what differs between processes counts too.
    """
    import numpy as np

    late = np.asarray(late, dtype=float)
    *leading, processes, requests = late.shape
    each = BATCHES // processes
    size = requests // each
    means = late[..., : each * size].reshape(*leading, processes * each, size).mean(axis=-1)
    share = late.mean(axis=(-2, -1))
    independent = share * (1 - share) / size
    variance = means.var(axis=-1, ddof=1)
    return np.maximum(np.divide(variance, independent, out=np.ones_like(share), where=independent > 0), 1.0)


def clopper_pearson(late: Any, requests: Any, confidence: float) -> tuple[Any, Any]:
    """Exact one-sided bounds on a rate of which ``late`` of ``requests`` were seen; fractions of requests may be given.

    Clopper & Pearson 1934, in the form with quantiles of the beta distribution, which takes fractions too.
    """
    import numpy as np
    from scipy.special import betaincinv

    late, requests = np.asarray(late, dtype=float), np.asarray(requests, dtype=float)
    rest = requests - late
    some, not_all = late > 0, rest > 0
    low = np.where(some, betaincinv(np.where(some, late, 1.0), rest + 1, 1 - confidence), 0.0)
    high = np.where(not_all, betaincinv(late + 1, np.where(not_all, rest, 1.0), confidence), 1.0)
    return low, high


def judge_tail(late: Sequence[Sequence[bool]], utilisation: float, claim: TailClaim = DEFAULT_CLAIM) -> TailVerdict:
    """The three-way verdict on ``claim``.

    Args:
        late: for each process, which of its requests missed the bound, in the order they were due. What was refused,
            failed or never answered is late.
        utilisation: the rate sent ÷ the `Offline` rate at the same largest batch.
        claim: what is claimed.

    Raises ValueError where processes sent unequal numbers of requests, or too few.
    """
    _check_shape(late)
    inflation = float(inflation_of(late))
    requests, count = sum(map(len, late)), sum(map(sum, late))
    low, high = clopper_pearson(count / inflation, requests / inflation, claim.confidence)
    found = TailVerdict(Status.PASS, "", requests, count, inflation, float(low), float(high), utilisation)
    return decide_tail(found, claim)


def decide_tail(found: TailVerdict, claim: TailClaim = DEFAULT_CLAIM) -> TailVerdict:
    """``found`` with the status and the reason that its figures give."""
    status, reason = _decide(found, claim)
    return replace(found, status=status, reason=reason)


def _check_shape(late: Sequence[Sequence[bool]]) -> None:
    sizes = {len(process) for process in late}
    if len(late) == 0 or BATCHES % len(late):
        raise ValueError(f"{len(late)} processes: {BATCHES} batches do not divide among them")
    if len(sizes) != 1:
        raise ValueError(f"processes sent unequal numbers of requests: {sorted(sizes)}")
    if min(sizes) < (least := BATCHES // len(late) * _LEAST_PER_BATCH):
        raise ValueError(f"{min(sizes)} requests a process: at least {least} are needed to judge a tail")


def _decide(found: TailVerdict, claim: TailClaim) -> tuple[Status, str]:
    allowed = claim.violation_rate
    bounds = f"{plain_percent(found.violation_low)} … {plain_percent(found.violation_high)}"
    seen = (
        f"{found.late:,} of {found.requests:,} requests late ({plain_percent(found.violation_rate)}; "
        f"{bounds} at {100 * claim.confidence:g} % a side, "
        f"variance inflation {found.inflation:.3g}), {plain_percent(allowed)} allowed"
    )
    if found.violation_low > allowed:
        return Status.FAIL, seen
    doubts = []
    if found.inflation > claim.most_inflation:
        doubts.append(f"requests depend on each other too much: variance inflation above {claim.most_inflation:g}")
    if found.utilisation > claim.most_utilisation:
        doubts.append(
            f"utilisation {found.utilisation:.2f} is above {claim.most_utilisation:g}: queues may grow longer than "
            "this run could show"
        )
    if found.effective_requests < claim.least_requests:
        doubts.append(
            f"{math.floor(found.effective_requests):,} effective requests, where {claim.least_requests:,} are needed "
            "with none late: give a larger budget"
        )
    elif found.violation_high > allowed:
        doubts.append("the bounds hold the share allowed between them: lower the rate, or give a larger budget")
    return (Status.INCONCLUSIVE, f"{seen}; {'; '.join(doubts)}") if doubts else (Status.PASS, seen)
