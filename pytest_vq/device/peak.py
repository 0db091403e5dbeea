"""Who holds the accelerator's memory at the peak of one request: the stacks of the allocations alive then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pytest_vq.device.clock import Call

TOP = 5
_ENTRIES = 100_000  # allocator events kept: one forward of the largest model has a few thousand
_MIB = 2**20


def peak_stacks(call: Call, device: torch.device) -> list[str]:
    """Up to five sentences: bytes alive at the peak of one warm ``call`` on a CUDA device, by the line that took them.

    From the allocator's own history (``torch.cuda.memory``), recorded for this one call.
    """
    torch.cuda.synchronize(device)
    torch.cuda.memory._record_memory_history(max_entries=_ENTRIES, stacks="python")
    try:
        before = len(_history(device))  # of whoever recorded earlier in this process
        call()
        torch.cuda.synchronize(device)
        events = _history(device)[before:]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    return largest(alive_at_peak(events))


def _history(device: torch.device) -> list[Mapping[str, Any]]:
    """The allocator's events on ``device`` so far, in order."""
    traces: list[list[Mapping[str, Any]]] = torch.cuda.memory._snapshot()["device_traces"]
    return traces[device.index or 0]


def alive_at_peak(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The allocations of ``events`` that were alive when their sum was largest.

    ``events`` are the allocator's, in order: mappings with ``action``, ``addr``, ``size`` in bytes and ``frames``.
    """
    alive: dict[int, Mapping[str, Any]] = {}
    total = peak = 0
    at_peak: list[Mapping[str, Any]] = []
    for event in events:
        if event["action"] == "alloc":
            alive[event["addr"]] = event
            total += event["size"]
            if total > peak:
                peak, at_peak = total, list(alive.values())
        elif event["action"] == "free_completed" and event["addr"] in alive:
            total -= alive.pop(event["addr"])["size"]
    return at_peak


def largest(allocations: Sequence[Mapping[str, Any]]) -> list[str]:
    """``allocations`` summed by where they were made, largest first, a sentence each."""
    sizes: Counter[str] = Counter()
    for allocation in allocations:
        sizes[_place(allocation["frames"])] += allocation["size"]
    whole = sum(sizes.values()) or 1
    return [
        f"{size / _MIB:.1f} MiB at the peak ({size / whole:.0%}) from {place}" for place, size in sizes.most_common(TOP)
    ]


def _place(frames: Sequence[Mapping[str, Any]]) -> str:
    """The two innermost Python lines outside torch itself: the operator's caller, and its caller."""
    own = [frame for frame in frames if "/torch/" not in frame["filename"]] or list(frames)
    lines = [f"{frame['filename'].rpartition('/')[2]}:{frame['line']} {frame['name']}" for frame in own[:2]]
    return " < ".join(lines) or "an unknown place"
