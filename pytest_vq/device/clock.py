"""Clocks: what turns calls into milliseconds. CUDA events on an accelerator, the host's clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

Call = Callable[[], object]


class Clock(Protocol):
    """Times calls one request at a time. A fake one drives the sampler in tests."""

    shortest_ms: float
    """The shortest interval this clock resolves well; shorter calls are timed several to an interval."""

    def now_s(self) -> float:
        """Seconds on the clock that budgets are kept by."""
        ...

    def time_ms(self, call: Call, intervals: int, calls_per_interval: int = 1) -> list[float]:
        """Milliseconds per call of each of ``intervals`` timed intervals, in the order taken."""
        ...


class HostClock:
    """``perf_counter_ns`` around each call: right where a call returns only when its work is done."""

    shortest_ms = 0.05

    def now_s(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.perf_counter()

    def time_ms(self, call: Call, intervals: int, calls_per_interval: int = 1) -> list[float]:
        """See ``Clock.time_ms``."""
        now, repeat = time.perf_counter_ns, range(calls_per_interval)
        scale = 1e6 * calls_per_interval
        times = []
        for _ in range(intervals):
            start = now()
            for _ in repeat:
                call()
            times.append((now() - start) / scale)
        return times


class EventClock:
    """A start and a stop event around each request on an idle stream, the host's launches included.

    The stream is idle because each interval ends with a synchronize; what is measured is what a caller waits for.
    Event resolution is about 0.5 µs, 1 % of the shortest interval. A longer one would put several calls of a short
    request back to back, whose launches then hide behind the GPU's work: another meaning of latency.
    """

    shortest_ms = 0.05

    def __init__(self, device: torch.device) -> None:
        self._start = torch.Event(device.type, enable_timing=True)
        self._stop = torch.Event(device.type, enable_timing=True)

    def now_s(self) -> float:
        """Seconds since an arbitrary moment, on the host."""
        return time.perf_counter()

    def time_ms(self, call: Call, intervals: int, calls_per_interval: int = 1) -> list[float]:
        """See ``Clock.time_ms``."""
        start, stop, repeat = self._start, self._stop, range(calls_per_interval)
        torch.accelerator.synchronize()
        times = []
        for _ in range(intervals):
            start.record()
            for _ in repeat:
                call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / calls_per_interval)
        return times
