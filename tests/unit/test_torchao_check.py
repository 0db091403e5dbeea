"""Layers that are not what torchao stores for a precision, put together by hand; no builder is asked."""

from __future__ import annotations

import pytest
import torch
import torchao.quantization as ao
from torch import Tensor, nn

from pytest_vq.precision.bits import bits_fault
from pytest_vq.precision.torchao_check import fp8_fault, int4wo_fault, int8dyn_fault, int8wo_fault

ROWS, COLUMNS = 64, 96


def layer(weight: Tensor, rows: int = ROWS, columns: int = COLUMNS) -> nn.Module:
    module = nn.Linear(columns, rows, bias=False, device="meta")
    module.weight = nn.Parameter(weight, requires_grad=False)
    return module


def int8(*, codes: Tensor | None = None, scales: Tensor | None = None, **attributes: object) -> nn.Module:
    codes = torch.ones(ROWS, COLUMNS, dtype=torch.int8) if codes is None else codes
    scales = torch.ones(ROWS, 1) if scales is None else scales
    return layer(ao.Int8Tensor(codes, scales, [1, COLUMNS], torch.bfloat16, **attributes))


def fp8(dtype: torch.dtype = torch.float8_e4m3fn, **attributes: object) -> nn.Module:
    codes = torch.ones(ROWS, COLUMNS).to(dtype)
    return layer(ao.Float8Tensor(codes, torch.ones(ROWS, 1), [1, COLUMNS], dtype=torch.bfloat16, **attributes))


def tiles(columns: int = 768, rows: int = 64, group: int = 128, packed: int = 1024) -> nn.Module:
    """4-bit weights as torchao packs them: [rows / 8][columns / 128][32][4] words of 8, in rows filled up to 1,024."""
    filled = -(-columns // packed) * packed
    codes = torch.zeros(rows // 8, filled // 128, 32, 4, dtype=torch.int32)
    scales = torch.ones(filled // group, rows, 2, dtype=torch.bfloat16)
    weight = ao.Int4TilePackedTo4dTensor(codes, scales, [1, group], torch.Size((rows, columns)))
    return layer(weight, rows, columns)


QUANTIZED_ACTIVATIONS = {"act_quant_kwargs": object()}


def test_what_torchao_stores_holds() -> None:
    assert int8wo_fault(int8()) == ""
    assert int8wo_fault(int8(zero_point=torch.zeros(ROWS, 1, dtype=torch.int8))) == ""
    assert int8dyn_fault(int8(**QUANTIZED_ACTIVATIONS)) == ""
    assert fp8_fault(fp8(**QUANTIZED_ACTIVATIONS)) == ""
    assert int4wo_fault(tiles()) == ""


def test_whether_activations_are_quantized_is_looked_up() -> None:
    assert int8wo_fault(int8(**QUANTIZED_ACTIVATIONS)) == "its activations are quantized too"
    assert int8dyn_fault(int8()) == "its activations are not quantized"
    assert fp8_fault(fp8()) == "its activations are not quantized"


@pytest.mark.parametrize("fault", [int8wo_fault, int8dyn_fault, fp8_fault, int4wo_fault])
def test_a_plain_weight_is_none_of_torchaos(fault) -> None:
    weight = torch.zeros(ROWS, COLUMNS, dtype=torch.int8)
    assert fault(layer(weight)) == "its weight is torch.int8 (64, 96), and no tensor of torchao's"


def test_codes_of_another_type() -> None:
    found = int8wo_fault(int8(codes=torch.ones(ROWS, COLUMNS, dtype=torch.uint8)))
    assert found == "it holds uint8 (64, 96), float32 (64, 1), expected torch.int8 (64, 96)"
    found = fp8_fault(fp8(torch.float8_e5m2, **QUANTIZED_ACTIVATIONS))
    assert found == "it holds float8_e5m2 (64, 96), float32 (64, 1), expected torch.float8_e4m3fn (64, 96)"
    assert "expected torch.int8" in int8dyn_fault(fp8(**QUANTIZED_ACTIVATIONS))


def test_a_weight_of_another_shape() -> None:
    module = int8()
    module.out_features = 32
    assert int8wo_fault(module) == "its weight stands for (64, 96), expected (32, 96)"


@pytest.mark.parametrize("scales", [torch.ones(1, 1), torch.ones(ROWS, COLUMNS // 32)], ids=["one", "three a row"])
def test_scales_of_another_grain(scales) -> None:
    assert int8wo_fault(int8(scales=scales)).endswith("expected a scale for each of 64 rows")


def test_a_scale_of_activations_beside_that_of_weights() -> None:
    assert int8wo_fault(int8(act_quant_scale=torch.ones(1))).endswith("expected a scale for each of 64 rows")


@pytest.mark.parametrize("wrong", [torch.inf, torch.nan])
def test_scales_that_are_not_finite(wrong) -> None:
    scales = torch.ones(ROWS, 1)
    scales[7] = wrong
    assert int8wo_fault(int8(scales=scales)).startswith("its scales are not finite")
    module = tiles()
    module.weight.scale_and_zero[3, 5, 1] = wrong
    assert int4wo_fault(module).startswith("its scales are not finite")


def test_4_bit_weights_of_another_packing() -> None:
    assert int4wo_fault(tiles(packed=128)).endswith("expected int32 with 8192 elements, 8 weights in each")
    assert int4wo_fault(tiles(group=64)).endswith("expected a scale and a zero point for each 128 weights")


@pytest.mark.parametrize(("columns", "bits"), [(384, "11.3"), (192, "22.7"), (1280, "6.8")])
def test_tiles_of_too_much_padding_take_more_bits_than_4_bit_weights_may(columns, bits) -> None:
    assert bits_fault(tiles(columns, rows=768), 4).startswith(f"it stores {bits} bits a weight, where 4 are meant")


@pytest.mark.parametrize("columns", [768, 1024, 3072, 4096, 5120])
def test_tiles_of_less_padding_do_not(columns) -> None:
    assert bits_fault(tiles(columns, rows=768), 4) == ""
