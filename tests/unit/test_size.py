from __future__ import annotations

from collections.abc import Sequence

import pytest
import safetensors.torch
import torch
from torch import nn

from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.size import file_bytes, stored_tensors


def at(source: nn.Module, name: str, heads: Sequence[str] = ()) -> Converted:
    return convert(source, find_precision(name), device=torch.device("cpu"), rest=torch.bfloat16, heads=heads)


def size_of(module: nn.Module) -> int:
    return file_bytes(stored_tensors(module))


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 64), nn.Linear(64, 64), nn.Linear(64, 10)
    ).eval()


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4"])
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


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_shared_quantized_weight_counts_once(name):
    def size(*, shared: bool) -> int:
        source = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False))
        if shared:
            source[1].weight = source[0].weight
        return at(source, name).model_size_bytes

    assert size(shared=False) - size(shared=True) >= 256 * 256 // (1 if name == "int8" else 2)


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
