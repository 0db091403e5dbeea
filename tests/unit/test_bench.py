"""What a pair's figures need of the bench: one sentinel, before any memory is marked; the workspace, told apart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_vq import register_model
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device.memory import HostMemory, MemoryReading
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure import bench as bench_module
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.sections import memory_of
from pytest_vq.options import Options
from pytest_vq.schema.spec import Case


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In order: each ``sentinel`` that was built, and each ``mark`` of memory."""
    events: list[str] = []
    build, mark = bench_module.sentinel, HostMemory.mark

    def noted_build(device: torch.device) -> Callable[[], object]:
        events.append("sentinel")
        return build(device)

    def noted_mark(meter: HostMemory) -> None:
        events.append("mark")
        mark(meter)

    monkeypatch.setattr(bench_module, "sentinel", noted_build)
    monkeypatch.setattr(HostMemory, "mark", noted_mark)
    return events


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # its own lock: it waits for no other benchmark
    threads = torch.get_num_threads()
    made = Bench(Options(budget=0.01))
    with isolated():
        register_model("tiny", input_shape=(3, 8, 8))(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
        try:
            yield made
        finally:
            made.release()
            torch.set_num_threads(threads)


def case(scheme: str) -> Case:
    return Case(find_model("tiny"), find_scheme(scheme))


def test_the_sentinel_is_built_once_and_before_any_memory_is_marked(bench: Bench, happened: list[str]) -> None:
    for scheme in ("fp32", "fp16"):
        bench.measure(case(scheme))
    assert happened == ["sentinel", "mark", "mark"]


def test_a_device_that_was_released_holds_no_sentinel_either(bench: Bench, happened: list[str]) -> None:
    bench.measure(case("fp32"))
    bench.release()
    bench.measure(case("fp32"))
    assert happened == ["sentinel", "mark"] * 2


def test_the_row_tells_the_workspace_beside_the_figures_that_it_is_no_part_of() -> None:
    workload: Any = SimpleNamespace(converted=SimpleNamespace(model_size_bytes=20))
    device: Any = SimpleNamespace(memory=SimpleNamespace(resolution_bytes=1))
    found = memory_of(workload, MemoryReading(25, 35, 128, workspace_bytes=32), 70, device, {})
    assert (found.resting_memory_bytes, found.peak_memory_bytes, found.workspace_bytes) == (25, 35, 32)
    assert found.memory_reduction == 0.5
