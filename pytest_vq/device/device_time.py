"""The span of the GPU's own work, with the host's launches hidden behind a blocked queue.

A kernel spins while the host launches the whole forward behind it; the events around the forward then see the GPU
alone. That needs the host to be done launching before the spinning ends, which is checked.

Hidden so can be what neither waits for the GPU itself nor launches more than the queue holds, about 1,000 kernels:
most forwards in FP32 and FP16, and NF4's of all but the largest models. LLM.int8 cannot, because it asks in every layer
whether there are outliers. A CUDA graph's replay is one launch. There is no second way on purpose:
the profiler's kernel times are another definition under the same name, and a process that was profiled once launches
more slowly ever after.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch

from pytest_vq.device.clock import Call

METHOD = "blocked queue"  # what ``device_time_method`` says beside a figure
_REPEATS = 10
_FAILURES = 2  # after so many the forward itself is taken to be the cause: each costs three times its latency
_SPIN_HEADROOM = 3.0  # times the host's launching time
_MAX_SPIN_S = 0.5


def device_time_ms(call: Call, latency_ms: float) -> float | None:
    """Median milliseconds the GPU works on one warm ``call``; None where its launches cannot be hidden.

    ``latency_ms`` bounds the host's launching time from above; a call of more than a sixth of a second is not tried.
    None is said of the call's launches and says nothing about how long the GPU works on it.
    """
    spin_s = _SPIN_HEADROOM * latency_ms / 1e3
    if spin_s > _MAX_SPIN_S:
        return None
    return median_of_hidden(partial(_blocked_queue_ms, call, spin_s))


def median_of_hidden(attempt: Callable[[], float | None]) -> float | None:
    """The median of ten attempts that succeeded, in their unit; None once two came back with None."""
    spans: list[float] = []
    failures = 0
    while len(spans) < _REPEATS:
        span = attempt()
        if span is not None:
            spans.append(span)
        elif (failures := failures + 1) == _FAILURES:
            return None
    return statistics.median(spans)


def _blocked_queue_ms(call: Call, spin_s: float) -> float | None:
    """The span of one call behind a spinning kernel; None if the GPU got to it before the host was done launching."""
    unblocked, start, stop = (torch.Event("cuda", enable_timing=True) for _ in range(3))
    torch.cuda.synchronize()
    torch.cuda._sleep(int(spin_s * _clock_hz()))  # type: ignore[no-untyped-call]
    unblocked.record()
    start.record()
    call()
    stop.record()
    if unblocked.query():
        torch.cuda.synchronize()
        return None
    stop.synchronize()
    return start.elapsed_time(stop)


def _clock_hz() -> float:
    # The spin counts cycles of the SM clock, whose maximum is given in kHz; slower clocks only spin longer.
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return getattr(properties, "clock_rate", 2_000_000) * 1e3
