"""The driver's management library: opened for one question, or for as long as the process lives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


def open_nvml() -> Any:
    """The initialised ``pynvml`` module, for the rest of the process: who asks often must not open it each time."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def all_uuids() -> frozenset[str]:
    """The UUIDs of all GPUs of this host and of their MIG slices, whether or not this process may use them."""
    found = []
    with nvml_session() as nvml:
        for index in range(nvml.nvmlDeviceGetCount()):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            found.append(nvml.nvmlDeviceGetUUID(gpu))
            with contextlib.suppress(nvml.NVMLError):  # a GPU that cannot be sliced, or has no slice of that number
                for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
                    part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
                    found.append(nvml.nvmlDeviceGetUUID(part))
    return frozenset(found)


@contextlib.contextmanager
def nvml_session() -> Iterator[Any]:
    """The initialised ``pynvml`` module; shut down again at the end."""
    nvml = open_nvml()
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()  # the library counts: one that another part holds open stays so
