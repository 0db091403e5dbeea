"""Memory of one forward, measured apart from timing and with no other model in the way.

On an accelerator the figures are what was requested of the caching allocator: exact, and the same from run to run. On a
CPU they are the growth of the process's resident memory and of the kernel's high-water mark, which is coarse.
"""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from pytest_vq.device.clock import Call
from pytest_vq.schema.figures import ACCELERATOR_RESOLUTION_BYTES, CPU_RESOLUTION_BYTES, memory_reduction


@dataclass(frozen=True, slots=True)
class CallMemory:
    """What one call takes of an accelerator's allocator, everything else on the device included."""

    peak_bytes: int | None  # without the workspace; None where the figure would not be valid
    workspace_bytes: int | None  # None where the allocator does not count what is requested of it

    def larger(self, other: CallMemory) -> CallMemory:
        """The larger of each figure; none where either has none."""
        peak_bytes = _larger(self.peak_bytes, other.peak_bytes)
        return CallMemory(peak_bytes, _larger(self.workspace_bytes, other.workspace_bytes))


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes over the state at ``mark``; ``peak_bytes`` is None where the figure would not be valid."""

    resting_bytes: int | None
    peak_bytes: int | None
    reserved_bytes: int | None
    workspace_bytes: int | None = None  # what cuBLAS keeps for itself, part of neither figure above; None on a CPU

    @property
    def activation_bytes(self) -> int | None:
        """What a forward adds to what the model holds at rest."""
        if self.peak_bytes is None or self.resting_bytes is None:
            return None
        return self.peak_bytes - self.resting_bytes

    def saved_of(self, fp32_peak_bytes: int | None, resolution_bytes: int) -> float | None:
        """See `memory_reduction`."""
        return memory_reduction(self.peak_bytes, fp32_peak_bytes, resolution_bytes)


class MemoryMeter(Protocol):
    """``mark`` before the model is built, ``measure`` once it has run warm."""

    resolution_bytes: int
    """What the figures may be off by; a ratio needs figures well above it."""

    def mark(self) -> None:
        """Give back what can be given back, and take this as the state before the model."""
        ...

    def measure(self, call: Call, recorded: CallMemory | None = None, /) -> MemoryReading:
        """The figures of one ``call``, which has run before; everything it returns is dropped.

        ``recorded`` is what it took when it was recorded, where ``call`` replays a CUDA graph: that allocates nothing.
        """
        ...


class AcceleratorMemory:
    """What was requested of the CUDA caching allocator, to the byte; what cuBLAS keeps for itself is told apart.

    Requested, and not allocated: an allocated block may be larger than the tensor in it (a weight of 25 MiB lies in
    26), by as much as 64 MiB for a large model. Only torch's own allocator keeps count of it. Under another one
    (``backend:cudaMallocAsync``) there is no figure, because its blocks under the same name would be another one.

    The first matrix product takes a workspace for cuBLAS and cuBLASLt (32 MiB on Hopper), which torch keeps. It is not
    the model's, whether one is taken depends on the scheme, and in both sides of a ratio it would hide half of what a
    small model saves.
    """

    resolution_bytes = ACCELERATOR_RESOLUTION_BYTES

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before_bytes = 0

    def mark(self) -> None:
        """See ``MemoryMeter.mark``."""
        release_accelerator()
        # A workspace that an earlier model's matrix products took would count as this one's, or not, by test order.
        drop_workspaces()
        torch.cuda.empty_cache()
        self._before_bytes = _requested_bytes(self._device, "current")

    def measure(self, call: Call, recorded: CallMemory | None = None, /) -> MemoryReading:
        """See ``MemoryMeter.measure``. An allocation that had to be retried makes the peak invalid.

        What is dropped at the end is taken anew by the next call, which no timing pays for: a warm-up comes first.
        """
        release_accelerator()
        resting = _requested_bytes(self._device, "current")
        own = measure_allocations(self._device, call)
        reserved = torch.cuda.max_memory_reserved(self._device)
        if own.workspace_bytes is None:
            return MemoryReading(None, None, reserved)
        both = own if recorded is None else own.larger(recorded)
        before, peak = self._before_bytes, both.peak_bytes
        return MemoryReading(
            # A workspace was held since the call before, and what a recording took was dropped with it.
            resting - before - own.workspace_bytes,
            None if peak is None else peak - before,
            reserved,
            both.workspace_bytes,
        )


def measure_allocations(device: torch.device, call: Call) -> CallMemory:
    """What ``call`` takes of the allocator, which has run before: workspaces are dropped afterwards, and so known.

    They were held from before the call to after it, then: what dropping them frees was part of the peak.
    """
    torch.cuda.reset_peak_memory_stats(device)  # of requested bytes too
    troubles = _troubles(device)
    call()
    torch.cuda.synchronize(device)
    peak, held = _requested_bytes(device, "peak"), _requested_bytes(device, "current")
    is_valid = _troubles(device) == troubles
    drop_workspaces()
    if torch.cuda.get_allocator_backend() != "native":
        return CallMemory(None, None)
    workspace = held - _requested_bytes(device, "current")
    return CallMemory(peak - workspace if is_valid else None, workspace)


def drop_workspaces() -> None:
    """Give cuBLAS's and cuBLASLt's workspaces, of all streams, back to the allocator.

    Nothing must use one later without asking for it, as a captured CUDA graph would: before a capture they are dropped,
    so that the graph takes its own from its own pool (as torch's compiler does).
    """
    torch._C._cuda_clearCublasWorkspaces()


def private_pool_bytes(pool: tuple[int, int]) -> int:
    """What the allocator reserves for the graphs that were captured into ``pool``, on all devices."""
    segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    return sum(int(segment["total_size"]) for segment in segments if tuple(segment["segment_pool_id"]) == tuple(pool))


def _requested_bytes(device: torch.device, which: str) -> int:
    """``current`` or ``peak``; 0 where the allocator does not count what is requested of it."""
    return int(torch.cuda.memory_stats(device).get(f"requested_bytes.all.{which}", 0))


def _troubles(device: torch.device) -> tuple[int, int]:
    stats = torch.cuda.memory_stats(device)
    return stats.get("num_alloc_retries", 0), stats.get("num_ooms", 0)


def freeze_live_objects() -> None:
    """Take all that lives now, libraries above all, out of later collections: each took a third of a second."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def release_accelerator() -> None:
    """Drop what Python and the caching allocator still hold on the accelerator."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"  # see proc(5), /proc/pid/clear_refs


class HostMemory:
    """The kernel's resident size and its resettable high-water mark."""

    resolution_bytes = CPU_RESOLUTION_BYTES

    def __init__(self) -> None:
        self._before_bytes = 0

    def mark(self) -> None:
        """See ``MemoryMeter.mark``."""
        _return_free_memory()
        self._before_bytes = _status_bytes("VmRSS")

    def measure(self, call: Call, _: CallMemory | None = None, /) -> MemoryReading:
        """See ``MemoryMeter.measure``. Where the kernel does not let the mark be reset, there is no peak."""
        _return_free_memory()
        resting = self._growth("VmRSS")
        try:
            _CLEAR_REFS.write_text(_RESET_HIGH_WATER_MARK)
        except OSError:
            return MemoryReading(resting, None, None)
        call()
        return MemoryReading(resting, self._growth("VmHWM"), None)

    def _growth(self, field: str) -> int:
        """Never below zero: what the process itself gave back since the mark is not the model's."""
        return max(0, _status_bytes(field) - self._before_bytes)


def _return_free_memory() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only; elsewhere free memory stays resident
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
