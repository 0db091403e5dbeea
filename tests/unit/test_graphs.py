"""CUDA graphs on a fake device: what is called in which order, what is copied, and what is left (real: tests/gpu)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_vq.device.memory import CallMemory
from pytest_vq.errors import ExecutionError
from pytest_vq.execution import compiled, graphs
from pytest_vq.execution.executions import find_execution, load_prepare
from pytest_vq.execution.graphs import prepare, prepare_compiled
from pytest_vq.execution.prepared import GraphCounts, Prepared
from pytest_vq.execution.schemes import find_scheme, refusal
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.figures import Coverage
from pytest_vq.schema.spec import Target

POOL, OTHER_POOL = (0, 7), (0, 6)
BEGIN_FAILED, END_FAILED = "operation not permitted when stream is capturing", "capture was invalidated"


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.recorded: list[Callable[[], object]] = []

    def replay(self) -> None:
        self.cuda.events.append("replay")
        for again in self.recorded:
            again()

    def reset(self) -> None:
        self.cuda.events.append("reset")

    def pool(self) -> tuple[int, int]:
        return POOL


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.events.append(f"{self.name} waits for {other.name}")


class FakeCapture:
    def __init__(self, cuda: FakeCuda, graph: FakeGraph) -> None:
        self.cuda, self.graph = cuda, graph

    def __enter__(self) -> None:
        self.cuda.events.append("begin")
        self.cuda.capturing = self.graph

    def __exit__(self, kind: object, *_: object) -> None:
        self.cuda.capturing = None
        if kind is not None and self.cuda.end_fails:  # ending a capture that went wrong raises too
            raise RuntimeError(f"CUDA error: {END_FAILED}\nCompile with TORCH_USE_CUDA_DSA")
        self.cuda.events.append("end")


class FakeCuda:
    """A device that calls at once; what is called while it captures is called again at each replay."""

    WEIGHTS, WORKSPACE = 1000, 32

    def __init__(self) -> None:
        self.events: list[str] = []
        self.main = FakeStream(self, "main")
        self.stream = self.main
        self.capturing: FakeGraph | None = None
        self.requested = self.peak = self.WEIGHTS
        self.workspace = 0
        self.is_lost, self.end_fails = False, True
        self.trouble: Exception | None = None  # what the forward meets while it is captured
        self.activations = [(100, True), (100, True), (100, True), (100, True)]  # per call, and whether it multiplies

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fakes: dict[str, Any] = {
            "Stream": lambda device: FakeStream(self, "side"),
            "CUDAGraph": lambda: FakeGraph(self),
            "current_stream": lambda device: self.stream,
            "graph_pool_handle": lambda: POOL,
            "stream": self.on_stream,
            "graph": self.capture,
            "synchronize": self.synchronize,
            "memory_stats": self.stats,
            "reset_peak_memory_stats": self.reset_peak,
            "memory_snapshot": self.snapshot,
            "get_allocator_backend": lambda: "native",
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", self.drop_workspaces, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocation, raising=False)

    @contextlib.contextmanager
    def on_stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def capture(self, graph: FakeGraph, *, pool: tuple[int, int], stream: FakeStream) -> FakeCapture:
        assert (pool, stream.name) == (POOL, "side")
        return FakeCapture(self, graph)

    def synchronize(self, *_: object) -> None:
        if self.is_lost:
            raise RuntimeError("CUDA error: device-side assert triggered")

    def stats(self, *_: object) -> dict[str, int]:
        return {"requested_bytes.all.current": self.requested, "requested_bytes.all.peak": self.peak}

    def reset_peak(self, *_: object) -> None:
        self.peak = self.requested

    def snapshot(self) -> list[dict[str, Any]]:
        pools = ((POOL, 20), (OTHER_POOL, 500), (POOL, 2), ((0, 0), 4000))
        return [{"segment_pool_id": pool, "total_size": size} for pool, size in pools]

    def drop_workspaces(self) -> None:
        self.events.append("drop workspaces")
        self.requested -= self.workspace
        self.workspace = 0

    def end_allocation(self, device: int | None, pool: tuple[int, int]) -> None:
        assert pool == POOL
        self.events.append("end allocation")

    def take(self, activations: int, multiplies: bool) -> None:
        if multiplies and not self.workspace:
            self.workspace = self.WORKSPACE
            self.requested += self.WORKSPACE
        self.peak = max(self.peak, self.requested + activations)


class Net(nn.Module):
    """A forward that the fake device can capture."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()
        self.cuda = cuda
        self.layer = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        cuda = self.cuda
        cuda.events.append(f"call on {cuda.stream.name}")
        cuda.take(*cuda.activations.pop(0))
        if cuda.capturing is not None:
            if cuda.trouble is not None:
                raise cuda.trouble
            answer: Tensor = self.layer(images)
            cuda.capturing.recorded.append(lambda: answer.copy_(self.layer(images)))
            return answer
        return self.layer(images)


