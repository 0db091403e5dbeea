"""What a serving row is of, and what it holds: a pair under load, its batches, and how many requests were late.

Frozen values; importing this loads nothing. Of a process that puts load on a service, see ``load_run``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_vq.errors import SelectionError
from pytest_vq.schema.load_run import SCENARIOS
from pytest_vq.schema.served import BatchTime

MULTI_STREAM, SERVER, OFFLINE = "MultiStream", "Server", "Offline"
VIOLATIONS, OFFLINE_RATE = "violation rate", "Offline rate"  # metrics of a serving row's verdict

# Beyond these no row shows that its bound is kept: so few independent batches carry no answer, and in so short a run
# nobody sees how long queues grow.
MOST_INFLATION = 20.0
MOST_UTILISATION = 0.8


@dataclass(frozen=True, slots=True)
class ServingTerms:
    """How a pair is served, and what is asked of it: part of what makes two serving rows comparable.

    Raises SelectionError for terms that make no sense.
    """

    scenario: str  # one of SCENARIOS
    load_engine: str  # two of them do not draw the same arrivals
    latency_bound_ms: float = 10.0
    percentile: float = 99.5  # of requests that must be answered within the bound
    max_batch_size: int = 8
    max_queue_delay_microseconds: int = 0
    target_qps: float | None = None  # of Server, where the test asks for a rate; None: what the baseline stores
    samples_per_query: int | None = None  # of MultiStream

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise SelectionError(f"there is no scenario {self.scenario!r}, only {', '.join(SCENARIOS)}")
        if not 0 < self.percentile < 100:
            raise SelectionError(f"percentile={self.percentile}: it lies between 0 and 100")
        for name, least in (("max_batch_size", 1), ("max_queue_delay_microseconds", 0)):
            if getattr(self, name) < least:
                raise SelectionError(f"{name}={getattr(self, name)}: it is at least {least}")
        if not self.latency_bound_ms > 0:
            raise SelectionError(f"latency_bound_ms={self.latency_bound_ms}: it is above 0")
        if self.samples_per_query is not None and self.samples_per_query < 1:
            raise SelectionError(f"samples_per_query={self.samples_per_query}: it is at least 1")
        if self.target_qps is not None and (self.scenario != SERVER or not self.target_qps > 0):
            raise SelectionError(f"target_qps={self.target_qps}: the scenario Server takes a rate above 0, others none")

    @property
    def has_rate(self) -> bool:
        """True where queries come at a rate, whether or not the service keeps up."""
        return self.scenario == SERVER

    @property
    def asks_for_rate(self) -> bool:
        """True where the rate is the baseline's to store, or is searched for."""
        return self.has_rate and self.target_qps is None

    @property
    def allowed_rate(self) -> float:
        """The share of requests that may miss the bound."""
        return round((100 - self.percentile) / 100, 9)

    @property
    def words(self) -> str:
        """How a sentence calls it: ``served (Server, batches up to 8, 99.5 % within 10 ms)``."""
        claim = f"{self.percentile:g} % within {self.latency_bound_ms:g} ms"
        return f"served ({self.scenario}, batches up to {self.max_batch_size}, {claim})"


@dataclass(frozen=True, slots=True)
class ServingFigures:
    """What putting a pair under load gave; empty in the rows of pairs that were not. Rates are requests a second."""

    scenario: str | None = None
    target_qps: float | None = None  # that was sent; of Server
    max_qps_low: float | None = None  # the highest rate tried that kept the bound; 0: none did. Only where searched
    max_qps_high: float | None = None  # the lowest rate above it that did not, or the Offline rate
    offline_qps: float | None = None  # answered where all requests came at once
    utilisation: float | None = None  # target_qps / offline_qps
    p995_ms: float | None = None  # from the moment that a request was due; empty where that many were not answered
    violation_rate: float | None = None  # of requests: late, or not answered
    violation_low: float | None = None  # one-sided bounds at 99.9 %
    violation_high: float | None = None
    variance_inflation: float | None = None  # requests depend on each other: so many times fewer would tell as much
    late_requests: int | None = None  # those not answered among them
    unanswered_requests: int | None = None
    load_processes: int | None = None
    queue_ms: float | None = None  # median wait of a request for its batch
    queue_p99_ms: float | None = None
    execution_ms: float | None = None  # median time of a batch
    execution_p99_ms: float | None = None
    mean_batch_size: float | None = None
    fallback_p995_ms: float | None = None  # with the circuit breaker open: FP32 alone answers, at the same rate
    fallback_violation_rate: float | None = None
    fallback_memory_bytes: int | None = None  # that FP32's weights keep occupied beside the quantized model

    @property
    def confirmed_qps(self) -> float | None:
        """The rate at which the bound was kept; whether that is proven, the row's verdict says."""
        return self.target_qps if self.scenario == SERVER else self.offline_qps if self.scenario == OFFLINE else None


@dataclass(frozen=True, slots=True)
class LoadEvidence:
    """What lies behind a serving row's figures: counts and tables, no columns of their own."""

    terms: ServingTerms
    requests: int  # of each process
    batch_times: tuple[BatchTime, ...] = ()  # by size: 1, 2, 4 ...
    batch_sizes: Mapping[str, int] = field(default_factory=dict)  # executed batch's size, as text -> how many
    outcomes: Mapping[str, int] = field(default_factory=dict)  # "ok", "refused", "unanswered", or an error's class
    messages: Mapping[str, str] = field(default_factory=dict)  # outcome -> what the first error of it said
    repeats: int = 0  # processes that did not count (their own sending lagged), and gave way to another one each
    probes: Mapping[str, float | None] = field(default_factory=dict)  # rate tried, as text -> late share; None: untold


@dataclass(frozen=True, slots=True)
class ServingEstimates:
    """One process's share in a serving row: what a baseline keeps of it."""

    requests: int
    late: int
    target_qps: float | None
    p995_ms: float | None
    offline_qps: float | None
    max_qps_low: float | None = None  # of the run that this process was part of, where it searched
    max_qps_high: float | None = None
