"""A user's own models, precisions and executions on a CUDA device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from own_bench import own_bench
from small_models import RowLinear
from torch import Tensor, nn

from pytest_vq import Opaque, Prepared, register_execution, register_model, register_precision
from pytest_vq.catalog.models import find_model
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure.bench import Bench
from pytest_vq.options import Options
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import Case

pytestmark = pytest.mark.gpu


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cameras = nn.Embedding(7, 256)
        self.body = nn.Linear(3 * 32 * 32, 256)
        self.head = nn.Linear(256, 10)

    def forward(self, images: Tensor, camera: Tensor) -> dict[str, Tensor]:
        hidden = nn.functional.gelu(self.body(images.flatten(1)) + self.cameras(camera))
        return {"logits": self.head(hidden)}


def inputs(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    return {"images": images, "camera": torch.randint(0, 7, (batch,), generator=generator)}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with own_bench(tmp_path, Options(gpu=True, budget=1)) as made:
        register_model("own", inputs=inputs, output=lambda answer: answer["logits"], head="head")(TwoInputs)
        register_precision("row8", max_bits=8, min_sqnr_db=20)(RowLinear)
        yield made


def measure(bench: Bench, scheme: str) -> Record:
    return bench.measure(Case(find_model("own"), find_scheme(scheme), 2)).record


@pytest.mark.parametrize("scheme", ["fp32+graph", "fp16", "fp16+graph", "fp16+compile+graph", "row8", "row8+graph"])
def test_two_inputs_by_name_and_layers_of_ones_own(bench: Bench, scheme: str) -> None:
    record = measure(bench, scheme)
    assert record.sqnr_db > 25
    assert record.peak_memory_bytes > 0
    assert record.device_time_ms > 0
    assert record.quantized_layers == (1 if "row8" in scheme else 0)


def test_a_program_gets_a_copy_on_the_device_and_has_no_memory_figures(bench: Bench) -> None:
    places: list[str] = []

    def program(model: nn.Module, example: dict[str, Tensor], device: torch.device) -> Opaque:
        places[:] = [device.type, next(model.parameters()).device.type, example["camera"].device.type]
        half = copy.deepcopy(model).half()
        return Opaque(lambda images, camera: half(images.half(), camera)["logits"].float(), 10, "half")

    register_precision("half", opaque=True, min_sqnr_db=40)(program)
    record = measure(bench, "half")
    assert places == ["cuda"] * 3
    assert record.sqnr_db > 40
    assert (record.peak_memory_bytes, record.resting_memory_bytes) == (None, None)
    assert record.note is not None
    assert "opaque program" in record.note


def test_an_execution_of_ones_own(bench: Bench) -> None:
    def prepare(converted: Converted, example: dict[str, Tensor]) -> Prepared:
        assert example["images"].device.type == "cuda"
        return Prepared(lambda **given: converted.module(**given))

    register_execution("mine")(prepare)
    assert measure(bench, "fp16+mine").sqnr_db > 40
