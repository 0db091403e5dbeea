"""A precision that the package does not know: one entry and one module of layers, and it is measured like the others.

This module is that module: 8-bit weights with a scale for each row, computed in the type of the unquantized rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from own_bench import own_bench
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.catalog.models import find_model
from pytest_vq.device.cpu import computes_bf16
from pytest_vq.errors import PrecisionError, SelectionError
from pytest_vq.execution.schemes import find_scheme, select_schemes
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.measured import Measured
from pytest_vq.options import Options
from pytest_vq.precision import precisions
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted, short_name
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.precisions import find_precision
from pytest_vq.schema.spec import Case, PrecisionSpec, Target

CPU = torch.device("cpu")
REST = torch.bfloat16 if computes_bf16() else torch.float32


class RowLinear(nn.Linear):
    """A linear layer of int8 weights and a floating-point scale for each row; activations are not quantized."""

    def __init__(self, linear: nn.Linear, copier: Copier) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        weight = linear.weight.detach()
        scales = weight.abs().amax(dim=1) / 127
        codes = (weight / scales[:, None]).round().to(copier.device, torch.int8)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(scales.to(copier.device, copier.dtype), requires_grad=False)
        if linear.bias is not None:
            self.bias = copier.parameter(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(self.scales.dtype) * self.scales[:, None]
        return nn.functional.linear(x, weight, self.bias)


def row_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    return RowLinear(linear, copier) if linear.in_features > 16 else f"{linear.in_features} columns are too few"


def layer_without_scales(linear: nn.Linear, copier: Copier) -> nn.Module:
    layer = RowLinear(linear, copier)
    layer.scales = nn.Parameter(torch.ones_like(layer.scales), requires_grad=False)
    return layer


def row_fault(module: nn.Module) -> str:
    if module.weight.dtype is not torch.int8:
        return f"its weight is {module.weight.dtype}"
    return "" if float(module.scales.max()) < 0.1 else "its scales were never computed"


ROW8 = PrecisionSpec(
    "row8",
    min_sqnr_db=15.0,
    method="8 bits a weight, a scale a row",
    layer=f"{__name__}:row_layer",
    check=f"{__name__}:row_fault",
    min_layer_sqnr_db=20.0,
)


@pytest.fixture
def row8(monkeypatch: pytest.MonkeyPatch) -> PrecisionSpec:
    """The precision, added as a new one is added: by its entry."""
    # This stands for a line in that module; what users register is tried in test_own_precisions.
    monkeypatch.setattr(precisions, "_PRECISIONS", (*precisions._PRECISIONS, ROW8))
    return ROW8


def build() -> nn.Module:
    head = nn.Linear(96, 10)
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 128), nn.GELU(), nn.Linear(128, 96), nn.GELU())
    return nn.Sequential(body, nn.Linear(96, 16), nn.Linear(16, 96), head)


def at(spec: PrecisionSpec, source: nn.Module | None = None, rest: torch.dtype = torch.bfloat16) -> Converted:
    torch.manual_seed(0)
    return convert(source or build().eval(), spec, device=CPU, rest=rest, heads=["3"])


class TestConverting:
    def test_it_can_be_selected(self, row8: PrecisionSpec) -> None:
        target = Target(is_accelerator=False)
        assert find_precision("row8") is row8
        assert find_scheme("row8").precision is row8
        assert [scheme.name for scheme in select_schemes("row8,fp32,int8", target).schemes] == ["fp32", "int8", "row8"]
        with pytest.raises(SelectionError, match=r"no precision 'row9': did you mean row8"):
            find_precision("row9")

    def test_every_layer_is_quantized_that_can_be_and_the_others_say_why(self) -> None:
        converted = at(ROW8)
        assert converted.method == "8 bits a weight, a scale a row, bf16 rest"
        assert (converted.coverage.eligible, converted.coverage.quantized) == (4, 3)
        assert converted.coverage.left == {"2": "16 columns are too few"}
        assert [type(converted.module[i]) for i in (1, 2, 3)] == [RowLinear, nn.Linear, nn.Linear]
        assert converted.module[0][1].weight.dtype is torch.int8
        assert converted.module[3].weight.dtype is torch.bfloat16

    def test_it_answers_as_fp32_does_but_for_its_rounding(self) -> None:
        torch.manual_seed(0)
        source, images = build().eval(), torch.randn(8, 3, 8, 8)
        with torch.inference_mode():
            found = at(ROW8, source).module(images.bfloat16())
            assert 25 < measure_fidelity(source(images), found).sqnr_db < 60

    def test_it_stores_few_bytes_more_than_its_8_bit_weights(self) -> None:
        weights = 192 * 128 + 128 * 96 + 96 * 16
        rest = 16 * 96 + 96 * 10  # the layer that was left, and the head, in BF16
        assert 1.0 < at(ROW8).model_size_bytes / (weights + 2 * rest) < 1.1  # scales, biases and the header

    def test_its_own_check_is_asked(self) -> None:
        spec = dataclasses.replace(ROW8, layer=f"{__name__}:layer_without_scales", min_layer_sqnr_db=None)
        with pytest.raises(
            PrecisionError, match=r"^row8: the layer 0\.1 is not what it should be: its scales were nev"
        ):
            at(spec)

    def test_a_trial_finds_layers_that_are_wrong_before_the_check_does(self) -> None:
        spec = dataclasses.replace(ROW8, layer=f"{__name__}:layer_without_scales")
        words = r"^row8: none of 4 linear layers was quantized \(0\.1: the library gives wrong values at 192 -> 128: "
        with pytest.raises(PrecisionError, match=words):
            at(spec)


@contextlib.contextmanager
def bench_with(*entries: PrecisionSpec, budget_s: float, locks: Path) -> Iterator[Bench]:
    """A bench that knows ``entries`` and the model ``tiny`` too; the device's lock lies in ``locks``."""
    with own_bench(locks, Options(budget=budget_s)) as bench, pytest.MonkeyPatch.context() as patch:
        patch.setattr(precisions, "_PRECISIONS", (*precisions._PRECISIONS, *entries))
        register_model("tiny", input_shape=(3, 8, 8), head="3")(build)
        yield bench


