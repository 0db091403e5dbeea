"""What torchao makes of a layer, what it leaves, and what it must not touch."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn

from pytest_vq.catalog.build import build_meta, build_source, example_inputs, output_tensor
from pytest_vq.catalog.models import find_model
from pytest_vq.precision import torchao_layers
from pytest_vq.precision.bits import quantized_layers
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.precision.layers import Copier, eligible_layers
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.trial import fault_of_shape
from pytest_vq.precision.verify import verify
from pytest_vq.schema.spec import ModelSpec

CPU, GPU = torch.device("cpu"), torch.device("cuda")
INT8 = ["int8dyn", "int8wo"]
BUILDERS: dict[str, Callable[[nn.Linear, Copier], nn.Module | str]] = {
    "fp8": torchao_layers.fp8_layer,
    "int8dyn": torchao_layers.int8dyn_layer,
    "int8wo": torchao_layers.int8wo_layer,
    "int4wo": torchao_layers.int4wo_layer,
}


@cache
def source_of(name: str) -> tuple[ModelSpec, nn.Module, Tensor, Tensor]:
    spec = find_model(name)
    source, images = build_source(spec), example_inputs(spec, 1)
    with torch.inference_mode():
        return spec, source, images, output_tensor(source(images))


def at(name: str, model: str, rest: torch.dtype) -> Converted:
    spec, source, _, _ = source_of(model)
    return convert(source, find_precision(name), device=CPU, rest=rest, heads=spec.heads)


@pytest.fixture
def fp8_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao refuses FP8 on a CPU, but torch multiplies it there: slowly, and as a GPU does but for its order."""
    fault_of_shape.cache_clear()
    monkeypatch.setattr("torchao.quantization.quant_api._check_hardware_support", lambda _: None)
    yield
    fault_of_shape.cache_clear()


@pytest.mark.parametrize("rest", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("model", "layers"), [("vit-digits", 24), ("deit-tiny-patch16-224", 72)])
@pytest.mark.parametrize("name", INT8)
def test_a_vision_transformer_has_every_layer_quantized_and_answers_well(name, model, layers, rest) -> None:
    converted = at(name, model, rest)
    assert (converted.coverage.quantized, converted.coverage.eligible, converted.coverage.left) == (layers, layers, {})
    assert converted.dtype is rest
    _, _, images, expected = source_of(model)
    with torch.inference_mode():
        found = output_tensor(converted.module(images.to(rest)))
    assert found.dtype is rest
    assert measure_fidelity(expected, found).sqnr_db > {"int8dyn": 27, "int8wo": 31}[name]


@pytest.mark.parametrize("name", INT8)
def test_mobilevits_layers_are_all_quantized_on_a_cpu(name) -> None:
    converted = at(name, "mobilevit-xx-small", torch.bfloat16)
    assert (converted.coverage.quantized, converted.coverage.left) == (54, {})
    _, _, images, expected = source_of("mobilevit-xx-small")
    with torch.inference_mode():
        assert measure_fidelity(expected, output_tensor(converted.module(images.bfloat16()))).sqnr_db > 28


@pytest.mark.usefixtures("fp8_on_a_cpu")
@pytest.mark.parametrize("model", ["vit-digits", "deit-tiny-patch16-224", "mobilevit-xx-small"])
def test_fp8_quantizes_all_layers_of_these_too(model) -> None:
    converted = at("fp8", model, torch.bfloat16)
    assert converted.coverage.quantized == converted.coverage.eligible
    _, _, images, expected = source_of(model)
    with torch.inference_mode():
        assert measure_fidelity(expected, output_tensor(converted.module(images.bfloat16()))).sqnr_db > 18


@pytest.mark.usefixtures("fp8_on_a_cpu")
def test_fp8_leaves_other_multiples_with_the_reason() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(64, 96), nn.Linear(96, 40), nn.Linear(40, 64), nn.Linear(64, 64))
    converted = convert(source, find_precision("fp8"), device=CPU, rest=torch.bfloat16, heads=())
    assert converted.coverage.left == {
        "1": "out_features 40 is not a multiple of 16, as FP8's products need",
        "2": "in_features 40 is not a multiple of 16, as FP8's products need",
    }
    inputs = torch.randn(5, 64)
    with torch.inference_mode():
        assert measure_fidelity(source(inputs), converted.module(inputs.bfloat16())).sqnr_db > 20


@pytest.mark.parametrize(
    ("model", "left"), [("mobilevit-small", 0), ("mobilevit-xx-small", 0), ("deit-tiny-patch16-224", 0)]
)
@pytest.mark.parametrize("multiple", [8, 16])
def test_how_many_layers_of_the_catalog_are_no_multiple(model, left, multiple) -> None:
    spec = find_model(model)
    layers = eligible_layers(build_meta(spec), spec.heads).values()
    assert sum(bool(layer.in_features % multiple or layer.out_features % multiple) for layer in layers) == left


