"""Single quantized layers against their dequantized weights in float: no kernel may compute something else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from pkgutil import resolve_name

import pytest
import torch
from torch import nn

from pytest_vq.precision import bnb
from pytest_vq.precision.convert import convert
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.trial import fault_of_shape

CPU = torch.device("cpu")
KINDS = ["int8", "int8dyn", "int8wo", "int4"]
# Activations are quantized to 8 bits at int8 and int8dyn (about 40 dB); else all that is lost is BF16's rounding.
ARITHMETIC_DB = {"int8": 33.0, "int8dyn": 33.0, "int8wo": 40.0, "int4": 40.0}


def sqnr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    expected, found = expected.double(), found.double()
    return (10 * torch.log10(expected.square().sum() / (found - expected).square().sum())).item()


def layer(kind: str, linear: nn.Linear) -> nn.Module:
    source = nn.Sequential(linear)
    return convert(source, find_precision(kind), device=CPU, rest=torch.bfloat16, heads=()).module[0]


def dequantized(kind: str, quantized: nn.Module) -> torch.Tensor:
    """The weight that the layer stands for, from its stored bytes by the formats' definitions; before a forward."""
    if kind == "int8":
        return quantized.weight.data.float() * quantized.weight.SCB[:, None] / 127
    if kind in ("int8dyn", "int8wo"):
        return quantized.weight.qdata.float() * quantized.weight.scale
    state = quantized.weight.quant_state
    packed = quantized.weight.data.reshape(-1).int()
    codes = torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1)
    scales = state.state2.code[state.absmax.int()].reshape(-1)
    nested = state.state2.absmax.repeat_interleave(state.state2.blocksize)[: scales.numel()]
    scales = scales * nested + state.offset
    return (state.code[codes] * scales.repeat_interleave(state.blocksize)).reshape(state.shape)


ANY = [(2, 3), (5, 7), (16, 1), (63, 65), (64, 64), (80, 100), (96, 31), (144, 200), (192, 576), (130, 33)]
SHAPES = {
    **dict.fromkeys(["int8", "int8dyn", "int8wo"], ANY),
    "int4": [(64, 32), (64, 96), (128, 64), (192, 576), (192, 32), (320, 160), (576, 192)],
}


@pytest.mark.parametrize(("kind", "shape"), [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes])
@pytest.mark.parametrize("bias", [True, False])
def test_every_shape_computes_what_its_weights_say(kind, shape, bias):
    torch.manual_seed(0)
    linear = nn.Linear(*shape, bias=bias)
    quantized = layer(kind, linear)
    weight = dequantized(kind, quantized)
    assert sqnr_db(linear.weight, weight) > (17 if kind == "int4" else 35)
    for lead in [(1,), (3,), (17,), (1, 5), (2, 197), (3, 1, 7)]:
        inputs = torch.randn(*lead, shape[0]).bfloat16()
        expected = nn.functional.linear(inputs.float(), weight, linear.bias)
        with torch.inference_mode():
            found = quantized(inputs)
        assert found.shape == expected.shape
        assert found.dtype is torch.bfloat16
        # Few values are not enough for a ratio of energies to be steady.
        if expected.numel() > 50:
            assert sqnr_db(expected, found) > ARITHMETIC_DB[kind]


