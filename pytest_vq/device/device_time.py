"""The span of the GPU's own work, with the host's launches hidden.

The queue is blocked by a kernel that spins while the host launches the whole forward behind it; the events around the
forward then see the GPU alone. That needs the host to be done launching before the spinning ends, which is checked. A
forward that waits for the GPU itself (LLM.int8 with outliers does) cannot be hidden so: there the kernels' own times
are summed from the profiler.
"""

from __future__ import annotations

import statistics

import torch

from pytest_vq.device.clock import Call

_REPEATS = 10
_SPIN_HEADROOM = 3.0  # times the host's launching time
_MAX_SPIN_S = 0.5


def device_time_ms(call: Call, latency_ms: float) -> float | None:
    """Median milliseconds the GPU works on one ``call``; None where neither way can tell.

    ``latency_ms`` bounds the host's launching time from above.
    """
    spin_s = _SPIN_HEADROOM * latency_ms / 1e3
    if spin_s <= _MAX_SPIN_S:
        spans = [_blocked_queue_ms(call, spin_s) for _ in range(_REPEATS)]
        hidden = [span for span in spans if span is not None]
        if len(hidden) > _REPEATS / 2:
            return statistics.median(hidden)
    return _profiled_ms(call)


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


def _profiled_ms(call: Call, repeats: int = 3) -> float | None:
    """Kernel and copy time of one call, as the profiler (CUPTI) saw it; None where it saw none."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    total_us = sum(event.self_device_time_total for event in profiler.key_averages())
    return total_us / 1e3 / repeats or None