def tiny(scheme: str, batch: int = 1) -> Case:
    return Case(find_model("tiny"), find_scheme(scheme), batch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """FP32 and the new precision of one small model, really measured on the CPU, for a fifth of a second each."""
    with bench_with(ROW8, budget_s=0.2, locks=tmp_path_factory.mktemp("locks")) as bench:
        return {name: bench.measure(tiny(name, batch=2)) for name in ("fp32", "row8")}


class TestMeasuring:
    def test_the_row_says_what_it_is_of(self, measured: dict[str, Measured]) -> None:
        record = measured["row8"].record
        assert str(record.id) == "tiny-row8-b2"
        assert (record.precision, record.execution, record.setup.precision) == ("row8", "eager", "row8")
        assert record.method == f"8 bits a weight, a scale a row, {short_name(REST)} rest"
        assert (record.eligible_layers, record.quantized_layers) == (4, 3)
        assert record.coverage.left == {"2": "16 columns are too few"}
        assert record.parameters == sum(parameter.numel() for parameter in build().parameters())

    def test_it_is_compared_with_fp32(self, measured: dict[str, Measured]) -> None:
        record = measured["row8"].record
        assert 25 < record.sqnr_db < 60
        assert record.cosine > 0.99
        assert measured["fp32"].record.sqnr_db is None

    def test_it_is_stored_in_fewer_bytes(self, measured: dict[str, Measured]) -> None:
        assert measured["row8"].record.model_size_bytes < 0.6 * measured["fp32"].record.model_size_bytes
        assert measured["row8"].record.model_size_bytes == at(ROW8, rest=REST).model_size_bytes

    def test_it_was_timed_beside_fp32(self, measured: dict[str, Measured]) -> None:
        record, samples = measured["row8"].record, measured["row8"].samples
        assert record.samples == len(samples.subject.times_ms) > 0
        assert len(samples.reference.blocks_ms) == len(samples.subject.blocks_ms)
        assert record.latency_ms > 0
        assert record.speedup > 0


def other_row_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    """As good as `row_layer`, and stored in other bytes."""
    layer = row_layer(linear, copier)
    if isinstance(layer, RowLinear):
        layer.weight.data.clamp_(-126, 126)
    return layer


def test_precisions_that_answer_alike_are_measured_and_the_reader_is_told(tmp_path: Path) -> None:
    twin = dataclasses.replace(ROW8, name="row4", coarser_than="row8", layer=f"{__name__}:other_row_layer")
    with bench_with(ROW8, twin, budget_s=0.01, locks=tmp_path) as bench:
        notes = [bench.measure(tiny(name)).record.note for name in ("row8", "row4")]
    assert notes[0] is None
    assert re.match(r"row8 \(.* dB\) and row4 \(.* dB\) answer alike: what they store differs", notes[1])


def test_a_precision_that_stores_the_bytes_of_another_is_found_out(tmp_path: Path) -> None:
    with bench_with(ROW8, dataclasses.replace(ROW8, name="row4"), budget_s=0.01, locks=tmp_path) as bench:
        bench.measure(tiny("row8"))
        with pytest.raises(PrecisionError, match="tiny: row4 stores the same bytes as row8"):
            bench.measure(tiny("row4"))
