"""Executions on a CUDA device: what is captured answers as eager does, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import async_compile

from pytest_vq import register_model
from pytest_vq.catalog.build import output_tensor
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device.device import Device, guarded, open_device
from pytest_vq.device.device_time import device_time_ms
from pytest_vq.device.memory import MemoryReading
from pytest_vq.errors import ExecutionError
from pytest_vq.execution.graphs import prepare
from pytest_vq.execution.schemes import find_scheme, refusal
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.workload import Workload, place
from pytest_vq.options import Options
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.schema.figures import Coverage
from pytest_vq.schema.spec import Case, Target

pytestmark = pytest.mark.gpu
MIB = 2**20
CUDA = torch.device("cuda", 0)
DEIT, BEIT, MOBILEVIT = "deit-tiny-patch16-224", "beit-base-patch16-224-pt22k-ft22k", "mobilevit-xx-small"
DIGITS = "vit-digits"  # the quickest to compile


@pytest.fixture(scope="module")
def gpu() -> Device:
    return open_device(gpu=True, threads=1)


@pytest.fixture(autouse=True)
def own_locks_and_settings(gpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with guarded(gpu, "a test"):
        yield
    gpu.release()


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    """The FP32 models of this module's tests, each built once."""
    return {}


@pytest.fixture
def references_of(references: dict[str, Reference]):
    def find(model: str) -> Reference:
        if model not in references:
            references[model] = Reference.of(find_model(model), "random")
        return references[model]

    return find


@pytest.fixture
def placed(gpu: Device, references_of):
    """Places a pair on the device, for the length of a ``with`` block."""

    @contextlib.contextmanager
    def make(model: str, scheme: str, batch: int = 1) -> Iterator[Workload]:
        reference = references_of(model)
        workload = place(Case(reference.model, find_scheme(scheme), batch), reference, gpu)
        try:
            yield workload
        finally:
            workload.prepared.close()

    return make


