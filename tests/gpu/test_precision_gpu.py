"""The schemes on a CUDA device, where other kernels run than on the CPU. Needs no network and a few hundred MiB."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Sequence
from pkgutil import resolve_name

import pytest
import torch
from small_models import small_mobilevit, small_vit
from torch import nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision import bnb
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.precision.fp32 import true_fp32
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.trial import fault_of_shape
from pytest_vq.precision.verify import verify

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
NAMES = ["fp32", "fp16", "int8", "int4"]
# Activations are quantized to 8 bits at int8; at int4 all that is lost is FP16's rounding.
ARITHMETIC_DB = {"int8": 33.0, "int4": 45.0}


@pytest.fixture(autouse=True)
def no_tf32():
    with true_fp32():
        yield


def vit() -> nn.Module:
    return small_vit(hidden=192, layers=3, heads=3, image=64)


def at(source: nn.Module, name: str, heads: Sequence[str] = ()) -> Converted:
    return convert(source, find_precision(name), device=CUDA, rest=torch.float16, heads=heads)


def sqnr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    return measure_fidelity(expected.reshape(1, -1), found.reshape(1, -1)).sqnr_db


def dequantized(name: str, layer: nn.Module) -> torch.Tensor:
    """The weight that the layer stands for, on the CPU, from its stored bytes by the formats' definitions."""
    if layer.weight.is_floating_point():  # it was left as it is
        return layer.weight.data.cpu().float()
    if name == "int8":
        return layer.weight.data.cpu().float() * layer.weight.SCB.cpu()[:, None] / 127
    state = layer.weight.quant_state
    packed = layer.weight.data.cpu().reshape(-1).int()
    codes = torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1)
    scales = state.state2.code.cpu()[state.absmax.cpu().int()].reshape(-1)
    nested = state.state2.absmax.cpu().repeat_interleave(state.state2.blocksize)[: scales.numel()]
    scales = scales * nested + state.offset.cpu()
    count = state.shape[0] * state.shape[1]
    weight = state.code.cpu()[codes][:count] * scales.repeat_interleave(state.blocksize)[:count]
    return weight.reshape(tuple(state.shape))


@pytest.mark.parametrize(
    ("name", "method", "dtype", "quantized", "low_db"),
    [
        ("fp32", "torch.float32", torch.float32, 0, 90),
        ("fp16", "torch.float16", torch.float16, 0, 45),
        ("int8", "bitsandbytes LLM.int8, fp16 rest", torch.float16, 18, 25),
        ("int4", "bitsandbytes NF4, fp16 rest", torch.float16, 18, 9),
    ],
)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_vit_at_each_precision(name, method, dtype, quantized, low_db, batch):
    source = vit()
    images = torch.randn(batch, 3, 64, 64)
    converted = at(source, name, ["classifier"])
    assert (converted.method, converted.dtype) == (method, dtype)
    assert (converted.coverage.eligible, converted.coverage.quantized, converted.coverage.left) == (18, quantized, {})
    assert {parameter.device.type for parameter in converted.module.parameters()} == {"cuda"}
    assert {parameter.device.type for parameter in source.parameters()} == {"cpu"}
    assert {parameter.dtype for parameter in source.parameters()} == {torch.float32}
    with torch.inference_mode():
        expected = source(images).logits
        for _ in range(2):
            output = converted.module(images.to(CUDA, dtype)).logits
            assert output.dtype is dtype
            assert measure_fidelity(expected, output).sqnr_db >= low_db
    verify(converted, find_precision(name))  # still, after forwards


def test_schemes_store_different_bytes_of_the_expected_size():
    converted = {name: at(vit(), name, ["classifier"]) for name in NAMES}
    assert len({each.fingerprint for each in converted.values()}) == 4
    sizes = [converted[name].model_size_bytes for name in NAMES]
    assert sizes == sorted(sizes, reverse=True)
    assert 0.49 < sizes[1] / sizes[0] < 0.51
    for name in NAMES:  # but for the names of types in the header, as on the CPU
        spec, cpu = find_precision(name), torch.device("cpu")
        on_cpu = convert(vit(), spec, device=cpu, rest=torch.bfloat16, heads=["classifier"])
        assert converted[name].model_size_bytes == pytest.approx(on_cpu.model_size_bytes, rel=0.005)


