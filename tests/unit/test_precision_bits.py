"""How many bits a weight takes, by what is stored; and libraries that store more than their name says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision import torchao_layers
from pytest_vq.precision.bits import bits_fault, quantized_layers
from pytest_vq.precision.convert import convert
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.precisions import find_precision

CPU = torch.device("cpu")
ON_A_CPU = ["int8", "int8dyn", "int8wo", "int4"]


def at(name: str, *layers: nn.Module) -> nn.Module:
    source = nn.Sequential(*layers)
    return convert(source, find_precision(name), device=CPU, rest=torch.bfloat16, heads=()).module


@pytest.mark.parametrize("name", ON_A_CPU)
@pytest.mark.parametrize("shape", [(64, 64), (192, 576), (768, 192)], ids=str)
def test_every_layer_takes_the_bits_of_its_precision(name: str, shape: tuple[int, int]) -> None:
    (layer,) = at(name, nn.Linear(*shape))
    assert bits_fault(layer, find_precision(name).max_bits) == ""


@pytest.mark.parametrize("name", ["int8", "int8dyn", "int8wo"])
def test_a_layer_of_twice_the_bits_is_found_out(name: str) -> None:
    (layer,) = at(name, nn.Linear(192, 192))
    assert bits_fault(layer, 4).startswith("it stores 8.2 bits a weight, where 4 are meant and at most 6 pass")
    assert bits_fault(layer, None) == ""


def test_a_copy_of_the_weights_beside_the_codes_is_found_out() -> None:
    (layer,) = at("int8wo", nn.Linear(192, 192))
    layer.register_buffer("unquantized", torch.zeros(192, 192))
    assert bits_fault(layer, 8).startswith("it stores 40.2 bits a weight")


def test_a_bias_is_no_weight() -> None:
    (layer,) = at("int8wo", nn.Linear(16, 4096))
    biased = bits_fault(layer, 8)
    layer.bias = None
    assert bits_fault(layer, 8) == biased == ""
    assert bits_fault(layer, 4) != ""


def byte_a_weight(linear: nn.Linear, copier: Copier) -> nn.Module:
    """What torchao gives for "weights of 4 bits" by its configuration for any number of bits."""
    config = torchao_layers.ao.IntxWeightOnlyConfig(weight_dtype=torch.int4)
    return torchao_layers._layer(linear, copier, config)


def test_4_bits_in_a_byte_each_are_no_4_bits() -> None:
    spec = dataclasses.replace(find_precision("int4"), name="four", layer=f"{__name__}:byte_a_weight", check=None)
    words = r"^four: none of 1 linear layers was quantized \(0: it stores 8\.\d bits a weight, where 4 are meant and at"
    with pytest.raises(PrecisionError, match=words):
        convert(nn.Sequential(nn.Linear(192, 192)), spec, device=CPU, rest=torch.bfloat16, heads=())
    eight = dataclasses.replace(spec, max_bits=8)
    converted = convert(nn.Sequential(nn.Linear(192, 192)), eight, device=CPU, rest=torch.bfloat16, heads=())
    assert converted.coverage.quantized == 1


def padded(linear: nn.Linear, copier: Copier) -> nn.Module:
    """8-bit weights in rows that are filled up to 1,024 columns, as torchao's tiles of 4-bit weights are."""
    layer = torchao_layers.int8wo_layer(linear, copier)
    assert isinstance(layer, nn.Module)
    codes = torch.zeros(linear.out_features, max(1024 - linear.in_features, 0), dtype=torch.int8)
    layer.register_buffer("padding", codes)
    return layer


def test_a_layer_of_too_much_padding_is_left_with_its_bits_as_the_reason() -> None:
    spec = dataclasses.replace(find_precision("int8wo"), layer=f"{__name__}:padded", min_layer_sqnr_db=None)
    source = nn.Sequential(nn.Linear(192, 768), nn.Linear(768, 64), nn.Linear(64, 1024), nn.Linear(1024, 64))
    converted = convert(source, spec, device=CPU, rest=torch.bfloat16, heads=())
    assert set(converted.coverage.left) == {"0", "2"}
    assert converted.coverage.left["0"].startswith(
        "it stores 42.9 bits a weight, where 8 are meant and at most 12 pass"
    )
    assert set(quantized_layers(converted.module)) == {"1", "3"}
    assert converted.module[0].weight.dtype is torch.bfloat16


class Codes(nn.Module):
    """A linear layer of one's own, by another base class."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)


@pytest.mark.parametrize(
    ("weight", "quantized"),
    [
        (torch.zeros(4, 8, dtype=torch.int8), True),
        (torch.zeros(4, 8, dtype=torch.uint8), True),
        (torch.zeros(4, 8, dtype=torch.float8_e4m3fn), True),
        (torch.zeros(4, 8, dtype=torch.bfloat16), False),
        (torch.zeros(4, 8), False),
        (torch.zeros(4, 8, dtype=torch.complex64), False),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_what_counts_as_a_quantized_layer(weight: Tensor, *, quantized: bool) -> None:
    model = nn.ModuleDict({"own": Codes(weight), "bag": nn.EmbeddingBag(4, 8)})
    assert set(quantized_layers(model)) == ({"own"} if quantized else set())


def test_a_layer_of_two_names_is_one() -> None:
    layer = at("int8wo", nn.Linear(64, 64))[0]
    assert list(quantized_layers(nn.ModuleList([layer, layer]))) == ["0"]
