"""Each fault that a layer builder could leave behind, put in by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.verify import verify
from pytest_vq.schema.record import Coverage
from pytest_vq.schema.spec import PrecisionSpec

CPU = torch.device("cpu")


def source() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 32)).eval()


def at(name: str) -> Converted:
    return convert(source(), find_precision(name), device=CPU, rest=torch.bfloat16, heads=())


def refuse(converted: Converted, name: str, match: str) -> None:
    with pytest.raises(PrecisionError, match=match):
        verify(converted, find_precision(name))


NAMES = ["fp32", "tf32", "fp16", "bf16", "int8", "int8dyn", "int8wo", "int4"]


@pytest.mark.parametrize("name", NAMES)
def test_what_convert_gives_holds(name):
    verify(at(name), find_precision(name))


@pytest.mark.parametrize("name", NAMES[:-1])  # bitsandbytes may repack NF4 at its first forward
def test_what_convert_gives_still_holds_after_a_forward(name):
    converted = at(name)
    with torch.inference_mode():
        converted.module(torch.randn(4, 64, dtype=converted.dtype))
    verify(converted, find_precision(name))


@pytest.mark.parametrize(
    ("name", "other", "match"),
    [
        ("int8", "int4", "expected uint8"),
        ("int4", "int8", "expected int8"),
        ("int8", "fp16", "quantizes nothing"),
        ("fp16", "fp32", "must be fed torch.float32"),
        ("fp32", "fp16", "must be fed torch.float16"),
        ("fp16", "int8", "none of 2 linear layers"),
        ("fp16", "int4", "none of 2 linear layers"),
        ("fp16", "bf16", r"must be fed torch.bfloat16"),
        ("bf16", "fp16", r"must be fed torch.float16"),
        ("fp16", "tf32", r"must be fed torch.float32"),
        ("fp32", "int8wo", "none of 2 linear layers"),
        ("int8wo", "fp32", "quantizes nothing, but 0 is quantized"),
        ("int8wo", "int8dyn", "its activations are not quantized"),
        ("int8dyn", "int8wo", "its activations are quantized too"),
        ("int8wo", "int8", "expected int8"),
        ("int8wo", "int4", "expected uint8"),
        ("int8wo", "int4wo", "expected int32 with 8192 elements, 8 weights in each"),
        ("int8wo", "fp8", r"expected torch.float8_e4m3fn \(64, 64\)"),
        ("int8", "int8wo", r"its weight is torch.int8 \(64, 64\), and no tensor of torchao's"),
    ],
)
def test_one_scheme_under_the_name_of_another(name, other, match):
    refuse(at(name), other, match)


@pytest.mark.parametrize("name", ["int8", "int8dyn", "int8wo", "int4"])
def test_a_layer_left_in_half_precision_without_saying_so(name):
    converted = at(name)
    converted.module[2] = nn.Linear(64, 32).to(converted.dtype)
    refuse(converted, name, "2 layers were replaced, but the model holds 1 quantized ones")


def test_a_count_that_does_not_add_up():
    converted = dataclasses.replace(at("int8"), coverage=Coverage(eligible=3, quantized=2))
    refuse(converted, "int8", "do not make 3")


def test_a_parameter_left_in_fp32():
    for name in ("fp16", "bf16", "int8", "int8wo", "int4"):
        converted = at(name)
        converted.module[1].float()
        refuse(converted, name, "1.weight is torch.float32")


def test_a_buffer_left_in_fp32():
    converted = at("fp16")
    converted.module.register_buffer("table", torch.zeros(3))
    refuse(converted, "fp16", "table is torch.float32")


def test_a_tensor_that_was_never_filled():
    converted = at("fp16")
    converted.module[1] = nn.LayerNorm(64, device="meta", dtype=torch.float16)
    refuse(converted, "fp16", "not every tensor is on one real device")


def test_int8_without_scales():
    converted = at("int8")
    converted.module[0].weight.SCB = None
    refuse(converted, "int8", "the layer 0 .*no scale for every row")


def test_int8_with_scales_of_another_shape():
    converted = at("int8")
    converted.module[0].weight.SCB = converted.module[0].weight.SCB[:5]
    refuse(converted, "int8", "no scale for every row")


def test_int8_of_another_shape():
    converted = at("int8")
    converted.module[0].weight.data = converted.module[0].weight.data[:, :8]
    refuse(converted, "int8", "expected int8")


def test_int8_without_its_outlier_path():
    converted = at("int8")
    converted.module[2].state.threshold = 0.0
    refuse(converted, "int8", "the layer 2 .*threshold is off")


@pytest.mark.parametrize(("attribute", "value"), [("quant_type", "fp4"), ("blocksize", 128), ("shape", (32, 128))])
def test_int4_of_another_kind(attribute, value):
    converted = at("int4")
    setattr(converted.module[0].weight.quant_state, attribute, value)
    refuse(converted, "int4", "the layer 0 .*not NF4 of its shape")


def test_int4_without_double_quantization():
    converted = at("int4")
    converted.module[0].weight.quant_state.nested = False
    refuse(converted, "int4", "scales are not quantized")


def test_int4_of_another_length():
    converted = at("int4")
    converted.module[0].weight.data = converted.module[0].weight.data[:-1]
    refuse(converted, "int4", "expected uint8 with 2048")


@pytest.mark.parametrize("name", ["int8", "int8dyn"])
def test_a_bias_in_fp32(name):
    converted = at(name)
    converted.module[0].bias.data = converted.module[0].bias.data.float()
    refuse(converted, name, "the bias of 0 is torch.float32")


@pytest.mark.parametrize("claim", [1, 2])
@pytest.mark.parametrize("name", ["int8", "int8dyn", "int8wo", "int4", "int4wo", "fp8"])
def test_an_unquantized_model_that_claims_quantized_layers(name, claim):
    left = {"0": "why"} if claim == 1 else {}
    for spec in (find_precision(name), dataclasses.replace(find_precision(name), check=None)):
        converted = own(coverage=Coverage(eligible=2, quantized=claim, left=left))
        with pytest.raises(PrecisionError, match=f"{claim} layers were replaced, but the model holds 0 quantized"):
            verify(converted, spec)


def test_a_quantized_weight_in_something_else_than_a_linear_layer():
    for name in ("fp16", "int8wo"):
        converted = at(name)
        converted.module[1].weight = nn.Parameter(torch.ones(64, dtype=torch.int8), requires_grad=False)
        refuse(converted, name, r"1\.weight is quantized \(torch\.int8\), and is no linear layer's weight")


def test_a_wrapped_weight_in_something_else_than_a_linear_layer():
    wrapped = at("int8wo").module[0].weight
    converted = at("bf16")
    converted.module[1].weight = wrapped
    refuse(converted, "bf16", r"1\.weight is quantized \(Int8Tensor\), and is no linear layer's weight")


def test_a_scale_on_another_device():
    converted = at("int8wo")
    converted.module[0].weight.scale = converted.module[0].weight.scale.to("meta")
    refuse(converted, "int8wo", r"not every tensor is on one real device: .*0\.weight\.scale on meta")


def test_more_bits_than_the_precision_has():
    spec = find_precision("int8wo")
    wide = convert(nn.Sequential(nn.Linear(256, 256)), spec, device=CPU, rest=torch.bfloat16, heads=())
    four = dataclasses.replace(spec, name="four", max_bits=4)
    with pytest.raises(
        PrecisionError, match=r"^four: the layer 0 is not .*: it stores 8\.2 bits a weight, where 4 are"
    ):
        verify(wide, four)
    verify(wide, dataclasses.replace(four, max_bits=None))


def own(**changes: object) -> Converted:
    """A model in BF16, nothing of which is quantized."""
    bf16 = Converted(source().bfloat16(), "torch.bfloat16", torch.bfloat16, Coverage(eligible=2, quantized=0))
    return dataclasses.replace(bf16, **changes)


def test_a_type_of_ones_own_is_held_by_everything():
    verify(own(), PrecisionSpec("bf16", 30.0, dtype="bfloat16"))


def test_a_type_of_ones_own_is_checked():
    with pytest.raises(PrecisionError, match=r"half must be fed torch\.float16, not torch\.bfloat16"):
        verify(own(), PrecisionSpec("half", 30.0, dtype="float16"))
    with pytest.raises(PrecisionError, match=r"half: 0\.weight is torch\.bfloat16, but torch\.float16 was promised"):
        verify(own(dtype=torch.float16), PrecisionSpec("half", 30.0, dtype="float16"))


def test_layers_of_ones_own_are_checked_for_what_holds_of_all():
    without_a_check = PrecisionSpec("int2", 2.0, layer="somewhere:int2")
    with pytest.raises(PrecisionError, match="int2: none of 2 linear layers"):
        verify(own(method="my int2"), without_a_check)
    with pytest.raises(PrecisionError, match="int2: 2 layers were replaced, but the model holds 0 quantized ones"):
        verify(own(method="my int2", coverage=Coverage(eligible=2, quantized=2)), without_a_check)
    verify(at("int8"), without_a_check)


def never_right(module: nn.Module) -> str:
    return f"it is a {type(module).__name__} of {module.in_features} columns"


def test_layers_of_ones_own_are_checked_by_their_own_check():
    spec = PrecisionSpec("mine", 2.0, layer="somewhere:mine", check=f"{__name__}:never_right")
    with pytest.raises(
        PrecisionError, match="mine: the layer 0 is not what it should be: it is a Int8Linear of 64 col"
    ):
        verify(at("int8"), spec)
