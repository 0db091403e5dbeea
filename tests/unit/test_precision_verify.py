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


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4"])
def test_what_convert_gives_holds(name):
    verify(at(name), find_precision(name))


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])  # bitsandbytes may repack NF4 at its first forward
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
    ],
)
def test_one_scheme_under_the_name_of_another(name, other, match):
    refuse(at(name), other, match)


def test_a_layer_left_in_half_precision_without_saying_so():
    converted = at("int8")
    converted.module[2] = nn.Linear(64, 32).to(converted.dtype)
    refuse(converted, "int8", "2 layers were replaced, but the model holds 1 quantized ones")


def test_a_count_that_does_not_add_up():
    converted = dataclasses.replace(at("int8"), coverage=Coverage(eligible=3, quantized=2))
    refuse(converted, "int8", "do not make 3")


def test_a_parameter_left_in_fp32():
    for name in ("fp16", "int8", "int4"):
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


def test_a_bias_in_fp32():
    converted = at("int8")
    converted.module[0].bias.data = converted.module[0].bias.data.float()
    refuse(converted, "int8", "the bias of 0 is torch.float32")


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
    verify(own(method="my int2", coverage=Coverage(eligible=2, quantized=2)), without_a_check)


def never_right(module: nn.Module) -> str:
    return f"it is a {type(module).__name__} of {module.in_features} columns"


def test_layers_of_ones_own_are_checked_by_their_own_check():
    spec = PrecisionSpec("mine", 2.0, layer="somewhere:mine", check=f"{__name__}:never_right")
    with pytest.raises(
        PrecisionError, match="mine: the layer 0 is not what it should be: it is a Int8Linear of 64 col"
    ):
        verify(at("int8"), spec)
