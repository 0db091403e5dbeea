"""What a baseline holds: the figures of fresh processes, the accepted ones, and where a call spent its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.serving import ServingEstimates
from pytest_vq.schema.setup import Setup


@dataclass(frozen=True, slots=True)
class Estimates:
    """One fresh process's figures of one pair, or callable: a line of a baseline, and the unit of replication."""

    latency_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_q10_ms: float | None
    samples: int
    sentinel_ms: float | None
    device_time_ms: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    resting_memory_bytes: int | None
    peak_memory_bytes: int | None
    model_size_bytes: int | None
    sqnr_db: float | None
    cosine: float | None
    accuracy: float | None
    device_uuid: str
    versions: Mapping[str, str]
    commit: str | None
    date_utc: str
    right_answers: str | None = None  # a bit an image, hexadecimal; only an anchor's estimates keep it
    latency_p95_ms: float | None = None
    sentinel_median_ms: float | None = None
    device_speedup: float | None = None
    launch_bound: bool | None = None
    sm_clock_mhz: float | None = None  # median while timing
    power_limit_mw: int | None = None
    serving: ServingEstimates | None = None  # of a process that put load on a service

    @classmethod
    def of(cls, record: Record, environment: Environment) -> Estimates:
        """The estimates in ``record``, stamped with the process that took them."""
        timing, memory, fidelity = record.timing, record.memory, record.fidelity
        return cls(
            latency_ms=timing.latency_ms,
            latency_low_ms=timing.latency_low_ms,
            latency_high_ms=timing.latency_high_ms,
            latency_q10_ms=timing.latency_q10_ms,
            samples=timing.samples,
            sentinel_ms=timing.sentinel_ms,
            device_time_ms=timing.device_time_ms,
            speedup=timing.speedup,
            speedup_low=timing.speedup_low,
            speedup_high=timing.speedup_high,
            resting_memory_bytes=memory.resting_memory_bytes,
            peak_memory_bytes=memory.peak_memory_bytes,
            model_size_bytes=memory.model_size_bytes,
            sqnr_db=fidelity.sqnr_db,
            cosine=fidelity.cosine,
            accuracy=fidelity.accuracy,
            device_uuid=environment.device_uuid,
            versions=environment.versions,
            commit=environment.commit,
            date_utc=environment.date_utc,
            right_answers=record.right_answers,
            latency_p95_ms=timing.latency_p95_ms,
            sentinel_median_ms=timing.sentinel_median_ms,
            device_speedup=timing.device_speedup,
            launch_bound=timing.launch_bound,
            sm_clock_mhz=timing.sm_clock_mhz,
            power_limit_mw=_power_limit_mw(environment),
        )


def _power_limit_mw(environment: Environment) -> int | None:
    limit = environment.settings.get("power_limit_mw")
    return int(limit) if limit and limit.isdigit() else None


@dataclass(frozen=True, slots=True)
class Operator:
    """What one call of a model spends in one operator, its callees left out; on an accelerator, in its kernels."""

    calls: float
    self_ms: float
    self_bytes: int  # allocated minus freed


@dataclass(frozen=True, slots=True)
class Anchor:
    """The estimates that a person accepted; the gate compares with them too, so that small losses do not add up."""

    estimates: tuple[Estimates, ...]
    reason: str
    date_utc: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What a baseline holds for one setup of one model on one device; ``processes`` are oldest first.

    ``operators`` are those of the first recorded process since the anchor: what a failure is explained against.
    """

    setup: Setup
    anchor: Anchor
    processes: tuple[Estimates, ...]
    operators: Mapping[str, Operator] = field(default_factory=dict)
