"""A callable on a CUDA device: asynchronous work is timed to its end, and its memory is told to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from own_bench import own_bench

from pytest_vq.measure.bench import Bench
from pytest_vq.options import Options
from pytest_vq.schema.cases import CallableCase
from pytest_vq.schema.record import Record

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
MIB = 2**20


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with own_bench(tmp_path, Options(gpu=True, budget=1)) as made:
        yield made
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def record_of(bench: Bench, call: Callable[[], object]) -> Record:
    return bench.measure(CallableCase("test_ops.py::test_it", "test_ops.it", call)).record


def test_work_that_goes_on_after_the_call_returned_is_timed(bench: Bench) -> None:
    cycles = 10_000_000
    record = record_of(bench, lambda: torch.cuda._sleep(cycles))
    shortest_ms = cycles / 3e6  # on any clock up to 3 GHz; the launch alone takes some microseconds
    assert record.timing.latency_ms > shortest_ms
    assert record.timing.device_time_ms is not None
    assert record.timing.device_time_ms == pytest.approx(record.timing.latency_ms, rel=0.1)
    assert record.timing.launch_bound is False
    assert record.setup.threads is None


def test_what_waits_for_the_device_itself_has_no_time_of_the_devices_own(bench: Bench) -> None:
    square = torch.randn(512, 512, device=CUDA)
    assert record_of(bench, lambda: (square @ square).sum().item()).timing.device_time_ms is None


def test_memory_is_what_one_call_takes_beyond_its_arguments(bench: Bench) -> None:
    held = torch.ones(64 * MIB, dtype=torch.uint8, device=CUDA)
    memory = record_of(bench, lambda: held + 1).memory
    assert (memory.resting_memory_bytes, memory.peak_memory_bytes) == (0, 64 * MIB)


def test_workspaces_are_no_part_of_it_whatever_ran_before(bench: Bench) -> None:
    square = torch.randn(1024, 1024, device=CUDA)
    peaks = [record_of(bench, partial(torch.matmul, square, square)).memory.peak_memory_bytes for _ in range(2)]
    assert peaks == [4 * MIB, 4 * MIB]


def test_it_is_profiled_with_who_holds_the_memory_at_the_peak(bench: Bench) -> None:
    square = torch.randn(1024, 1024, device=CUDA)
    profile = bench.profile(CallableCase("test_ops.py::test_it", "test_ops.it", lambda: square @ square))
    assert profile.id == "test_ops.py::test_it"
    assert "aten::mm" in profile.operators
    assert profile.peak_stacks[0].startswith("4.0 MiB at the peak")