def test_mobilevit_has_all_its_layers_in_nf4_here():
    converted = at(small_mobilevit(), "int4", ["classifier"])
    assert converted.coverage.left == {}
    assert converted.coverage.quantized == converted.coverage.eligible > 0
    with torch.inference_mode():
        output = converted.module(torch.randn(2, 3, 64, 64, device=CUDA, dtype=converted.dtype)).logits
    assert torch.isfinite(output).all()


ALIGNED = [(64, 32), (64, 64), (192, 576), (768, 192), (1280, 640)]
ODD = [(2, 3), (5, 7), (16, 1), (63, 65), (80, 100), (96, 31), (144, 200), (130, 33), (100, 64), (1000, 10)]


def fault_of(name: str, shape: tuple[int, int]) -> str:
    spec = find_precision(name)
    return fault_of_shape(resolve_name(spec.layer), shape, CUDA, torch.float16, spec.min_layer_sqnr_db)


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("shape", ALIGNED, ids=str)
def test_every_shape_of_a_vision_transformer_can_be_quantized(name, shape):
    assert fault_of(name, shape) == ""


# Of the other shapes nothing promises that they work: those that a kernel gets wrong are left out with the reason.
@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("shape", ALIGNED + ODD, ids=str)
def test_every_shape_computes_what_its_weights_say(name, shape):
    torch.manual_seed(0)
    linear = nn.Linear(*shape)
    converted = at(nn.Sequential(linear, nn.Linear(64, 64)), name)
    layer, fault = converted.module[0], fault_of(name, shape)
    assert converted.coverage.left == ({"0": fault} if fault else {})
    assert layer.weight.is_floating_point() == bool(fault)
    weight = dequantized(name, layer)
    for lead in [(1,), (2,), (3,), (7,), (17,), (129,), (1, 5), (2, 197), (8, 257), (3, 2, 7)]:
        inputs = torch.randn(*lead, shape[0]).half()
        expected = nn.functional.linear(inputs.float(), weight, linear.bias)
        with torch.inference_mode():
            found = layer(inputs.to(CUDA))
        assert found.shape == expected.shape
        assert found.dtype is torch.float16
        if expected.numel() > 50:  # fewer are not enough for a ratio of energies to be steady
            assert sqnr_db(expected, found) > ARITHMETIC_DB[name], lead