class Scaled(Net):
    """The same with a second input."""

    def forward(self, images: Tensor, scales: Tensor) -> Tensor:
        answer = super().forward(images * scales)
        if self.cuda.capturing is not None:
            # Instead of what the fake recorded: that had the product of the images that were captured.
            self.cuda.capturing.recorded[-1] = lambda: answer.copy_(self.layer(images * scales))
        return answer


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    made.use(monkeypatch)
    return made


@pytest.fixture
def net(cuda: FakeCuda) -> Converted:
    return Converted(Net(cuda).eval(), "torch.float32", torch.float32, Coverage(eligible=1, quantized=0))


def images(seed: int) -> Tensor:
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))


class TestCapturing:
    def test_three_calls_come_before_it_on_a_stream_of_its_own_and_workspaces_are_dropped(
        self, cuda: FakeCuda, net: Converted
    ) -> None:
        prepare(net, images(0))
        assert cuda.events == [
            "side waits for main",
            *["call on side"] * 3,
            "drop workspaces",
            "begin",
            "call on side",
            "end",
            "drop workspaces",
            "main waits for side",
        ]
        assert cuda.stream is cuda.main

    def test_another_input_changes_the_output(self, cuda: FakeCuda, net: Converted) -> None:
        prepared = prepare(net, images(0))
        assert isinstance(net.module, Net)
        for seed in (0, 1, 2):
            with torch.inference_mode():
                expected = net.module.layer(images(seed))
            answer = prepared.request(images(seed))()
            assert isinstance(answer, Tensor)
            assert torch.equal(answer, expected)
        assert cuda.events.count("replay") == 3
        assert cuda.events.count("call on main") == 0

    def test_the_output_is_one_place_that_the_next_call_writes_to(self, net: Converted) -> None:
        prepared = prepare(net, images(0))
        answers = [prepared.request(images(seed))() for seed in (1, 2)]
        assert answers[0] is answers[1]

    def test_what_it_is_given_is_copied_and_never_kept(self, net: Converted) -> None:
        example = images(0)
        prepared = prepare(net, example)
        prepared.request(images(1))()
        assert torch.equal(example, images(0))
        assert prepared.batch == 2

    @pytest.mark.parametrize("by_name", [False, True])
    def test_several_inputs_are_all_copied(self, cuda: FakeCuda, by_name: bool) -> None:
        def inputs(seed: int) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
            both = images(seed), images(seed + 10)
            return {"scales": both[1], "images": both[0]} if by_name else both

        net = Converted(Scaled(cuda).eval(), "torch.float32", torch.float32, Coverage(eligible=1, quantized=0))
        prepared = prepare(net, inputs(0))
        for seed in (1, 2):
            with torch.inference_mode():
                expected = net.module.layer(images(seed) * images(seed + 10))
            answer = prepared.request(inputs(seed))()
            assert isinstance(answer, Tensor)
            assert torch.equal(answer, expected)
        assert prepared.batch == 2

    def test_the_memory_of_its_pool_is_told_apart(self, net: Converted) -> None:
        assert prepare(net, images(0)).pool_bytes == 22


class TestMemory:
    def test_it_is_what_was_taken_while_it_was_recorded(self, cuda: FakeCuda, net: Converted) -> None:
        cuda.activations = [(900, True), (900, True), (100, True), (140, True)]
        assert prepare(net, images(0)).recorded == CallMemory(peak_bytes=1140, workspace_bytes=32)

    def test_a_peak_before_the_first_matrix_product_is_not_short_of_a_workspace(
        self, cuda: FakeCuda, net: Converted
    ) -> None:
        # Captured, the peak comes first and the workspace then: taking that off the peak would be taking it off twice.
        def take(activations: int, multiplies: bool) -> None:
            cuda.peak = max(cuda.peak, cuda.requested + activations)
            FakeCuda.take(cuda, 0, multiplies)

        cuda.take = take  # type: ignore[method-assign]
        assert prepare(net, images(0)).recorded == CallMemory(peak_bytes=1100, workspace_bytes=32)


