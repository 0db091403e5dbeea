"""What a service tells of itself once it was under load. Frozen values; importing this loads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_vq.schema.figures import Coverage, Fidelity, Identity, Preparation


@dataclass(frozen=True, slots=True)
class ExecutedBatch:
    """One execution: how long each of its requests had waited for it, and how long it took."""

    queue_s: tuple[float, ...]
    execution_s: float

    @property
    def size(self) -> int:
        """How many requests were executed together."""
        return len(self.queue_s)


@dataclass(frozen=True, slots=True)
class BatchTime:
    """What one execution of so many requests takes, nothing else going on."""

    batch: int
    execution_ms: float  # median, copies to and from the device included
    images_per_s: float


@dataclass(frozen=True, slots=True)
class ServedFacts:
    """What a pair's service knows of what it served, and of its process."""

    identity: Identity
    coverage: Coverage
    preparation: Preparation
    began_utc: str  # when its process began
    disturbance: str | None = None  # why times taken in it cannot be trusted
    executed: tuple[ExecutedBatch, ...] = ()  # under load, in their order
    fallback_bytes: int | None = None  # that FP32 keeps occupied beside it, where it stood by
    # Of the process that looks the pair over before it is put under load; empty in others.
    fidelity: Fidelity = field(default_factory=Fidelity)
    note: str | None = None
    batch_times: tuple[BatchTime, ...] = ()  # by size: 1, 2, 4 ...
