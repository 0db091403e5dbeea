"""What a pair's figures need of the bench: one sentinel, before any memory is marked; the workspace, told apart.

And what an execution brings into them: the cost of preparing, outside the budget, and memory where it is the model's.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_clock import FakeClock
from own_bench import own_bench
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.catalog.models import find_model
from pytest_vq.device import device as device_module
from pytest_vq.device.memory import CallMemory, HostMemory, MemoryReading
from pytest_vq.execution import executions
from pytest_vq.execution.prepared import GraphCounts, Prepared
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure import bench as bench_module
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.sections import memory_of
from pytest_vq.options import Options
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import Case, ExecutionSpec, Scheme


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
def bench(tmp_path: Path) -> Iterator[Bench]:
    with own_bench(tmp_path, Options(budget=0.01)) as made:
        register_model("tiny", input_shape=(3, 8, 8))(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
        yield made


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


def test_the_row_tells_workspace_and_pool_beside_the_figures_that_they_are_no_part_of() -> None:
    workload: Any = SimpleNamespace(
        converted=SimpleNamespace(model_size_bytes=20), prepared=SimpleNamespace(pool_bytes=5)
    )
    device: Any = SimpleNamespace(memory=SimpleNamespace(resolution_bytes=1))
    found = memory_of(workload, MemoryReading(25, 35, 128, workspace_bytes=32), 70, device, {})
    assert (found.resting_memory_bytes, found.peak_memory_bytes, found.workspace_bytes) == (25, 35, 32)
    assert found.graph_pool_bytes == 5
    assert found.memory_reduction == 0.5


class World:
    """A clock that only passes as it is told to, and an execution on it, whose calls take 2 to 6 ms; FP32's take 8."""

    SLOW = ExecutionSpec("slow", prepare=f"{__name__}:prepare")

    def __init__(self, bench: Bench) -> None:
        self.clock = FakeClock()
        self.prepare_s = 0.0
        self.random = random.Random(0)
        self.prepared = Prepared(torch.sum)
        self.calls = 0
        bench._device = replace(bench.device, clock=self.clock)
        bench._alter = self.alter

    def prepare(self, converted: Converted) -> Prepared:
        self.clock.now_ms += self.prepare_s * 1e3
        return replace(self.prepared, call=converted.module)

    def alter(self, scheme: Scheme, prepared: Prepared) -> Prepared:
        def call(images: Tensor) -> object:
            self.clock.now_ms += 8 if scheme.is_reference else self.random.uniform(2, 6)
            self.calls += 1
            return prepared.call(images)

        return replace(prepared, call=call)


def prepare(converted: Converted, _: Tensor) -> Prepared:
    return world.prepare(converted)


world: World


@pytest.fixture
def own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> World:
    global world
    world = World(bench)

    def sentinel(_: torch.device) -> Callable[[], None]:
        def call() -> None:
            world.clock.now_ms += 1

        return call

    monkeypatch.setattr(bench_module, "sentinel", sentinel)
    monkeypatch.setattr(executions, "_EXECUTIONS", (*executions._EXECUTIONS, World.SLOW))
    return world


def measure_on_fake_clock(bench: Bench, prepare_s: float) -> Record:
    bench._options = Options(budget=2)
    world.prepare_s, world.random = prepare_s, random.Random(0)
    return bench.measure(case("fp16+slow")).record


def test_preparing_does_not_eat_the_budget_of_timing(bench: Bench, own: World) -> None:
    quick, slow = measure_on_fake_clock(bench, 0), measure_on_fake_clock(bench, 1000)
    assert (quick.prepare_s, slow.prepare_s) == (0, 1000)
    assert (quick.samples, quick.stop_reason) == (slow.samples, slow.stop_reason)
    assert (quick.latency_ms, quick.stop_reason) == (pytest.approx(slow.latency_ms), "budget")
    assert quick.samples > 100


def test_a_recompilation_while_it_is_timed_is_in_the_row(bench: Bench, own: World) -> None:
    def count() -> GraphCounts:
        return GraphCounts(graphs=1 + own.calls // 20, graph_breaks=0, recompiles=own.calls // 20)

    own.prepared = Prepared(torch.sum, cache="cold", counts=count)
    record = measure_on_fake_clock(bench, 0)
    assert (record.prepare_cache, record.graph_breaks) == ("cold", 0)
    assert record.recompiles > 0
    assert record.graphs == 1 + record.recompiles


def test_what_a_graph_took_when_it_was_recorded_and_its_pool_are_in_the_row(
    bench: Bench, own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[CallMemory | None] = []

    def measure(_: HostMemory, call: Callable[[], object], recorded: CallMemory | None = None) -> MemoryReading:
        given.append(recorded)
        return MemoryReading(100 * 2**20, 200 * 2**20, None)

    monkeypatch.setattr(HostMemory, "measure", measure)
    own.prepared = Prepared(torch.sum, pool_bytes=22, recorded=CallMemory(7, 5))
    record = measure_on_fake_clock(bench, 0)
    assert given == [None, CallMemory(7, 5)]  # FP32 and the candidate
    assert (record.graph_pool_bytes, record.peak_memory_bytes, record.memory_reduction) == (22, 200 * 2**20, 0.0)
    assert record.note is None


def test_eager_execution_has_neither_pool_nor_preparation(bench: Bench) -> None:
    record = bench.measure(case("fp16")).record
    assert (record.execution, record.graph_pool_bytes, record.prepare_s) == ("eager", None, None)
    assert (record.prepare_cache, record.graphs, record.graph_breaks, record.recompiles) == (None, None, None, None)


def test_a_compiled_pair_on_a_cpu(bench: Bench) -> None:
    record = bench.measure(case("fp32+compile")).record
    assert (str(record.id), record.setup.scheme) == ("tiny-fp32+compile", "fp32+compile")
    assert (record.graphs, record.graph_breaks, record.recompiles, record.prepare_cache) == (1, 0, 0, "cold")
    assert record.prepare_s > 0
    assert record.sqnr_db > 100
    # Resident memory is the compiler's too, so there is none, and the row says why.
    assert (record.resting_memory_bytes, record.peak_memory_bytes, record.memory_reduction) == (None, None, None)
    assert record.note == "no memory: on a CPU what the compiler keeps cannot be told from what the model needs"


def test_the_source_is_built_for_the_first_pair_of_its_model(bench: Bench) -> None:
    first, second = (bench.measure(case(scheme)).record for scheme in ("fp32", "fp16"))
    assert first.effort.build_s is not None
    assert second.effort.build_s is None


def test_the_device_is_held_from_when_others_let_it_go_until_its_memory_is_given_back(
    bench: Bench, own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_from_s = 0.0

    @contextlib.contextmanager
    def after_a_long_wait(device_uuid: str) -> Iterator[None]:
        nonlocal held_from_s
        own.clock.now_ms += 1e6
        held_from_s = own.clock.now_s()
        yield

    monkeypatch.setattr(device_module, "device_lock", after_a_long_wait)
    monkeypatch.setattr(type(bench.device), "release", lambda device: own.clock.workload(iter([5e3]))())
    record = bench.measure(case("fp32")).record
    assert record.effort.device_held_s == own.clock.now_s() - held_from_s
    assert record.effort.device_held_s > 5
