from __future__ import annotations

from collections.abc import Sequence

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.size import file_bytes, stored_tensors

QUANTIZING = ["int8", "int8dyn", "int8wo", "int4"]


def at(source: nn.Module, name: str, heads: Sequence[str] = ()) -> Converted:
    return convert(source, find_precision(name), device=torch.device("cpu"), rest=torch.bfloat16, heads=heads)


def size_of(module: nn.Module) -> int:
    return file_bytes(stored_tensors(module))


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 64), nn.Linear(64, 64), nn.Linear(64, 10)
    ).eval()


@pytest.mark.parametrize("name", ["fp32", "tf32", "fp16", "bf16", *QUANTIZING])
def test_it_is_what_safetensors_writes(name):
    converted = at(model(), name, ["5"])
    written = len(safetensors.torch.save(stored_tensors(converted.module)))
    assert converted.model_size_bytes == size_of(converted.module) == written


@pytest.mark.parametrize("count", range(1, 14))
def test_the_header_is_laid_out_as_safetensors_does(count):
    # Every type, odd sizes, and names that need escapes: the header's length depends on all of them.
    dtypes = [
        torch.int64, torch.bool, torch.float32, torch.uint8, torch.bfloat16, torch.float64, torch.int8, torch.float16,
        torch.int32, torch.int16, torch.float8_e5m2, torch.float8_e4m3fn, torch.complex64,
    ]  # fmt: skip
    tensors = {f'tensor "{i}" é\\': torch.zeros(7 * i + 1, 3).to(dtype) for i, dtype in enumerate(dtypes[:count])}
    assert file_bytes(tensors) == len(safetensors.torch.save(tensors))


def test_scalars_and_empty_tensors():
    tensors = {"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4), "other": torch.zeros(0)}
    assert file_bytes(tensors) == len(safetensors.torch.save(tensors))
    holder = nn.Module()
    for name, tensor in tensors.items():
        holder.register_buffer(name, tensor)
    assert stored_tensors(holder).keys() == tensors.keys()


def test_what_is_shared_counts_once():
    one = nn.Sequential(nn.Linear(64, 64))
    two = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    two[1].weight, two[1].bias = two[0].weight, two[0].bias
    assert size_of(two) == size_of(one)
    two[1].weight = nn.Parameter(two[0].weight.clone())
    assert size_of(two) > size_of(one) + 64 * 64 * 4


@pytest.mark.parametrize("name", QUANTIZING)
def test_a_shared_quantized_weight_counts_once(name):
    def size(*, shared: bool) -> int:
        source = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False))
        if shared:
            source[1].weight = source[0].weight
        return at(source, name).model_size_bytes

    assert size(shared=False) - size(shared=True) >= 256 * 256 // (2 if name == "int4" else 1)


@pytest.mark.parametrize("name", ["int8dyn", "int8wo"])
def test_a_tensor_made_of_others_is_stored_as_those(name):
    tensors = stored_tensors(at(nn.Sequential(nn.Linear(64, 32)), name).module)
    assert {part: tuple(tensor.shape) for part, tensor in tensors.items()} == {
        "0.weight.qdata": (32, 64),
        "0.weight.scale": (32, 1),
        "0.weight.zero_point": (32, 1),
        "0.bias": (32,),
    }
    assert stored_tensors(at(nn.Linear(64, 32), name).module).keys() == {
        "weight.qdata", "weight.scale", "weight.zero_point", "bias",
    }  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZING)
def test_equal_layers_count_each(name):
    def size(count: int) -> int:
        torch.manual_seed(0)
        first = nn.Linear(128, 128, bias=False)
        layers = [nn.Linear(128, 128, bias=False) for _ in range(count)]
        for layer in layers:
            layer.weight = nn.Parameter(first.weight.detach().clone())
        return at(nn.Sequential(*layers), name).model_size_bytes

    each = size(2) - size(1)
    assert each >= 128 * 128 // (2 if name == "int4" else 1)
    assert size(24) - size(1) == pytest.approx(23 * each, rel=0.01)  # offsets in the header have digits


class Pair(Tensor):
    """A tensor made of two, of which one is again such a tensor."""

    def __new__(cls, first: Tensor, _: Tensor) -> Pair:
        return Tensor._make_wrapper_subclass(cls, first.shape, dtype=torch.float64)

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second = first, second

    def __tensor_flatten__(self) -> tuple[list[str], str]:
        return ["first", "second"], "a pair"

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: object) -> Pair:
        return Pair(parts["first"], parts["second"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        assert func is torch.ops.aten.detach.default
        return args[0]


def test_what_is_made_of_such_tensors_is_taken_apart_to_the_last():
    module = nn.Module()
    inner = Pair(torch.zeros(3), torch.ones(2, dtype=torch.int8))
    module.register_buffer("own", Pair(torch.zeros(4, dtype=torch.float16), inner))
    tensors = stored_tensors(module)
    assert list(tensors) == ["own.first", "own.second.first", "own.second.second"]
    assert size_of(module) == len(safetensors.torch.save(tensors))


def test_quantization_state_is_counted():
    source = nn.Sequential(nn.Linear(1024, 256, bias=False))
    size = at(source, "int8").model_size_bytes
    assert size >= 1024 * 256 + 256 * 4  # a scale of four bytes for each row
    size = at(source, "int4").model_size_bytes
    assert size >= 1024 * 256 // 2 + 1024 * 256 // 64


def test_buffers_that_are_not_stored_and_extra_state_are_not_counted():
    class Extra(nn.Module):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 1}

        def set_extra_state(self, state: object) -> None: ...

    module = Extra()
    empty = size_of(module)
    module.register_buffer("cache", torch.zeros(100), persistent=False)
    assert size_of(module) == empty == 16