LAYOUTS = {
    "transposed": lambda: torch.randn(64, 7).T,
    "class tokens": lambda: torch.randn(7, 5, 64)[:, 0],
    "without class token": lambda: torch.randn(3, 5, 64)[:, 1:],
    "half of the features": lambda: torch.randn(7, 5, 128)[..., :64],
    "every second row": lambda: torch.randn(14, 64)[::2],
    "expanded": lambda: torch.randn(1, 64).expand(6, 64),
    "swapped axes": lambda: torch.randn(5, 3, 64).transpose(0, 1),
    "four axes": lambda: torch.randn(2, 3, 5, 64),
    "one vector": lambda: torch.randn(64),
}


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_input(name, layout):
    torch.manual_seed(0)
    linear = nn.Linear(64, 96)
    layer = at(nn.Sequential(linear), name).module[0]
    inputs = LAYOUTS[layout]()
    # ``.to`` keeps a dense layout, but makes slices contiguous: lay the same view out over device memory instead.
    base = torch.zeros(inputs.untyped_storage().nbytes() // 4, device=CUDA, dtype=torch.float16)
    if layout != "expanded":
        base.as_strided(inputs.shape, inputs.stride(), inputs.storage_offset()).copy_(inputs)
    else:
        base[: inputs.shape[1]].copy_(inputs[0])
    view = base.as_strided(inputs.shape, inputs.stride(), inputs.storage_offset())
    with torch.inference_mode():
        found = layer(view)
    assert found.shape == linear(inputs).shape
    assert sqnr_db(linear(inputs), found) > 15


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_int8_keeps_an_outlier_channel_apart(rows):
    torch.manual_seed(0)
    linear = nn.Linear(128, 96)
    inputs = torch.randn(rows, 128)
    inputs[:, 5] = 60.0
    linear.weight.data[:, 5] *= 0.1  # so that what it does to the other channels shows
    expected = linear(inputs)
    apart, together = (at(nn.Sequential(linear), "int8").module[0] for _ in range(2))
    together.state.threshold = 0.0
    with torch.inference_mode():
        apart_db, together_db = (sqnr_db(expected, each(inputs.to(CUDA).half())) for each in (apart, together))
    assert apart_db > 30
    assert together_db < 22


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_rows_of_zeros_give_zeros(name):
    layer = at(nn.Sequential(nn.Linear(64, 64, bias=False)), name).module[0]
    inputs = torch.randn(4, 64, device=CUDA, dtype=torch.float16)
    inputs[1] = 0
    with torch.inference_mode():
        found = layer(inputs)
    assert torch.isfinite(found).all()
    assert not found[1].any()
    assert found[0].any()


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_weights_in_two_modules_are_held_once_and_right(name):
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    source[1].weight = source[0].weight
    converted = at(source, name)
    assert converted.module[0].weight.data_ptr() == converted.module[1].weight.data_ptr()
    inputs = torch.randn(9, 64)
    with torch.inference_mode():
        for _ in range(2):
            assert sqnr_db(source(inputs), converted.module(inputs.to(CUDA).half())) > 12


def requested_bytes() -> int:
    """What tensors that are alive asked for: no garbage, no workspace, and not what their blocks are larger."""
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_stats(CUDA)["requested_bytes.all.current"]


@pytest.mark.parametrize("name", NAMES)
def test_the_device_holds_the_model_once(name):
    source = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(8))).eval()
    inputs = torch.randn(2, 1024, device=CUDA)

    def placed_and_used() -> Converted:
        converted = at(source, name)
        with torch.inference_mode():
            converted.module(inputs.to(converted.dtype))
        return converted

    placed_and_used()  # what a library keeps from its first use on is not the model's
    before = requested_bytes()
    converted = placed_and_used()
    held = requested_bytes() - before
    assert 0.98 * converted.model_size_bytes - 2**16 <= held <= 1.02 * converted.model_size_bytes + 2**16


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_forwards_log_nothing(name, caplog):
    converted = at(vit(), name, ["classifier"])
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        converted.module(torch.randn(2, 3, 64, 64, device=CUDA, dtype=converted.dtype))
    assert caplog.records == []


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_forwards_warn_of_nothing(name):
    """bitsandbytes would at each call, where in_features are no multiple of 64: here of 80 and 96."""
    converted = at(small_mobilevit(), name, ["classifier"])
    images = torch.randn(2, 3, 64, 64, device=CUDA, dtype=converted.dtype)
    with warnings.catch_warnings(record=True) as caught, torch.inference_mode():
        warnings.simplefilter("always")
        for _ in range(2):
            converted.module(images)
    assert [str(warning.message) for warning in caught if "bitsandbytes" in warning.filename] == []


@pytest.mark.parametrize("lead", [(1,), (5,), (8, 257)], ids=str)
def test_where_bitsandbytes_would_warn_the_answer_is_its_own(lead):
    torch.manual_seed(0)
    layer = at(nn.Sequential(nn.Linear(80, 100)), "int4").module[0]
    inputs = torch.randn(*lead, 80, device=CUDA, dtype=torch.float16)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(layer(inputs), bnb.bitsandbytes.nn.Linear4bit.forward(layer, inputs))


def test_a_model_on_the_device_is_no_source():
    with pytest.raises(PrecisionError, match="must be on the CPU, but weight is on cuda"):
        at(nn.Linear(64, 64).to(CUDA), "fp16")
    with pytest.raises(PrecisionError, match="already quantized"):
        at(at(vit(), "int8", ["classifier"]).module, "int4", ["classifier"])