@pytest.mark.parametrize(
    ("name", "device", "shape", "why"),
    [
        ("int8dyn", GPU, (100, 64), "in_features 100 is not a multiple of 8, as 8-bit products on a GPU need"),
        ("int8dyn", GPU, (64, 31), "out_features 31 is not a multiple of 8, as 8-bit products on a GPU need"),
        ("fp8", GPU, (72, 64), "in_features 72 is not a multiple of 16, as FP8's products need"),
        ("int4wo", GPU, (192, 64), "in_features 192 is not a multiple of 128, the weights that share a scale"),
    ],
)
def test_what_the_kernels_do_not_take_is_left_with_the_reason(name, device, shape, why) -> None:
    assert BUILDERS[name](nn.Linear(*shape), Copier(device, torch.bfloat16)) == why


@pytest.mark.parametrize("name", INT8)
def test_what_torchao_leaves_silently_is_left_with_the_reason(name, monkeypatch) -> None:
    monkeypatch.setattr(torchao_layers.ao, "quantize_", lambda *_: None)
    why = BUILDERS[name](nn.Linear(64, 96), Copier(CPU, torch.bfloat16))
    assert why == "torchao leaves a layer of 64 -> 96 as it is, and does not say why"


@pytest.mark.parametrize("reduced", [True, False])
def test_a_cpu_whose_8_bit_sums_overflow_gets_7_bits(reduced, monkeypatch) -> None:
    monkeypatch.setattr(torchao_layers, "should_reduce_range", lambda _: reduced)
    torch.manual_seed(0)
    linear = nn.Linear(192, 192)
    layer = torchao_layers.int8dyn_layer(linear, Copier(CPU, torch.bfloat16))
    assert (layer.weight.qdata.abs().max() > 64) == (not reduced)
    inputs = torch.randn(9, 192)
    with torch.inference_mode():
        sqnr_db = measure_fidelity(linear(inputs), layer(inputs.bfloat16())).sqnr_db
    assert (30 if reduced else 38) < sqnr_db < (38 if reduced else 45)


@pytest.mark.parametrize("name", INT8)
def test_a_weight_is_cast_before_it_is_quantized(name) -> None:
    layer = BUILDERS[name](nn.Linear(64, 64), Copier(CPU, torch.bfloat16))
    assert layer.weight.dtype is layer.bias.dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["fp8", *INT8])
def test_settings_of_the_compiler_are_as_they_were(name, fp8_on_a_cpu) -> None:
    before = [module.save_config() for module in (torch._inductor.config, torch._dynamo.config)]
    source = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    converted = convert(source, find_precision(name), device=CPU, rest=torch.bfloat16, heads=())
    with torch.inference_mode():
        converted.module(torch.randn(3, 64, dtype=torch.bfloat16))
    assert [module.save_config() for module in (torch._inductor.config, torch._dynamo.config)] == before


@pytest.mark.parametrize("name", ["fp8", *INT8])
def test_a_copy_is_whole_and_apart(name, fp8_on_a_cpu) -> None:
    source = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    converted = convert(source, find_precision(name), device=CPU, rest=torch.bfloat16, heads=())
    again, inputs = copy.deepcopy(converted), torch.randn(3, 64, dtype=torch.bfloat16)
    verify(again, find_precision(name))
    with torch.inference_mode():
        expected = converted.module(inputs)
        for layer in quantized_layers(converted.module).values():
            layer.weight.scale.zero_()
        assert torch.equal(again.module(inputs), expected)


@pytest.mark.usefixtures("fp8_on_a_cpu")
def test_schemes_of_8_bits_have_a_fingerprint_each() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    digests = [
        convert(source, find_precision(name), device=CPU, rest=torch.bfloat16, heads=()).fingerprint
        for name in ("fp8", "int8", "int8dyn", "int8wo", "bf16")
    ]
    assert len(set(digests)) == 5


OTHERS_FIRST = """
import sys
import torch
from torch import nn
from pytest_vq.precision.convert import convert
from pytest_vq.precision.precisions import find_precision
for name in ("fp32", "tf32", "fp16", "bf16", "int8", "int4"):
    source = nn.Sequential(nn.Linear(64, 64))
    convert(source, find_precision(name), device=torch.device("cpu"), rest=torch.bfloat16, heads=())
print("torchao" in sys.modules)
import pytest_vq.precision.torchao_layers
print("torchao" in sys.modules)
"""


@pytest.fixture(scope="module")
def process() -> subprocess.CompletedProcess[str]:
    """One that converts to the precisions without torchao, loads it then, and says both times whether it is loaded."""
    done = subprocess.run([sys.executable, "-c", OTHERS_FIRST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_other_precisions_load_no_torchao(process: subprocess.CompletedProcess[str]) -> None:
    assert process.stdout.split()[0] == "False"


def test_loading_torchao_says_nothing(process: subprocess.CompletedProcess[str]) -> None:
    """It has extensions for other machines, and would warn that they do not load here."""
    assert (process.stdout, process.stderr) == ("False\nTrue\n", "")


def test_loading_torchao_leaves_loggers_as_they_were() -> None:
    assert logging.getLogger("torchao").level == logging.NOTSET
