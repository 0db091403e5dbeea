"""Another processor than the one that runs the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

CPU_INFO = Path("/proc/cpuinfo")


def let_cpu_be(monkeypatch: pytest.MonkeyPatch, cpu_info: str | None, capability: str = "AVX2") -> None:
    """Let the kernel describe the processor as ``cpu_info`` (None: not at all), and torch use ``capability``."""
    is_file, read_text = Path.is_file, Path.read_text
    monkeypatch.setattr(Path, "is_file", lambda path: cpu_info is not None if path == CPU_INFO else is_file(path))
    monkeypatch.setattr(Path, "read_text", lambda path, **how: cpu_info if path == CPU_INFO else read_text(path, **how))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
