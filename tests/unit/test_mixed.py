"""A model of mixed precision: each layer holds what the recipe says, and a layer that does not is found out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.mixed import CastingLayer
from pytest_vq.precision.recipe_precision import precision_of
from pytest_vq.precision.verify import verify
from pytest_vq.schema.recipe import Recipe
from pytest_vq.schema.spec import PrecisionSpec

CPU = torch.device("cpu")
LAYERS = {"a": "int8wo", "b": "int8", "c": "bf16", "d": "fp32", "e": "int4"}


class Net(nn.Module):
    """Six layers of one shape and a head, so that whatever differs between them is their precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in "abcdef":
            self.add_module(name, nn.Linear(64, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for name in "abcdef":
            x = x + self.get_submodule(name)(x)
        return self.head(x)  # type: ignore[no-any-return]


def spec_of(layers: dict[str, str], rest: str = "fp32") -> PrecisionSpec:
    return precision_of(Recipe("net", rest, layers), "recipe-mine")


def mixed(layers: dict[str, str], rest: str = "fp32", source: nn.Module | None = None) -> Converted:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[rest]
    return convert(source or Net(), spec_of(layers, rest), device=CPU, rest=dtype, heads=["head"])


def inner(layer: nn.Module) -> nn.Module:
    return layer.layer if isinstance(layer, CastingLayer) else layer  # type: ignore[return-value]


@pytest.mark.parametrize("rest", ["fp32", "bf16"])
def test_each_layer_has_its_own_precision_and_all_else_the_rest_s(rest: str) -> None:
    converted = mixed(LAYERS, rest)
    module, dtype = converted.module, converted.dtype
    kinds = {name: type(inner(module.get_submodule(name))).__name__ for name in "abcdef"}
    assert kinds == {"a": "Linear", "b": "Int8Linear", "c": "Linear", "d": "Linear", "e": "NF4Linear", "f": "Linear"}
    types = {name: inner(module.get_submodule(name)).weight.dtype for name in "cdf"}
    assert types == {"c": torch.bfloat16, "d": torch.float32, "f": dtype}
    assert module.head.weight.dtype is dtype
    assert (converted.coverage.eligible, converted.coverage.quantized) == (6, 3)
    assert converted.coverage.left == {
        "c": "it is bf16, as chosen",
        "d": "it is fp32, as chosen",
        "f": f"it is {rest}, as chosen",
    }
    assert converted.method.startswith("mixed: ")
    assert converted.method.endswith(f"{rest} rest")


@pytest.mark.parametrize("rest", ["fp32", "bf16"])
def test_it_answers_nearly_as_fp32_does(rest: str) -> None:
    x = torch.randn(32, 64)
    with torch.inference_mode():
        expected, converted = Net()(x), mixed(LAYERS, rest)
        answer = converted.module(x.to(converted.dtype))
    assert answer.dtype is converted.dtype
    noise = (answer.float() - expected).square().sum() / expected.square().sum()
    assert 1e-6 < noise < 1e-2


def test_a_layer_s_own_type_is_no_wrapper_where_the_rest_has_it() -> None:
    module = mixed({"a": "bf16", "b": "fp32"}, "bf16").module
    assert type(module.a) is nn.Linear
    assert isinstance(module.b, CastingLayer)
    assert module.b.weight.dtype is torch.float32


def test_the_source_is_left_as_it_was() -> None:
    source = Net()
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    mixed(LAYERS, "bf16", source)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())
    assert all(type(layer) is nn.Linear for layer in source.children())


@pytest.mark.parametrize("name", ["g", "a.weight", "head"])
def test_a_layer_that_the_model_has_not_is_refused(name: str) -> None:
    with pytest.raises(PrecisionError, match=f"recipe-mine: the model has no linear layer '{name}' outside its head"):
        mixed({name: "int8"})


def test_a_near_name_is_told() -> None:
    class Named(Net):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleList([nn.ModuleDict({"fc1": nn.Linear(8, 8)})])

    with pytest.raises(PrecisionError, match=r"no linear layer 'encoder.0.fc2'.*the nearest are encoder.0.fc1"):
        mixed({"encoder.0.fc2": "int8"}, source=Named())


def test_a_layer_that_cannot_have_its_precision_is_refused() -> None:
    source = Net()
    source.a = nn.Linear(64, 33)
    with pytest.raises(PrecisionError, match="a cannot be int4 here: out_features 33 is not a multiple of 32"):
        mixed({"a": "int4"}, source=source)


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("a", nn.Linear(64, 64), "the layer a is not int8wo: its weight is torch.float32"),
        ("b", nn.Linear(64, 64), "the layer b is not int8: its weight is torch.float32"),
        ("c", nn.Linear(64, 64), "the layer c is not bf16: weight is torch.float32"),
        ("d", nn.Linear(64, 64).bfloat16(), "the layer d is not fp32: weight is torch.bfloat16"),
        ("f", nn.Linear(64, 64).bfloat16(), "f.weight is torch.bfloat16, but torch.float32 was promised"),
        ("head", nn.Linear(64, 10).half(), "head.weight is torch.float16"),
    ],
)
def test_a_layer_that_is_not_what_was_said_is_found_out(name: str, replacement: nn.Module, message: str) -> None:
    converted = mixed(LAYERS)
    setattr(converted.module, name, replacement)
    with pytest.raises(PrecisionError, match=message):
        verify(converted, spec_of(LAYERS))


def test_a_quantized_layer_that_was_not_chosen_is_found_out() -> None:
    converted = mixed({"a": "int8"})
    with pytest.raises(PrecisionError, match="a is quantized, unlike chosen"):
        verify(converted, spec_of({"b": "fp32"}))


def test_a_quantized_weight_of_no_layer_is_found_out() -> None:
    converted = mixed({"a": "int8"})
    converted.module.norm = nn.LayerNorm(64)
    converted.module.norm.weight = nn.Parameter(torch.ones(64, dtype=torch.int8), requires_grad=False)
    with pytest.raises(PrecisionError, match=r"norm\.weight is quantized \(torch\.int8\), and is no linear layer's"):
        verify(converted, spec_of({"a": "int8"}))


def test_no_layer_at_all_is_a_cast_model() -> None:
    converted = mixed({}, "bf16")
    assert {p.dtype for p in converted.module.parameters()} == {torch.bfloat16}
    assert converted.coverage.quantized == 0