LAYOUTS = {
    "transposed": lambda: torch.randn(64, 7).T,
    "class tokens": lambda: torch.randn(7, 5, 64)[:, 0],
    "without class token": lambda: torch.randn(3, 5, 64)[:, 1:],
    "half of the features": lambda: torch.randn(7, 5, 128)[..., :64],
    "every second row": lambda: torch.randn(14, 64)[::2],
    "expanded": lambda: torch.randn(1, 64).expand(6, 64),
    "swapped axes": lambda: torch.randn(5, 3, 64).transpose(0, 1),
    "four axes": lambda: torch.randn(2, 3, 5, 64),
    "one vector": lambda: torch.randn(64),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_input(kind, layout):
    torch.manual_seed(0)
    linear = nn.Linear(64, 96)
    quantized = layer(kind, linear)
    inputs = LAYOUTS[layout]()
    before = inputs.clone()
    with torch.inference_mode():
        found = quantized(inputs.bfloat16())
        half = quantized(inputs.half())
    assert found.shape == linear(inputs).shape
    assert half.dtype is torch.float16
    assert sqnr_db(linear(inputs), found) > 15
    assert sqnr_db(linear(inputs), half) > 15
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_int8_keeps_an_outlier_channel_apart(rows):
    torch.manual_seed(0)
    linear = nn.Linear(128, 96)
    inputs = torch.randn(rows, 128)
    inputs[:, 5] = 60.0
    linear.weight.data[:, 5] *= 0.1  # so that what it does to the other channels shows
    expected = linear(inputs)
    apart, together = layer("int8", linear), layer("int8", linear)
    together.state.threshold = 0.0
    with torch.inference_mode():
        apart_db, together_db = (sqnr_db(expected, each(inputs.half())) for each in (apart, together))
    assert apart_db > 30
    assert together_db < 22


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_weights_of_zeros_give_zeros(kind):
    linear = nn.Linear(64, 64, bias=False)
    linear.weight.data[::2] = 0
    inputs = torch.randn(4, 64)
    inputs[1] = 0
    with torch.inference_mode():
        found = layer(kind, linear)(inputs.bfloat16())
    assert torch.isfinite(found).all()
    assert not found[1].any()
    assert not found[:, ::2].any()
    assert found[0, 1::2].any()


@pytest.mark.parametrize(("in_features", "out_features"), [(60, 64), (96, 64), (64, 33), (1000, 32)])
def test_shapes_that_nf4_gets_wrong_on_a_cpu_are_not_quantized(in_features, out_features):
    source = nn.Sequential(nn.Linear(64, in_features), nn.Linear(in_features, out_features), nn.Linear(64, 64))
    converted = convert(source, find_precision("int4"), device=CPU, rest=torch.bfloat16, heads=())
    assert "1" in converted.coverage.left
    assert type(converted.module[1]) is nn.Linear
    assert type(converted.module[2]) is bnb.NF4Linear


class TestWhereTheKernelForCudaWarns:
    """At each call of an NF4 layer whose in_features are no multiple of the block of 64 (MobileViT has such)."""

    @pytest.fixture
    def unaligned(self, monkeypatch) -> nn.Module:
        """Such a layer, on a CPU that warns as the kernel for CUDA does."""
        multiply = bnb.bitsandbytes.matmul_4bit

        def warn_and_multiply(inputs, weight, *, bias, quant_state):
            if inputs.shape[-1] % quant_state.blocksize:
                warnings.warn("inner dimension is not aligned for fast kernel", UserWarning, stacklevel=1)
            return multiply(inputs, weight, bias=bias, quant_state=quant_state)

        monkeypatch.setattr(bnb.bitsandbytes, "matmul_4bit", warn_and_multiply)
        monkeypatch.setattr(bnb, "_CPU_NF4_IN", 1)
        torch.manual_seed(0)
        return bnb.nf4_layer(nn.Linear(80, 96), Copier(CPU, torch.bfloat16))

    def test_nothing_is_warned_of_whatever_the_filters(self, unaligned) -> None:
        with warnings.catch_warnings(record=True) as caught, torch.inference_mode():
            for action in ("always", "error"):
                warnings.simplefilter(action)
                unaligned(torch.randn(5, 80, dtype=torch.bfloat16))
        assert caught == []

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("lead", [(), (5,), (2, 7)], ids=str)
    def test_it_computes_what_its_weights_say(self, unaligned, dtype, lead) -> None:
        weight = bnb.bitsandbytes.functional.dequantize_4bit(unaligned.weight, unaligned.weight.quant_state)
        inputs = torch.randn(*lead, 80).to(dtype)
        expected = nn.functional.linear(inputs.bfloat16(), weight, unaligned.bias)
        with torch.inference_mode():
            found = unaligned(inputs)
        assert found.dtype is dtype
        assert torch.equal(found, expected.to(dtype))


class Kernel(nn.Module):
    """A layer that answers ``answer(inputs)``, whatever its weights say."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(x)


def fault_of_kernel(answer) -> str:
    return fault_of_shape(lambda _linear, _copier: Kernel(answer), (64, 64), CPU, torch.bfloat16, 20.0)


def test_a_kernel_that_computes_something_else_is_found_out():
    fault = fault_of_kernel(torch.zeros_like)
    assert fault.startswith("the library gives wrong values at 64 -> 64: ")
    wrong_db = float(fault.partition("64: ")[2].partition(" dB")[0])
    assert wrong_db == pytest.approx(0, abs=0.9)
    assert fault.endswith(" dB, where at least 20 are expected")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, AssertionError])
def test_a_kernel_that_fails_is_found_out(error):
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise error("no such algorithm")

    assert fault_of_kernel(broken) == "the library fails at 64 -> 64: no such algorithm"


def test_trouble_with_the_device_is_not_blamed_on_the_shape():
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        fault_of_kernel(broken)


def test_a_kernel_that_answers_infinity_is_found_out():
    assert "gives wrong values at 64 -> 64" in fault_of_kernel(lambda x: torch.full_like(x, torch.inf))


def test_why_a_builder_leaves_a_layer_is_the_fault_of_its_shape():
    fault = fault_of_shape(lambda linear, _: f"{linear.in_features} is odd", (63, 64), CPU, torch.bfloat16, 20.0)
    assert fault == "63 is odd"


def test_a_shape_is_tried_once_for_each_builder():
    tried = []

    def builder(linear: nn.Linear, copier: Copier) -> str:
        tried.append((linear.in_features, linear.out_features, copier.device, copier.dtype))
        return "not now"

    for _ in range(2):
        fault_of_shape(builder, (64, 32), CPU, torch.bfloat16, 20.0)
    assert tried == [(64, 32, CPU, torch.bfloat16)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_of_a_good_shape_passes(kind):
    builder, least_db = resolve_name(find_precision(kind).layer), find_precision(kind).min_layer_sqnr_db
    assert fault_of_shape(builder, (192, 64), CPU, torch.bfloat16, least_db) == ""


def int8_but_for_48_columns(linear: nn.Linear, copier: Copier) -> nn.Module:
    """LLM.int8 by a library whose kernel for 48 columns is wrong."""
    wrong = Kernel(lambda x: torch.zeros(*x.shape[:-1], linear.out_features, dtype=x.dtype))
    return wrong if linear.in_features == 48 else bnb.int8_layer(linear, copier)


def test_a_layer_whose_kernel_is_wrong_is_left_with_the_reason():
    spec = dataclasses.replace(find_precision("int8"), layer=f"{__name__}:int8_but_for_48_columns")
    source = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 40))
    converted = convert(source, spec, device=CPU, rest=torch.bfloat16, heads=())
    assert [*converted.coverage.left] == ["1"]
    assert converted.coverage.left["1"].startswith("the library gives wrong values at 48 -> 40: ")
    assert [type(layer) for layer in converted.module] == [bnb.Int8Linear, nn.Linear]


def test_dequantizing_by_the_definition_agrees_with_bitsandbytes():
    quantized = layer("int4", nn.Linear(128, 64))
    theirs = bnb.bitsandbytes.functional.dequantize_4bit(quantized.weight.data, quantized.weight.quant_state)
    assert sqnr_db(dequantized("int4", quantized), theirs.float()) > 40


def test_importing_bitsandbytes_neither_downloads_nor_complains_nor_loads_a_compiler(tmp_path):
    (tmp_path / "kernels.py").write_text("raise SystemExit('imported')\n")
    code = "import sys, pytest_vq.precision.bnb; assert {'kernels', 'torch._inductor'}.isdisjoint(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_bitsandbytes_has_compiled_is_compiled_at_its_first_call(monkeypatch):
    given = []

    def compile_now(function, **options):
        given.append((function.__name__, options))
        return lambda *args: ("compiled", function(*args))

    monkeypatch.setattr(torch, "compile", compile_now)
    with bnb._compiling_when_called():

        @torch.compile
        def plain(x):
            return x + 1

        @torch.compile(dynamic=False)
        def static(x):
            return x + 2

    assert given == []
    assert torch.compile is compile_now
    assert [plain(1), plain(2), static(1)] == [("compiled", 2), ("compiled", 3), ("compiled", 3)]
    assert given == [("plain", {}), ("static", {"dynamic": False})]


def test_the_copier_copies_each_tensor_once():
    parameter = nn.Parameter(torch.randn(3))
    copier = Copier(CPU, torch.float16)
    assert copier.parameter(parameter) is copier.parameter(parameter)
    assert copier.parameter(parameter).dtype is torch.float16
    assert not copier.parameter(parameter).requires_grad
    assert copier.parameter(parameter) is not parameter


def test_the_copier_keeps_a_copy_of_another_type_apart():
    parameter = nn.Parameter(torch.randn(3))
    copier = Copier(CPU, torch.bfloat16)
    half = copier.parameter(parameter, torch.float16)
    assert half.dtype is torch.float16
    assert not half.requires_grad
    assert copier.parameter(parameter, torch.float16) is half
    assert copier.parameter(parameter).dtype is torch.bfloat16
    assert copier.parameter(parameter, torch.bfloat16) is copier.parameter(parameter)


def test_what_is_made_of_a_shared_tensor_is_made_once_for_each_kind():
    copier, shared, other = Copier(CPU, torch.float16), torch.ones(3), torch.ones(3)
    packed = copier.once(shared, torch.clone)
    assert copier.once(shared, torch.clone) is packed
    assert copier.once(shared, torch.clone, "scales") is not packed
    assert copier.once(other, torch.clone) is not packed
