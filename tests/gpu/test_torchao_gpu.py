"""TF32 and torchao's schemes on a CUDA device: other kernels run there, and two of the schemes run nowhere else."""

from __future__ import annotations

import gc
from pkgutil import resolve_name

import pytest
import torch
import torch._inductor.config
from small_models import small_vit
from torch import nn

from pytest_vq.device.device import open_device
from pytest_vq.device.target import find_target
from pytest_vq.measure.warming import warm_precision
from pytest_vq.precision.bits import quantized_layers
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.precision.fp32 import tf32, true_fp32
from pytest_vq.precision.precisions import all_precisions, find_precision
from pytest_vq.precision.size import stored_tensors
from pytest_vq.precision.trial import fault_of_shape
from pytest_vq.precision.verify import verify

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
TORCHAO = ["fp8", "int8dyn", "int8wo", "int4wo"]
# What is lost beside the weights' rounding: that of activations to 8 bits, or of BF16.
ARITHMETIC_DB = {"fp8": 27.0, "int8dyn": 33.0, "int8wo": 40.0, "int4wo": 40.0}


@pytest.fixture(autouse=True)
def no_tf32():
    with true_fp32():
        yield


def refusal_here(name: str) -> str:
    """Why this GPU cannot run the precision called ``name``; empty where it can."""
    refusal = find_precision(name).refusal
    target = find_target(gpu=True)
    return resolve_name(refusal)(target) if refusal else ""


@pytest.fixture(autouse=True)
def _runs_here(request: pytest.FixtureRequest) -> None:
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if reason := refusal_here(parameters.get("name", "tf32")):
        pytest.skip(reason)


def vit() -> nn.Module:
    return small_vit(hidden=768, layers=2, heads=12, image=64)


def at(source: nn.Module, name: str, heads: tuple[str, ...] = ()) -> Converted:
    rest = open_device(gpu=True, threads=1).rest_for(find_precision(name))
    return convert(source, find_precision(name), device=CUDA, rest=rest, heads=heads)


def sqnr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    return measure_fidelity(expected.reshape(1, -1), found.reshape(1, -1)).sqnr_db


class TestTF32:
    def test_products_and_convolutions_are_rounded_inside_only(self) -> None:
        left, right = torch.randn(512, 512, device=CUDA), torch.randn(512, 512, device=CUDA)
        images, kernels = torch.randn(4, 64, 32, 32, device=CUDA), torch.randn(64, 64, 3, 3, device=CUDA)
        exact = left.double() @ right.double(), torch.conv2d(images.double(), kernels.double())
        for _ in range(2):
            with tf32():
                for expected, found in zip(exact, (left @ right, torch.conv2d(images, kernels)), strict=True):
                    assert 45 < sqnr_db(expected, found) < 75
            for expected, found in zip(exact, (left @ right, torch.conv2d(images, kernels)), strict=True):
                assert sqnr_db(expected, found) > 100

    def test_a_model_at_tf32_is_fp32s_but_for_its_switches(self) -> None:
        source, images = vit(), torch.randn(4, 3, 64, 64)
        converted = at(source, "tf32", ("classifier",))
        assert converted.fingerprint == at(source, "fp32", ("classifier",)).fingerprint
        with torch.inference_mode():
            expected = source(images).logits
            with resolve_name(find_precision("tf32").switches)():
                rounded = converted.module(images.to(CUDA)).logits
            plain = converted.module(images.to(CUDA)).logits
        assert find_precision("tf32").min_sqnr_db < sqnr_db(expected, rounded) < 75
        assert sqnr_db(expected, plain) > 90


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", TORCHAO)
def test_a_vit_at_each_precision(name: str, batch: int) -> None:
    source, images = vit(), torch.randn(batch, 3, 64, 64)
    before = torch._inductor.config.save_config()
    converted = at(source, name, ("classifier",))
    assert converted.method == f"{find_precision(name).method}, bf16 rest"
    assert (converted.coverage.eligible, converted.coverage.quantized, converted.coverage.left) == (12, 12, {})
    assert {tensor.device.type for tensor in stored_tensors(converted.module).values()} == {"cuda"}
    with torch.inference_mode():
        expected = source(images).logits
        for _ in range(2):
            output = converted.module(images.to(CUDA, torch.bfloat16)).logits
            assert output.dtype is torch.bfloat16
            assert measure_fidelity(expected, output).sqnr_db >= find_precision(name).min_sqnr_db + 3
    verify(converted, find_precision(name))  # still, after forwards
    assert torch._inductor.config.save_config() == before


@pytest.mark.parametrize("name", all_precisions())
def test_every_precision_can_be_warmed_up(name: str) -> None:
    with torch.inference_mode():
        warm_precision(find_precision(name), open_device(gpu=True, threads=1))


