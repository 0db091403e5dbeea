"""One profiled pass of a request, outside all timing: which operators it spends its time and memory in."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch
from torch.profiler import ProfilerActivity, profile

from pytest_vq.device.clock import Call
from pytest_vq.schema.estimates import Operator

_KEPT = 40  # operators by time; the rest is noise in a file that people review
_ENOUGH_S, _MOST_CALLS = 0.3, 20


def profile_operators(call: Call, device: torch.device) -> Mapping[str, Operator]:
    """Operators of one ``call`` by self time: kernels on an accelerator, ATen operators on a CPU.

    ``call`` must be warm. Times are means over a few calls, the profiler's own overhead included.
    """
    activities = [ProfilerActivity.CPU]
    on_cpu = device.type == "cpu"
    if not on_cpu:
        activities.append(ProfilerActivity.CUDA)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's own steps stand in every failure's stderr
    calls, started_s = 0, time.monotonic()
    with profile(activities=activities, profile_memory=True) as profiler:
        while calls == 0 or (calls < _MOST_CALLS and time.monotonic() - started_s < _ENOUGH_S):
            call()
            calls += 1
        if not on_cpu:
            torch.accelerator.synchronize()
    operators = {}
    for event in profiler.key_averages():
        self_us = event.self_cpu_time_total if on_cpu else event.self_device_time_total
        self_bytes = event.self_cpu_memory_usage if on_cpu else event.self_device_memory_usage
        if self_us > 0:
            operators[event.key] = Operator(
                calls=event.count / calls, self_ms=self_us / 1e3 / calls, self_bytes=round(self_bytes / calls)
            )
    slowest = sorted(operators, key=lambda name: operators[name].self_ms, reverse=True)[:_KEPT]
    return {name: operators[name] for name in slowest}