def random_images(workload: Workload, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(workload.inputs.shape, generator=generator)


def sqnr_db(expected: Tensor, found: Tensor) -> float:
    figure = measure_fidelity(expected.cpu(), found.cpu()).sqnr_db
    assert figure is not None
    return figure


class TestAnswers:
    @pytest.mark.parametrize("model", [DEIT, BEIT, MOBILEVIT])
    def test_another_input_changes_the_replayed_output_to_eagers(self, placed, model: str) -> None:
        with placed(model, "fp16") as eager, placed(model, "fp16+graph") as graph:
            answers = []
            for seed in (1, 2):
                images = random_images(eager, seed)
                answers.append(graph.answer(images))
                assert sqnr_db(eager.answer(images), answers[-1]) > 60  # kernels may be chosen otherwise
            assert not torch.equal(*answers)

    @pytest.mark.parametrize("execution", ["compile", "compile+graph"])
    def test_what_is_compiled_answers_as_eager_does(self, placed, execution: str) -> None:
        with placed(DIGITS, "fp32") as eager, placed(DIGITS, f"fp32+{execution}") as program:
            images = random_images(eager, 1)
            assert sqnr_db(eager.answer(images), program.answer(images)) > 90
            made = program.preparation
            assert (made.graphs, made.graph_breaks, made.recompiles, made.prepare_cache) == (1, 0, 0, "cold")
            assert async_compile._pool_set == set()  # nothing compiles beside what is timed

    def test_more_images_than_were_captured_are_answered_by_the_same_graph(self, placed) -> None:
        with placed(DEIT, "fp16") as eager, placed(DEIT, "fp16+graph", batch=4) as graph:
            images = torch.cat([random_images(eager, seed) for seed in range(10)])
            assert sqnr_db(eager.answer(images), graph.answer(images)) > 40


class TestMemory:
    def measure(self, gpu: Device, placed, model: str, scheme: str, batch: int) -> tuple[MemoryReading, Workload]:
        gpu.memory.mark()
        with placed(model, scheme, batch) as workload:
            workload.request()
            return gpu.memory.measure(workload.request, workload.prepared.recorded), workload

    @pytest.mark.parametrize(("model", "precision"), [(DEIT, "fp16"), (MOBILEVIT, "fp32")])
    def test_a_graphs_peak_is_no_less_than_eagers(self, gpu: Device, placed, model: str, precision: str) -> None:
        eager, _ = self.measure(gpu, placed, model, precision, batch=8)
        graph, workload = self.measure(gpu, placed, model, f"{precision}+graph", batch=8)
        images_bytes = workload.inputs.nbytes  # a graph has its own copy
        assert eager.peak_bytes is not None
        assert graph.peak_bytes is not None
        assert 0.95 * eager.peak_bytes <= graph.peak_bytes <= 1.1 * eager.peak_bytes + images_bytes
        assert graph.resting_bytes < graph.peak_bytes
        activations = graph.peak_bytes - graph.resting_bytes
        assert workload.prepared.pool_bytes >= 0.9 * activations

    def test_a_closed_graph_gives_its_memory_back(self, gpu: Device, placed) -> None:
        with placed(DEIT, "fp16+graph", batch=8):
            pass
        gpu.memory.mark()
        before = torch.cuda.memory_reserved(CUDA)
        with placed(DEIT, "fp16+graph", batch=8) as workload:
            assert torch.cuda.memory_reserved(CUDA) > before
            assert workload.prepared.pool_bytes > MIB
        del workload
        gpu.memory.mark()
        assert torch.cuda.memory_reserved(CUDA) == before

    def test_the_next_model_after_a_graph_finds_the_same_figures(self, gpu: Device, placed) -> None:
        first, _ = self.measure(gpu, placed, DEIT, "fp16", batch=8)
        self.measure(gpu, placed, DEIT, "fp16+graph", batch=8)
        second, _ = self.measure(gpu, placed, DEIT, "fp16", batch=8)
        assert (first.resting_bytes, first.peak_bytes) == (second.resting_bytes, second.peak_bytes)


class TestLaunches:
    def test_beit_waits_for_nothing_any_more(self, placed) -> None:
        with placed(BEIT, "fp16") as workload:
            request = workload.request
            request()
            assert device_time_ms(request, latency_ms=20.0) is not None

    def test_a_replay_is_one_launch_that_can_be_hidden(self, placed) -> None:
        with placed(BEIT, "fp16+graph") as workload:
            request = workload.request
            request()
            with request.context():
                assert device_time_ms(request.call, latency_ms=5.0) is not None


class Waiting(nn.Module):
    """Asks the device for a value in the middle of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(192, 64), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.body(images.flatten(1))
        return self.head(hidden if hidden.sum().item() > 0 else -hidden)


class TestFailures:
    def capture(self, module: nn.Module, images: Tensor) -> Tensor:
        converted = Converted(module, "torch.float32", torch.float32, Coverage(eligible=1, quantized=0))
        prepared = prepare(converted, images)
        try:
            return output_tensor(prepared.request(images)()).clone()
        finally:
            prepared.close()

    def test_the_device_is_usable_after_a_capture_that_failed(self, gpu: Device) -> None:
        images = torch.randn(2, 3, 8, 8, device=CUDA)
        waiting = Waiting().to(CUDA).eval()
        with pytest.raises(ExecutionError, match=r"^its forward cannot be captured in a CUDA graph \(.*captur"):
            self.capture(waiting, images)
        assert not gpu.is_lost
        assert torch.cuda.current_stream(CUDA) == torch.cuda.default_stream(CUDA)
        gpu.memory.mark()  # empties the allocator's cache, which it refuses while it believes in a capture
        plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).to(CUDA).eval()
        torch.testing.assert_close(self.capture(plain, images), plain(images))

    @pytest.mark.parametrize("execution", ["graph", "compile", "compile+graph"])
    def test_llm_int8_is_refused_by_name(self, execution: str) -> None:
        target = Target(is_accelerator=True, compute_capability=torch.cuda.get_device_capability(CUDA))
        assert "LLM.int8" in refusal(find_scheme(f"int8+{execution}"), target)


class TestRows:
    @pytest.mark.parametrize("scheme", ["fp16+graph", "fp16+compile+graph"])
    def test_of_a_captured_pair(self, scheme: str) -> None:
        bench = Bench(Options(gpu=True, budget=2))
        with isolated():
            register_model("tiny", input_shape=(3, 32, 32), head="2")(
                lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 256), nn.Linear(256, 10))
            )
            record = bench.measure(Case(find_model("tiny"), find_scheme(scheme), 2)).record
        bench.release()
        assert record.prepare_s > 0
        assert record.graph_pool_bytes > 0
        assert record.peak_memory_bytes >= record.resting_memory_bytes > 0
        assert record.device_time_ms > 0
        assert (record.graphs, record.recompiles) == ((1, 0) if "compile" in scheme else (None, None))
        assert record.sqnr_db > 40