def test_schemes_store_different_bytes() -> None:
    names = [name for name in (*TORCHAO, "int8", "int4", "bf16", "fp16", "fp32") if not refusal_here(name)]
    digests = {name: at(vit(), name, ("classifier",)).fingerprint for name in names}
    assert len(set(digests.values())) == len(names)


@pytest.mark.parametrize("shape", [(768, 2304), (1024, 64), (3072, 768)], ids=str)
@pytest.mark.parametrize("name", TORCHAO)
def test_every_shape_computes_what_its_weights_say(name: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(*shape)
    (layer,) = at(nn.Sequential(linear), name).module
    weight = _weight_of(layer, name)
    assert sqnr_db(linear.weight, weight) > {"fp8": 28, "int4wo": 17}.get(name, 35)
    for lead in [(1,), (2,), (16,), (17,), (129,), (1, 5), (2, 197), (3, 2, 7)]:
        inputs = torch.randn(*lead, shape[0]).bfloat16()
        expected = nn.functional.linear(inputs.float(), weight, linear.bias)
        with torch.inference_mode():
            found = layer(inputs.to(CUDA))
        assert found.shape == expected.shape
        assert found.dtype is torch.bfloat16
        assert sqnr_db(expected, found) > ARITHMETIC_DB[name], lead


def _weight_of(layer: nn.Module, name: str) -> torch.Tensor:
    """The weight that the layer stands for, on the CPU: by its codes, or of packed tiles by what it makes of units."""
    if name != "int4wo":
        return layer.weight.qdata.cpu().float() * layer.weight.scale.cpu().float()
    with torch.inference_mode():
        units = torch.eye(layer.in_features, device=CUDA, dtype=torch.bfloat16)
        return (layer(units) - layer.bias).T.float().cpu()


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("int4wo", (384, 384), "it stores 11."),
        ("int4wo", (1280, 1280), "it stores 6.8 bits a weight, where 4 are meant and at most 6 pass"),
        ("int4wo", (192, 192), "in_features 192 is not a multiple of 128"),
        ("int8dyn", (100, 64), "in_features 100 is not a multiple of 8"),
        ("fp8", (72, 64), "in_features 72 is not a multiple of 16"),
    ],
)
def test_what_does_not_fit_is_left_with_the_reason(name: str, shape: tuple[int, int], why: str) -> None:
    coverage = at(nn.Sequential(nn.Linear(*shape), nn.Linear(1024, 1024)), name).coverage
    assert coverage.quantized == 1
    assert coverage.left["0"].startswith(why)


LAYOUTS = {
    "transposed": lambda: torch.randn(1024, 24, device=CUDA).T,
    "class tokens": lambda: torch.randn(24, 5, 1024, device=CUDA)[:, 0],
    "without class token": lambda: torch.randn(6, 5, 1024, device=CUDA)[:, 1:],
    "half of the features": lambda: torch.randn(7, 5, 2048, device=CUDA)[..., :1024],
    "expanded": lambda: torch.randn(1, 1024, device=CUDA).expand(24, 1024),
    "swapped axes": lambda: torch.randn(5, 6, 1024, device=CUDA).transpose(0, 1),
    "four axes": lambda: torch.randn(2, 3, 5, 1024, device=CUDA),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TORCHAO)
def test_every_layout_of_the_input(name: str, layout: str) -> None:
    torch.manual_seed(0)
    (layer,) = at(nn.Sequential(nn.Linear(1024, 96)), name).module
    inputs = LAYOUTS[layout]().bfloat16()
    with torch.inference_mode():
        found, expected = layer(inputs), layer(inputs.contiguous())
    assert sqnr_db(expected, found) > 60


@pytest.mark.parametrize("name", TORCHAO)
def test_weights_in_two_modules_are_held_once(name: str) -> None:
    source = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024))
    source[1].weight = source[0].weight
    converted = at(source, name)
    assert len(quantized_layers(converted.module)) == 2
    assert not [part for part in stored_tensors(converted.module) if part.startswith("1.weight")]


def requested_bytes() -> int:
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_stats(CUDA)["requested_bytes.all.current"]


@pytest.mark.parametrize("name", ["bf16", *TORCHAO])
def test_the_device_holds_the_model_once(name: str) -> None:
    source = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(8))).eval()
    inputs = torch.randn(32, 1024, device=CUDA, dtype=torch.bfloat16)

    def placed_and_used() -> Converted:
        converted = at(source, name)
        with torch.inference_mode():
            converted.module(inputs)
        return converted

    placed_and_used()
    fault_of_shape.cache_clear()
    before = requested_bytes()
    converted = placed_and_used()
    held = requested_bytes() - before
    assert 0.98 * converted.model_size_bytes - 2**16 <= held <= 1.02 * converted.model_size_bytes + 2**16
