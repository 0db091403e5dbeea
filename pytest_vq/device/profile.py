"""One profiled pass of a request, outside all timing: which operators it spends its time and memory in.

Where a device keeps the profiler (`Device.keeps_profiler`), nothing may be timed in that process afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from pytest_vq.device.clock import Call
from pytest_vq.schema.estimates import Operator

_KEPT = 40  # operators by time; the rest is noise in a file that people review
_ENOUGH_S, _MOST_CALLS = 0.3, 20
_MOST_CALLS_ON_ACCELERATOR = 3  # a kernel takes about as long each time, and every call leaves thousands of events
_MEMORY = ("[memory]", "[OutOfMemory]")  # not operators: what the allocator did outside of every operator


@dataclass(frozen=True, slots=True)
class Share:
    """What one event adds to the row of its name; ``self_us`` is in microseconds."""

    name: str
    calls: int
    self_us: float
    self_bytes: int


def profile_operators(call: Call, device: torch.device) -> Mapping[str, Operator]:
    """Operators of one ``call``, slowest first, callees left out: on an accelerator by the time of their kernels.

    ``call`` must be warm. Times are means over a few calls, the profiler's own overhead included.
    """
    on_cpu = device.type == "cpu"
    activities = [ProfilerActivity.CPU] if on_cpu else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's own steps stand in every failure's stderr
    most_calls = _MOST_CALLS if on_cpu else _MOST_CALLS_ON_ACCELERATOR
    calls, started_s = 0, time.monotonic()
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        while calls == 0 or (calls < most_calls and time.monotonic() - started_s < _ENOUGH_S):
            call()
            calls += 1
        if not on_cpu:
            torch.accelerator.synchronize()
    events = profiler.events()
    return table_of(host_shares(events) if on_cpu else device_shares(events), calls)


def host_shares(events: Iterable[Any]) -> Iterator[Share]:
    """What each event spends on the CPU itself; in an annotation that is Python's time, between its operators."""
    for event in events:
        yield Share(event.name, 1, event.self_cpu_time_total, event.self_cpu_memory_usage)


def device_shares(events: Iterable[Any]) -> Iterator[Share]:
    """Every kernel's time once: in the row of the operator that launched it or, where none did, in one of its own.

    Torch tells it twice (2.13: ``_parse_kineto_results`` in ``autograd/profiler.py``): kernels and copies are events of
    the device, and are listed once more in ``kernels`` of the event of the host that they are linked to, whose
    ``self_device_time_total`` is their sum. The operators are kept: their names hold across versions, and memory is
    known of them alone. So

    - events of the device count only as far as no operator lists them. What is left was launched past the dispatcher:
      by Triton, by replaying a graph. (bitsandbytes 0.50 launches by ctypes, but from within its own operators.)
    - a user's annotation on the device only spans the kernels launched in it, and does not count.
    - an event of the host that is no operator (``cudaLaunchKernel``, ``Activity Buffer Request``) may bear the number
      of one, and is then given that one's kernels again. Only operators have a ``::`` in their names.
    """
    for event in events:
        if event.device_type.name != "CPU":
            if not event.is_user_annotation:
                yield Share(event.name, 1, event.self_device_time_total, 0)
        elif "::" in event.name:
            yield Share(event.name, 1, event.self_device_time_total, event.self_device_memory_usage)
            # A legacy event's list holds the event itself: torch without CUPTI sees no kernels.
            for kernel in () if event.is_legacy else event.kernels:
                yield Share(kernel.name, -1, -kernel.duration, 0)
        else:  # compiled code allocates past the dispatcher
            yield Share(event.name, 1, 0.0, event.self_device_memory_usage)


def table_of(shares: Iterable[Share], calls: int) -> dict[str, Operator]:
    """``shares`` of so many ``calls`` summed by name, per call: the slowest first, then those that hold most memory.

    What took no time and holds no memory is left out, and so is what was taken back as often as it was counted.
    """
    by_name: dict[str, list[Share]] = {}
    for share in shares:
        by_name.setdefault(share.name, []).append(share)
    table = {
        name: Operator(
            calls=sum(share.calls for share in own) / calls,
            self_ms=sum(share.self_us for share in own) / 1e3 / calls,
            self_bytes=round(sum(share.self_bytes for share in own) / calls),
        )
        for name, own in by_name.items()
        if name not in _MEMORY
    }
    telling = [name for name, row in table.items() if row.calls > 0 and (row.self_ms > 0 or row.self_bytes)]
    first = sorted(telling, key=lambda name: (-table[name].self_ms, -abs(table[name].self_bytes)))
    return {name: table[name] for name in first[:_KEPT]}
