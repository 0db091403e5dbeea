"""What was measured and what was decided. Frozen values and the JSON schema they are stored in.

Every field that is a quantity names its unit. ``None`` means "not measured": it is written as an empty cell, never as a
made-up value.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pytest_vq.schema.verdict import Status

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Samples:
    """Times of one workload, in milliseconds per call, in the order they were taken."""

    times_ms: tuple[float, ...]
    stop_reason: str  # interval, budget, protocol
    warmup_calls: int


@dataclass(frozen=True, slots=True)
class Timing:
    """What ``gpu_timer`` returns: the median time of one call with its 95 % interval, and its peak memory."""

    latency_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    samples_ms: tuple[float, ...]
    peak_memory_bytes: int | None
    stop_reason: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a scheme really did to a model's linear layers."""

    eligible: int  # linear layers outside the head
    quantized: int  # of those, the ones the scheme holds now
    left: Mapping[str, str] = field(default_factory=dict)  # eligible layer left alone -> why


@dataclass(frozen=True, slots=True)
class Setup:
    """What must be equal for two figures of one model on one device to be comparable: a baseline entry's key."""

    precision: str
    batch: int
    protocol: str
    weights: str
    threads: int | None  # intra-op threads on the CPU; None on an accelerator
    tf32: bool


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a process measured. ``device_slug`` names the baselines' directory."""

    device: str  # "cpu" or "cuda"
    device_name: str
    device_slug: str
    device_uuid: str
    versions: Mapping[str, str]  # library -> version: python, torch, cuda, transformers, bitsandbytes, driver ...
    settings: Mapping[str, str | None]  # power limit, application clocks, MIG profile, CPU governor ...
    commit: str | None  # of the repository under test, with "-dirty" where it has changes
    date_utc: str


@dataclass(frozen=True, slots=True)
class Record:
    """One measured pair: a row of ``results.csv`` (fields in column order) and of ``study.json``."""

    model: str
    category: str
    architecture: str
    parameters: int
    precision: str
    method: str
    device: str
    batch: int
    weights: str
    latency_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_q10_ms: float | None  # the steadier estimate that gates use on a shared machine
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    latency_cv: float | None
    device_time_ms: float | None
    throughput_ips: float | None
    samples: int
    stop_reason: str
    launch_bound: bool | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    sentinel_ms: float | None  # the fixed reference workload interleaved with this pair (its 25 % quantile)
    resting_memory_bytes: int | None
    peak_memory_bytes: int | None
    activation_memory_bytes: int | None
    reserved_memory_bytes: int | None
    device_memory_bytes: int | None  # NVML's figure for the whole device
    model_size_bytes: int
    memory_reduction: float | None
    quantized_layers: int
    eligible_layers: int
    cosine: float | None
    sqnr_db: float | None
    max_abs_error: float | None
    top1_agreement: float | None
    accuracy: float | None
    labelled_images: int | None
    setup: Setup
    coverage: Coverage
    disturbance: str | None = None  # why times taken here cannot be trusted: throttling, a busy neighbour
    telemetry: Mapping[str, Any] = field(default_factory=dict)  # clocks, throttle counters, load: before and after
    verdict: Status | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """The pair's id, as in the test's name."""
        suffix = "" if self.batch == 1 else f"-b{self.batch}"
        return f"{self.model}-{self.precision}{suffix}"

    def to_json(self) -> str:
        """This record as one line of JSON."""
        text: bytes = _encoder()(self)
        return text.decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """The record in ``text``. Raises ``msgspec.ValidationError`` on a missing field or a wrong type."""
        import msgspec

        return msgspec.json.decode(text, type=cls)


# Nested evidence stays out of the flat table; study.json has it.
NESTED_FIELDS = frozenset({"setup", "coverage", "telemetry"})
COLUMNS = tuple(f.name for f in fields(Record) if f.name not in NESTED_FIELDS)


@functools.cache
def _encoder() -> Any:
    import msgspec

    return msgspec.json.Encoder().encode


def flat_row(record: Record) -> dict[str, Any]:
    """``record`` as one row of the table: column -> value, ``None`` where nothing was measured."""
    row = asdict(record)
    return {column: row[column] for column in COLUMNS}
