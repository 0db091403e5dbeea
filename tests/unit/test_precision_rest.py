"""What a precision leaves unquantized: its type by the device, and what a row says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pytest_vq.device.device import Device, open_device
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure.sections import setup_of
from pytest_vq.options import Options
from pytest_vq.precision.precisions import all_precisions, find_precision
from pytest_vq.precision.recipe_precision import precision_of
from pytest_vq.schema.recipe import Recipe
from pytest_vq.schema.spec import Case, ModelSpec

MODEL = ModelSpec("net", "local", "Net", (3, 8, 8), 10, ())
FOR_GPUS = {"int8": "fp16", "int4": "fp16", "fp8": "bf16", "int8dyn": "bf16", "int8wo": "bf16", "int4wo": "bf16"}


@pytest.fixture
def cpu() -> Device:
    return replace(open_device(gpu=False, threads=1), rest_dtype=torch.float32)


@pytest.fixture
def gpu(cpu: Device) -> Device:
    """A device that says it is a GPU, as ``open_device`` makes one."""
    return replace(cpu, torch_device=torch.device("cuda", 0), rest_dtype=torch.float16, threads=None)


@pytest.mark.parametrize("name", FOR_GPUS)
def test_on_a_cpu_it_is_what_the_cpu_computes_best_unless_its_kernels_want_another(name: str, cpu: Device) -> None:
    wants_fp32 = name in ("int8dyn", "int8wo")
    assert cpu.rest_for(find_precision(name)) is torch.float32
    with_bf16 = replace(cpu, rest_dtype=torch.bfloat16)
    assert with_bf16.rest_for(find_precision(name)) is (torch.float32 if wants_fp32 else torch.bfloat16)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", "float32"), ("tf32", "float32"), ("bf16", "bfloat16")])
def test_a_precision_that_only_casts_has_its_own_type(name: str, dtype: str, cpu: Device, gpu: Device) -> None:
    assert [device.rest_for(find_precision(name)) for device in (cpu, gpu)] == [getattr(torch, dtype)] * 2


def test_a_recipe_says_which_type_the_rest_has(cpu: Device, gpu: Device) -> None:
    recipe = precision_of(Recipe("net", "bf16", {"a": "int8"}), "recipe-mine")
    assert [device.rest_for(recipe) for device in (cpu, gpu)] == [torch.bfloat16] * 2


@pytest.mark.parametrize("name", all_precisions())
def test_the_row_says_what_it_was(name: str, cpu: Device, gpu: Device) -> None:
    case = Case(MODEL, find_scheme(name))
    assert setup_of(case, gpu, Options(gpu=True)).rest == FOR_GPUS.get(name)
    assert setup_of(case, cpu, Options()).rest == ("fp32" if name in FOR_GPUS else None)


def test_the_row_says_that_tf32_was_on(gpu: Device) -> None:
    on = {name for name in all_precisions() if setup_of(Case(MODEL, find_scheme(name)), gpu, Options(gpu=True)).tf32}
    assert on == {"tf32"}
