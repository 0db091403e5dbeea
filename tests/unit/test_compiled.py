"""Compiled execution, really compiled: one graph or an error, nothing kept from before, nothing left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn
from torch._inductor import async_compile

from pytest_vq.errors import ExecutionError
from pytest_vq.execution import compiled, refusals
from pytest_vq.execution.compiled import prepare
from pytest_vq.execution.executions import find_execution
from pytest_vq.execution.prepared import GraphCounts, Prepared
from pytest_vq.execution.schemes import find_scheme, refusal
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.schema.figures import Coverage
from pytest_vq.schema.spec import Target

CPU, GPU = Target(is_accelerator=False), Target(is_accelerator=True, compute_capability=(9, 0))
ONE_GRAPH = GraphCounts(graphs=1, graph_breaks=0, recompiles=0)


class Net(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, width), nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(nn.functional.gelu(self.first(images.flatten(1))))


class Breaking(Net):
    """Asks for a value in the middle of its forward."""

    def forward(self, images: Tensor) -> Tensor:
        if images.sum().item() > 0:
            return super().forward(images)
        return super().forward(-images)


def converted(module: nn.Module) -> Converted:
    return Converted(module.eval(), "torch.float32", torch.float32, Coverage(eligible=1, quantized=0))


def images(batch: int = 2) -> Tensor:
    """Inside inference mode, as in a measurement: what a tensor was made in is among what compiled code relies on."""
    with torch.inference_mode():
        return torch.randn(batch, 3, 2, 2, generator=torch.Generator().manual_seed(batch))


def answer(prepared: Prepared, given: Tensor) -> Tensor:
    output = prepared.request(given)()
    assert isinstance(output, Tensor)
    return output


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its own directory for temporary files; and nothing compiled is left to the next test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    torch._dynamo.reset()


def global_state() -> dict[str, Any]:
    return {
        "inductor": torch._inductor.config.get_config_copy(),
        "dynamo": torch._dynamo.config.get_config_copy(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": torch.backends.cudnn.allow_tf32,
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        # Inductor tells the libraries that it loads an address of its own in the environment, once a process.
        "environment": {name: value for name, value in os.environ.items() if not name.startswith("_TORCHINDUCTOR_")},
        "threads": torch.get_num_threads(),
    }


class TestProgram:
    def test_it_answers_as_the_eager_model_does(self) -> None:
        net, given = Net().eval(), images()
        prepared = prepare(converted(net), given)
        with torch.inference_mode():
            expected = net(given)
        sqnr_db = measure_fidelity(expected, answer(prepared, given)).sqnr_db
        assert sqnr_db is not None
        assert sqnr_db >= 100
        assert prepared.counts is not None
        assert prepared.counts() == ONE_GRAPH
        assert (prepared.batch, prepared.cache, prepared.pool_bytes) == (2, "cold", 0)

    def test_several_inputs_are_compiled_by_name(self) -> None:
        class Scaled(Net):
            def forward(self, images: Tensor, scales: Tensor) -> Tensor:
                return super().forward(images * scales)

        net, given = Scaled().eval(), {"scales": images() + 2, "images": images()}
        prepared = prepare(converted(net), given)
        with torch.inference_mode():
            expected = net(**given)
        output = prepared.request(given)()
        assert isinstance(output, Tensor)
        assert torch.allclose(output, expected, atol=1e-5)
        assert prepared.counts is not None
        assert prepared.counts() == ONE_GRAPH
        assert prepared.batch == 2

    def test_twelve_models_of_one_class_have_a_graph_each_and_start_cold(self) -> None:
        # Without a reset, torch runs the ninth of them eagerly, with a warning.
        widths = [*range(16, 27), 16]
        for width in widths:
            prepared = prepare(converted(Net(width)), images())
            assert prepared.counts is not None
            answer(prepared, images())
            assert prepared.counts() == ONE_GRAPH
            assert prepared.cache == "cold"
        assert len(widths) == 12

    def test_what_a_cache_had_is_not_called_cold(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(compiled, "_empty_cache", contextlib.nullcontext)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
        net = converted(Net())
        assert [prepare(net, images()).cache for _ in range(2)] == ["cold", "warm"]

    def test_one_that_was_closed_is_compiled_anew_if_it_is_called(self) -> None:
        prepared = prepare(converted(Net()), images())
        prepared.close()
        answer(prepared, images())
        assert prepared.counts is not None
        assert prepared.counts().graphs == 2


class TestRecompiling:
    def test_it_is_counted_whenever_it_happens(self) -> None:
        prepared = prepare(converted(Net()), images(2))
        assert prepared.counts is not None
        answer(prepared, images(2))
        assert prepared.counts() == ONE_GRAPH
        answer(prepared, images(3))
        assert prepared.counts() == GraphCounts(graphs=2, graph_breaks=0, recompiles=1)

    def test_the_limit_is_an_error_and_never_eager_execution(self) -> None:
        with torch._dynamo.config.patch(recompile_limit=1):
            prepared = prepare(converted(Net()), images(2))
            with pytest.raises(ExecutionError, match=r"make one graph of it \(.*recompile limit exceeded\)\. "):
                answer(prepared, images(3))
            assert answer(prepared, images(2)).shape == (2, 5)

    def test_what_is_called_as_it_was_compiled_is_not_compiled_again(self) -> None:
        # Outside inference mode, which compiled code relies on and the context sets.
        prepared = prepare(converted(Net()), images())
        request = prepared.request(images())
        assert not torch.is_inference_mode_enabled()
        for _ in range(3):
            request()
        assert prepared.counts is not None
        assert prepared.counts() == ONE_GRAPH


class TestFailing:
    def test_a_graph_break_is_an_error_that_says_why_and_what_to_do(self) -> None:
        with pytest.raises(ExecutionError) as caught:
            prepare(converted(Breaking()), images())
        message = str(caught.value)
        assert message.startswith("torch.compile could not make one graph of it (")
        assert message.endswith("TORCH_LOGS=graph_breaks,recompiles to see which line of the model")
        assert "Could not guard on data-dependent expression" in message
        assert "\n" not in message

    def test_the_next_model_is_unharmed(self) -> None:
        with pytest.raises(ExecutionError):
            prepare(converted(Breaking()), images())
        prepared = prepare(converted(Net()), images())
        assert prepared.counts is not None
        assert prepared.counts() == ONE_GRAPH

    def test_a_compiler_that_is_switched_off_is_no_compiled_row(self) -> None:
        with torch.compiler.set_stance("force_eager"), pytest.raises(ExecutionError, match="compiled nothing"):
            prepare(converted(Net()), images())

    def test_errors_that_torch_was_told_to_swallow_are_errors(self) -> None:
        with torch._dynamo.config.patch(suppress_errors=True), pytest.raises(ExecutionError):
            prepare(converted(Breaking()), images())

    def test_memory_that_ran_out_while_a_kernel_was_tried_is_no_fault_of_the_model(self) -> None:
        failed = torch._dynamo.exc.BackendCompilerFailed(
            compiled.prepare, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), None
        )
        with pytest.raises(torch.OutOfMemoryError, match="20 GiB"), compiled.compiling():
            raise failed


class TestWhatIsLeft:
    @pytest.mark.parametrize("net", [Net, Breaking])
    def test_global_switches_are_what_they_were(self, net: type[Net]) -> None:
        before = global_state()
        with contextlib.suppress(ExecutionError):
            prepared = prepare(converted(net()), images())
            prepared.request(images())()
            prepared.close()
        assert global_state() == before

    @pytest.mark.parametrize("net", [Net, Breaking])
    def test_no_directory_and_no_word_of_one(
        self, net: type[Net], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        torch_log = logging.getLogger("torch._inductor.utils")
        torch_log.addHandler(caplog.handler)
        try:
            with contextlib.suppress(ExecutionError):
                prepare(converted(net()), images())
        finally:
            torch_log.removeHandler(caplog.handler)
        assert list(tmp_path.glob("pytest-vq-compile-*")) == []
        assert [record.message for record in caplog.records if "cache dir" in record.message] == []

    @pytest.mark.parametrize("net", [Net, Breaking])
    def test_processes_that_compile_are_stopped_before_anything_is_timed(
        self, net: type[Net], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stops: list[int] = []
        monkeypatch.setattr(async_compile, "shutdown_compile_workers", lambda: stops.append(1))
        with contextlib.suppress(ExecutionError):
            prepare(converted(net()), images())
        assert stops == [1]


class TestRefusal:
    def test_on_a_cpu_a_compiler_is_looked_for_where_torch_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looked_for: list[str] = []

        def which(name: str) -> str | None:
            looked_for.append(name)
            return None if name == "absent" else f"/usr/bin/{name}"

        monkeypatch.setattr(refusals.shutil, "which", which)
        monkeypatch.setattr(refusals.sys, "platform", "linux")
        monkeypatch.delenv("CXX", raising=False)
        assert refusal(find_scheme("fp32+compile"), CPU) == ""
        monkeypatch.setenv("CXX", "absent")
        reason = refusal(find_scheme("fp32+compile"), CPU)
        assert reason.startswith("torch.compile needs a C++ compiler on a CPU, and there is no absent: install one")
        assert looked_for == ["g++", "absent"]

    def test_on_a_gpu_triton_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refusals, "find_spec", lambda name: None if name == "triton" else name)
        assert "the package triton is not installed" in refusal(find_scheme("fp32+compile"), GPU)
        monkeypatch.setattr(refusals, "find_spec", lambda name: name)
        assert refusal(find_scheme("fp32+compile"), GPU) == ""

    def test_a_gpu_that_triton_has_no_kernels_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refusals, "find_spec", lambda name: name)
        old = Target(is_accelerator=True, compute_capability=(6, 1))
        assert "need compute capability 7.0, and this GPU has 6.1" in refusal(find_scheme("fp32+compile"), old)

    def test_a_plus_in_its_name_is_part_of_it(self) -> None:
        scheme = find_scheme("fp16+compile+graph")
        assert (scheme.precision.name, scheme.execution) == ("fp16", find_execution("compile+graph"))
        assert scheme.name == "fp16+compile+graph"