class TestClosing:
    def test_the_graph_goes_first(self, cuda: FakeCuda, net: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
        program = Prepared(net.module, close=lambda: cuda.events.append("close"))
        monkeypatch.setattr(compiled, "prepare", lambda *_: program)
        prepare_compiled(net, images(0)).close()
        assert cuda.events[-2:] == ["reset", "close"]


class TestFailing:
    @pytest.mark.parametrize("end_fails", [True, False])
    def test_the_error_tells_the_first_reason_and_what_to_do(
        self, cuda: FakeCuda, net: Converted, end_fails: bool
    ) -> None:
        cuda.trouble = RuntimeError(f"CUDA error: {BEGIN_FAILED}\nSearch for it in NVIDIA's documentation")
        cuda.end_fails = end_fails
        with pytest.raises(ExecutionError) as caught:
            prepare(net, images(0))
        first, _, last = str(caught.value).partition(": it waits for the GPU")
        assert first == f"its forward cannot be captured in a CUDA graph (CUDA error: {BEGIN_FAILED})"
        assert last.endswith("or measure this precision eagerly or with +compile")

    def test_the_device_is_left_usable(self, cuda: FakeCuda, net: Converted) -> None:
        cuda.trouble = RuntimeError("CUDA error: whatever")
        with pytest.raises(ExecutionError):
            prepare(net, images(0))
        assert cuda.events[-2:] == ["reset", "end allocation"]
        assert cuda.stream is cuda.main

    def test_torch_may_have_ended_the_capture_itself(
        self, cuda: FakeCuda, net: Converted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", refuse)
        cuda.trouble = RuntimeError("CUDA error: whatever")
        with pytest.raises(ExecutionError, match="whatever"):
            prepare(net, images(0))

    def test_what_was_compiled_for_it_is_closed(
        self, cuda: FakeCuda, net: Converted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = Prepared(net.module, close=lambda: cuda.events.append("close"))
        monkeypatch.setattr(compiled, "prepare", lambda *_: program)
        cuda.trouble = RuntimeError("CUDA error: whatever")
        with pytest.raises(ExecutionError, match="whatever"):
            prepare_compiled(net, images(0))
        assert cuda.events[-1] == "close"

    @pytest.mark.parametrize("end_fails", [True, False])
    def test_memory_that_runs_out_is_no_fault_of_the_forward(
        self, cuda: FakeCuda, net: Converted, end_fails: bool
    ) -> None:
        cuda.trouble = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        cuda.end_fails = end_fails
        with pytest.raises(torch.OutOfMemoryError, match=r"20\.00 GiB"):
            prepare(net, images(0))
        assert cuda.events[-2:] == ["reset", "end allocation"]

    def test_a_device_that_is_lost_is_said_to_be(self, cuda: FakeCuda, net: Converted) -> None:
        def take(*_: object) -> None:
            cuda.is_lost = cuda.capturing is not None

        cuda.take = take  # type: ignore[method-assign]
        cuda.trouble = RuntimeError("CUDA error: unspecified launch failure")
        with pytest.raises(RuntimeError, match="device-side assert"):
            prepare(net, images(0))


class TestCompiled:
    @pytest.fixture
    def program(self, cuda: FakeCuda, net: Converted, monkeypatch: pytest.MonkeyPatch) -> Prepared:
        """What a compiler made; each call asks whether its context holds."""
        inside: list[str] = []

        @contextlib.contextmanager
        def context() -> Iterator[None]:
            inside.append("compiling")
            yield
            inside.pop()

        def call(given: Tensor) -> object:
            assert inside == ["compiling"]
            return net.module(given)

        made = Prepared(call, context, batch=2, cache="warm", counts=lambda: GraphCounts(1, 0, 0))
        monkeypatch.setattr(compiled, "prepare", lambda *_: made)
        return made

    def test_what_the_compiler_made_is_captured_in_its_context(
        self, cuda: FakeCuda, net: Converted, program: Prepared
    ) -> None:
        prepared = prepare_compiled(net, images(0))
        assert prepared.context is program.context
        assert cuda.events.count("call on side") == 4
        prepared.request(images(1))()
        assert cuda.events[-1] == "replay"

    def test_what_is_known_of_the_compiler_stays_known(self, net: Converted, program: Prepared) -> None:
        prepared = prepare_compiled(net, images(0))
        assert (prepared.cache, prepared.counts, prepared.batch) == ("warm", program.counts, 2)
        assert (prepared.pool_bytes, prepared.recorded) == (22, CallMemory(1100, 32))

    def test_eagerly_there_is_nothing_to_know(self, net: Converted) -> None:
        prepared = prepare(net, images(0))
        assert (prepared.cache, prepared.counts) == (None, None)


class TestChoosing:
    def test_both_are_found_by_name(self) -> None:
        assert load_prepare(find_execution("graph")) is graphs.prepare
        assert load_prepare(find_execution("compile+graph")) is graphs.prepare_compiled

    @pytest.mark.parametrize("name", ["fp16+graph", "fp16+compile+graph"])
    def test_a_cpu_is_refused_with_what_to_do(self, name: str) -> None:
        reason = refusal(find_scheme(name), Target(is_accelerator=False))
        assert reason == (
            "a CUDA graph needs an NVIDIA GPU: measure with --gpu, or take +compile, which also runs on a CPU"
        )

    def test_a_gpu_is_not(self) -> None:
        assert refusal(find_scheme("fp16+graph"), Target(is_accelerator=True, compute_capability=(9, 0))) == ""
