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


@contextlib.contextmanager
def nvml_session() -> Iterator[Any]:
    """The initialised ``pynvml`` module; shut down again at the end."""
    nvml = open_nvml()
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()  # the library counts: one that another part holds open stays so
