"""Which GPUs a run may use: what the driver lists, and what CUDA_VISIBLE_DEVICES leaves of it by CUDA's own rules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vq.device import nvml
from pytest_vq.device.visible import InstalledGpus, all_uuids, heeded, visible_gpus

A, B, C = "GPU-aa11", "GPU-aa22", "GPU-bb33"
X, Y = "MIG-1111", "MIG-2222"


class NVMLError_NotSupported(Exception):  # noqa: N801, N818 - the library's own name
    """As the library raises it."""


class NVMLError_NotFound(Exception):  # noqa: N801, N818 - the library's own name
    """As the library raises it."""


def driver(gpus: dict[str, list[str | None] | None], cannot_be_cut: bool = False) -> Any:
    """A pynvml whose GPUs are cut into these slices (None: no slice at that place) or not at all (None)."""
    handles = list(gpus)

    def mig_mode(gpu: str) -> list[int]:
        if cannot_be_cut:
            raise NVMLError_NotSupported
        return [int(gpus[gpu] is not None), 0]

    def slice_at(gpu: str, index: int) -> str:
        found = (gpus[gpu] or [])[index]
        if found is None:
            raise NVMLError_NotFound
        return found

    return SimpleNamespace(
        NVMLError_NotSupported=NVMLError_NotSupported,
        NVMLError_NotFound=NVMLError_NotFound,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(handles),
        nvmlDeviceGetHandleByIndex=lambda index: handles[index],
        nvmlDeviceGetUUID=lambda handle: handle,
        nvmlDeviceGetMigMode=mig_mode,
        nvmlDeviceGetMaxMigDeviceCount=lambda gpu: len(gpus[gpu] or []),
        nvmlDeviceGetMigDeviceHandleByIndex=slice_at,
    )


@pytest.mark.parametrize(
    ("gpus", "cannot_be_cut", "names"),
    [
        ({A: None, B: None}, True, [A, B]),
        ({A: None, B: None}, False, [A, B]),
        ({A: [X, None, Y], B: None}, False, [X, Y, B]),  # slices in the place of the GPU that is cut into them
        ({A: [None, None], B: None}, False, [B]),  # MIG is enabled, and no slice made: nothing to measure on
        ({}, False, []),
    ],
)
def test_all_that_the_driver_lists(monkeypatch: pytest.MonkeyPatch, gpus, cannot_be_cut: bool, names) -> None:
    monkeypatch.setattr(nvml, "open_nvml", lambda: driver(gpus, cannot_be_cut))
    assert visible_gpus({}) == names


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("2", ["2"]),
        (" 1 , 0 ", ["1", "0"]),
        ("", []),
        ("-1", []),
        ("none", []),
        ("0,-1,1", ["0"]),  # the list ends before the first that names nothing
        ("0,3,1", ["0"]),
        ("0,,1", ["0"]),
        ("0,1,0", []),  # named twice: CUDA shows none
        ("1st,+2", ["1st", "+2"]),  # the number that a text starts with, as CUDA reads it
        ("1,1st", []),
        (f"{C},{A}", [C, A]),
        ("GPU-bb,GPU-aa11", ["GPU-bb", "GPU-aa11"]),  # cut short, and still unique
        ("GPU-bb,GPU-aa", ["GPU-bb"]),  # two start so
        ("GPU-bb,GPU-bb33", []),  # one and the same
        ("GPU-cc", []),
        (f"{A},1", [A]),  # all are of the first one's kind
        (f"0,{A}", ["0"]),
        (f"{X},{Y}", [X, Y]),
        ("MIG-2", ["MIG-2"]),
        (f"{X},{A}", [X]),
        ("MIG-3333", []),
        (f"MIG-{C}/7/0", [f"MIG-{C}/7/0"]),  # as older drivers name a slice
        (f"MIG-{A}/7/0", []),  # of a GPU that is not cut
    ],
)
def test_what_an_outer_list_leaves_as_it_is_written(given: str, left: list[str]) -> None:
    assert heeded(given, InstalledGpus((A, B, C), {C: (X, Y)})) == left


def test_an_outer_list_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "open_nvml", lambda: driver({A: None, B: None}))
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-aa22"}) == ["GPU-aa22"]


def test_all_gpus_and_their_slices_are_known_by_their_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = driver({"GPU-1": ["MIG-1", "MIG-2", None], "GPU-2": None})
    monkeypatch.setattr(nvml, "open_nvml", lambda: fake)
    assert all_uuids() == {"GPU-1", "GPU-2", "MIG-1", "MIG-2"}
