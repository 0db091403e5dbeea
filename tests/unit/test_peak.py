"""Who holds memory at the peak: from the allocator's history, recorded for one call and no longer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vq.device.peak import alive_at_peak, largest, peak_stacks

MIB = 2**20
CUDA = torch.device("cuda", 1)


def frame(name: str, filename: str = "/home/me/net.py", line: int = 7) -> dict[str, object]:
    return {"name": name, "filename": filename, "line": line}


def alloc(addr: int, mib: int, name: str = "forward") -> dict[str, object]:
    return {"action": "alloc", "addr": addr, "size": mib * MIB, "frames": [frame(name)]}


def free(addr: int) -> dict[str, object]:
    return {"action": "free_completed", "addr": addr, "size": 0, "frames": []}


def test_what_is_freed_before_the_peak_is_not_alive_at_it() -> None:
    events = [alloc(1, 5), free(1), alloc(1, 2), alloc(2, 4), free(2), alloc(3, 3)]
    assert [event["size"] // MIB for event in alive_at_peak(events)] == [2, 4]


def test_memory_from_before_the_call_may_be_freed_in_it() -> None:
    assert alive_at_peak([free(99), {"action": "free_requested", "addr": 1, "size": 0, "frames": []}]) == []


def test_places_are_summed_and_the_largest_named_first() -> None:
    events = [alloc(1, 1, "embed"), alloc(2, 4, "attend"), alloc(3, 3, "embed"), alloc(4, 2, "head")]
    assert largest(events) == [
        "4.0 MiB at the peak (40%) from net.py:7 embed",
        "4.0 MiB at the peak (40%) from net.py:7 attend",
        "2.0 MiB at the peak (20%) from net.py:7 head",
    ]


def test_torchs_own_lines_are_left_out_where_there_are_others() -> None:
    inner = frame("linear", "/site/torch/nn/functional.py", 1)
    both = {"action": "alloc", "addr": 1, "size": MIB, "frames": [inner, frame("attend"), frame("layer", line=9)]}
    only = {"action": "alloc", "addr": 2, "size": MIB, "frames": [inner]}
    assert largest([both])[0].endswith("from net.py:7 attend < net.py:9 layer")
    assert largest([only])[0].endswith("from functional.py:1 linear")
    assert largest([{**both, "frames": []}])[0].endswith("from an unknown place")


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An allocator of two devices: its events on the second, and how its recording was switched."""
    state: dict[str, Any] = {"events": [], "switched": [], "synchronized": 0}

    def record(enabled: str | None = "all", **how: Any) -> None:
        state["switched"].append(enabled)

    def synchronize(device: torch.device) -> None:
        assert device == CUDA
        state["synchronized"] += 1

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", record)
    monkeypatch.setattr(
        torch.cuda.memory, "_snapshot", lambda: {"device_traces": [[alloc(9, 999)], list(state["events"])]}
    )
    return state


def test_the_history_is_that_of_the_call_on_its_device(history: dict[str, Any]) -> None:
    history["events"] = [alloc(1, 500, "earlier")]  # someone else's

    def call() -> None:
        assert history["switched"] == ["all"]
        history["events"] += [alloc(2, 3), free(2), alloc(3, 4, "attend")]

    assert peak_stacks(call, CUDA) == ["4.0 MiB at the peak (100%) from net.py:7 attend"]
    assert history["switched"] == ["all", None]
    assert history["synchronized"] == 2  # what was asked for before, and what the call asks for, is done


def test_recording_ends_though_the_call_raises(history: dict[str, Any]) -> None:
    def call() -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        peak_stacks(call, CUDA)
    assert history["switched"] == ["all", None]
