from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Sequence

import pytest
import torch
from small_models import small_mobilevit, small_vit
from torch import nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.bits import quantized_layers
from pytest_vq.precision.convert import SameBytesGuard, convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.fidelity import measure_fidelity
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.recipe_precision import precision_of
from pytest_vq.precision.size import file_bytes, stored_tensors
from pytest_vq.precision.tensors import plain_tensors
from pytest_vq.schema.recipe import Recipe

CPU = torch.device("cpu")
QUANTIZING = ["int8", "int8dyn", "int8wo", "int4"]  # of those that a CPU runs
NAMES = ["fp32", "tf32", "fp16", "bf16", *QUANTIZING]


def vit() -> nn.Module:
    return small_vit(hidden=64, layers=2, heads=2, image=32)


def to(source: nn.Module, name: str, heads: Sequence[str] = (), rest: torch.dtype = torch.bfloat16) -> Converted:
    return convert(source, find_precision(name), device=CPU, rest=rest, heads=heads)


def small(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers).eval()


@functools.cache
def converted_vit(name: str) -> Converted:
    return to(vit(), name, ["classifier"])


@pytest.mark.parametrize(
    ("name", "method", "dtype", "quantized", "low_db", "high_db"),
    [
        ("fp32", "torch.float32", torch.float32, 0, 200, 200),
        ("tf32", "torch.float32, multiplied in TF32", torch.float32, 0, 200, 200),  # its switches are a GPU's alone
        ("fp16", "torch.float16", torch.float16, 0, 50, 80),
        ("bf16", "torch.bfloat16", torch.bfloat16, 0, 35, 55),
        ("int8", "bitsandbytes LLM.int8, bf16 rest", torch.bfloat16, 12, 32, 50),
        ("int8dyn", "torchao Int8DynamicActivationInt8Weight, per row, bf16 rest", torch.bfloat16, 12, 32, 50),
        ("int8wo", "torchao Int8WeightOnly, per row, bf16 rest", torch.bfloat16, 12, 35, 55),
        ("int4", "bitsandbytes NF4, bf16 rest", torch.bfloat16, 12, 12, 30),
    ],
)
def test_a_vit_at_each_precision(name, method, dtype, quantized, low_db, high_db):
    source = vit()
    images = torch.randn(3, 3, 32, 32)
    converted = to(source, name, ["classifier"])
    assert (converted.method, converted.dtype) == (method, dtype)
    assert (converted.coverage.eligible, converted.coverage.quantized, converted.coverage.left) == (12, quantized, {})
    assert not converted.module.training
    assert not any(parameter.requires_grad for parameter in converted.module.parameters())
    with torch.inference_mode():
        output = converted.module(images.to(dtype)).logits
        fidelity = measure_fidelity(source(images).logits, output)
    assert output.dtype is dtype
    assert low_db <= fidelity.sqnr_db <= high_db
    assert type(converted.module.classifier) is nn.Linear
    assert converted.module.classifier.weight.dtype is dtype


@pytest.mark.parametrize("name", NAMES)
def test_the_source_is_not_touched(name):
    source = vit().train()
    source.vit.embeddings.cls_token.requires_grad_(requires_grad=False)
    before = {key: value.clone() for key, value in source.state_dict().items()}
    gradients = {key: parameter.requires_grad for key, parameter in source.named_parameters()}
    converted = to(source, name, ["classifier"])
    with torch.inference_mode():
        converted.module(torch.randn(2, 3, 32, 32).to(converted.dtype))
    for tensor in stored_tensors(converted.module).values():
        tensor.zero_()
    after = source.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and after[key].dtype == before[key].dtype for key in before)
    assert gradients == {key: parameter.requires_grad for key, parameter in source.named_parameters()}
    assert source.training


@pytest.mark.parametrize("name", NAMES)
def test_converting_leaves_the_random_generator_alone(name):
    source = vit()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    to(source, name, ["classifier"])
    assert torch.equal(torch.rand(1), expected)


def test_mobilevit_int4_leaves_what_the_cpu_kernels_get_wrong_and_says_why():
    torch.manual_seed(0)
    coverage = to(small_mobilevit(), "int4", ["classifier"]).coverage
    assert 0 < coverage.quantized < coverage.eligible == coverage.quantized + len(coverage.left)
    reasons = {why.partition(" ")[0] for why in coverage.left.values()}
    assert reasons == {"out_features", "in_features"}
    assert all("multiple of" in why for why in coverage.left.values())


@pytest.mark.parametrize("name", QUANTIZING)
def test_heads_and_all_below_them_stay_unquantized(name):
    source = small(nn.Linear(64, 64), nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32)), nn.Linear(32, 32))
    module = to(source, name, ["1"]).module
    assert set(quantized_layers(module)) - {"2"} == {"0"}  # the last is too narrow for NF4
    assert {layer.weight.dtype for layer in module[1]} == {torch.bfloat16}
    two = small(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    assert to(two, name, ["1", "2"]).coverage.eligible == 1


def test_a_head_is_matched_by_whole_names():
    source = nn.ModuleDict({"head": nn.Linear(64, 64), "header": nn.Linear(64, 64)})
    assert type(to(source, "int8", ["head"]).module["header"]) is not nn.Linear


def test_a_head_that_does_not_exist_is_an_error_that_names_the_nearest():
    source = nn.ModuleDict({"body": nn.Linear(64, 64), "top": nn.ModuleDict({"head": nn.Linear(64, 64)})})
    with pytest.raises(PrecisionError, match=r"no module 'head'.*did you mean top\.head"):
        to(source, "int8", ["head"])


def test_a_mistyped_head_is_an_error_that_names_the_nearest():
    source = nn.ModuleDict({"body": nn.Linear(64, 64), "classifier": nn.Linear(64, 64)})
    with pytest.raises(PrecisionError, match=r"no module 'clasifier'.*did you mean classifier\?"):
        to(source, "int8", ["clasifier"])


def test_the_output_projection_of_multi_head_attention_is_not_swapped():
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    source = nn.ModuleDict({"attention": attention, "fc": nn.Linear(64, 64)})
    converted = to(source, "int8")
    assert converted.coverage.eligible == 1
    assert converted.module["attention"].out_proj.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("name", QUANTIZING)
def test_torchs_fused_encoder_layer_still_computes_the_right_thing(name):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    source = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    inputs = torch.randn(2, 5, 64)
    converted = to(source, name)
    with torch.inference_mode():
        fidelity = measure_fidelity(source(inputs), converted.module(inputs.to(converted.dtype)))
    assert converted.coverage.quantized == 4
    assert fidelity.sqnr_db > 20


class Shared(nn.Module):
    """One module under two names, one weight in two modules, and one weight used by an embedding too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.again = self.first
        self.twin = nn.Linear(64, 64)
        self.twin.weight = self.first.weight
        self.embedding = nn.Embedding(64, 64)
        self.tied = nn.Linear(64, 64, bias=False)
        self.tied.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.twin(torch.relu(self.again(torch.relu(self.first(x))))))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shared_stays_shared(name):
    torch.manual_seed(0)
    source = Shared().eval()
    inputs = torch.randn(9, 64)
    converted = to(source, name)
    module = converted.module
    assert module.first is module.again
    assert module.twin is not module.first
    twin, first = (dict(plain_tensors("weight", layer.weight)) for layer in (module.twin, module.first))
    assert {name: part.data_ptr() for name, part in twin.items()} == {n: p.data_ptr() for n, p in first.items()}
    assert all(part.data_ptr() for part in first.values())
    assert module.tied.weight is module.embedding.weight
    assert converted.coverage.eligible == 3
    if name in QUANTIZING:
        assert converted.coverage.quantized == 2
        assert converted.coverage.left == {"tied": "its weight is shared with a module that is not quantized"}
    with torch.inference_mode():
        for _ in range(2):  # the first call rearranges what bitsandbytes holds
            assert measure_fidelity(source(inputs), module(inputs.to(converted.dtype))).sqnr_db > 12


def test_a_weight_shared_with_the_head_is_left():
    source = nn.ModuleDict({"body": nn.Linear(64, 64), "other": nn.Linear(64, 64), "head": nn.Linear(64, 64)})
    source["head"].weight = source["body"].weight
    assert set(to(source, "int8", ["head"]).coverage.left) == {"body"}


@pytest.mark.parametrize("name", QUANTIZING)
def test_a_model_without_a_layer_to_quantize_is_an_error(name):
    with pytest.raises(PrecisionError, match="no linear layer to quantize outside the head"):
        to(small(nn.Conv2d(3, 8, 3)), name)
    with pytest.raises(PrecisionError, match="no linear layer"):
        to(small(nn.Linear(64, 64)), name, ["0"])
    assert to(small(nn.Conv2d(3, 8, 3)), "fp16").coverage.eligible == 0


def test_a_layer_that_is_only_a_kind_of_linear_one_is_named_where_there_is_no_other():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    with pytest.raises(PrecisionError, match=r"exactly torch\.nn\.Linear is meant: 1 is a ParametrizedLinear, which"):
        to(small(nn.ReLU(), normed), "int8")


def test_a_model_none_of_whose_layers_can_be_quantized_is_an_error():
    with pytest.raises(PrecisionError, match=r"none of 1 linear layers was quantized \(0: in_features 60"):
        to(small(nn.Linear(60, 64)), "int4")


@pytest.mark.parametrize(("first", "kind"), [("int8", "torch.int8"), ("int8wo", "Int8Tensor")])
def test_an_int8_model_cannot_be_made_int4(first, kind):
    # The conversion changes nothing there, and INT8 would be measured again under the name of INT4.
    int8 = to(vit(), first, ["classifier"]).module
    for name in NAMES:
        with pytest.raises(PrecisionError, match=rf"already quantized \(.*weight is {kind}\)"):
            to(int8, name, ["classifier"])


def test_a_half_precision_source_is_refused():
    with pytest.raises(PrecisionError, match=r"must be FP32, but 0\.weight is torch\.float16.*fresh config"):
        to(small(nn.Linear(64, 64)).half(), "fp32")


def test_a_source_off_the_cpu_is_refused():
    with pytest.raises(PrecisionError, match="must be on the CPU"):
        to(small(nn.Linear(64, 64, device="meta")), "fp32")


def test_a_model_that_cannot_be_copied_is_a_clear_error():
    source = small(nn.Linear(64, 64))
    source.generator = (item for item in ())
    with pytest.raises(PrecisionError, match="cannot be copied"):
        to(source, "fp16")


def test_weights_beyond_fp16_are_an_error():
    # LLM.int8's, that is; in BF16 they fit.
    source = small(nn.Linear(64, 64))
    source[0].weight.data[0, 0] = 1e6
    with pytest.raises(PrecisionError, match="not finite"):
        to(source, "int8")


@pytest.mark.parametrize("name", QUANTIZING)
def test_a_bias_is_carried_over(name):
    source = small(nn.Linear(64, 64))
    source[0].weight.data.zero_()
    source[0].bias.data.copy_(torch.arange(64.0))
    converted = to(source, name)
    with torch.inference_mode():
        output = converted.module(torch.ones(2, 64, dtype=converted.dtype)).float()
    assert torch.equal(output, torch.arange(64.0).expand(2, 64))


def test_size_and_fingerprint_are_those_before_the_first_forward():
    converted = to(vit(), "int4", ["classifier"])
    size, digest = converted.model_size_bytes, converted.fingerprint
    assert size == file_bytes(stored_tensors(converted.module))
    again = to(vit(), "int4", ["classifier"])
    with torch.inference_mode():
        again.module(torch.randn(1, 3, 32, 32, dtype=again.dtype))
    assert (again.model_size_bytes, again.fingerprint) == (size, digest)


def test_fingerprints_tell_schemes_and_weights_apart():
    digests = {name: converted_vit(name).fingerprint for name in NAMES}
    assert len(set(digests.values())) == len(NAMES) - 1
    assert digests["tf32"] == digests["fp32"]
    assert {name: to(vit(), name, ["classifier"]).fingerprint for name in NAMES} == digests
    other = vit()
    other.classifier.weight.data[-1, -1] += 1
    assert to(other, "fp32").fingerprint != digests["fp32"]


@pytest.mark.parametrize("name", QUANTIZING)
def test_what_is_not_quantized_has_the_type_that_the_device_computes_best(name):
    converted = to(vit(), name, ["classifier"], rest=torch.float16)
    assert converted.method.endswith(", fp16 rest")
    assert converted.dtype is torch.float16
    assert converted.module.classifier.weight.dtype is torch.float16
    with torch.inference_mode():
        assert converted.module(torch.randn(2, 3, 32, 32).half()).logits.dtype is torch.float16


@pytest.mark.parametrize("name", ["fp32", "tf32", "fp16", "bf16"])
def test_a_precision_that_quantizes_nothing_leaves_no_rest(name):
    methods = {to(vit(), name, rest=rest).method for rest in (torch.bfloat16, torch.float16)}
    assert methods == {converted_vit(name).method}
    assert "rest" not in methods.pop()


def test_the_same_bytes_under_two_names_are_an_error():
    guard = SameBytesGuard()
    guard.check("model", find_precision("int8"), "abc")
    guard.check("model", find_precision("int8"), "abc")
    guard.check("another", find_precision("int4"), "abc")
    guard.check("model", find_precision("int8wo"), "def")
    with pytest.raises(PrecisionError, match="model: int4 stores the same bytes as int8"):
        guard.check("model", find_precision("int4"), "abc")


def test_the_same_bytes_are_no_error_where_nothing_is_quantized():
    guard = SameBytesGuard()
    fingerprint = converted_vit("fp32").fingerprint
    guard.check("model", find_precision("fp32"), fingerprint)
    guard.check("model", find_precision("tf32"), fingerprint)
    guard.check("model", find_precision("int8"), fingerprint)
    with pytest.raises(PrecisionError, match="model: int8wo stores the same bytes as int8"):
        guard.check("model", find_precision("int8wo"), fingerprint)


def test_a_recipe_may_say_what_another_precision_does():
    guard = SameBytesGuard()
    guard.check("model", find_precision("int8"), "abc")
    guard.check("model", precision_of(Recipe("model", "fp32", {"a": "int8"}), "recipe-mine"), "abc")


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_model_can_be_copied(name):
    converted = to(vit(), name, ["classifier"])
    again = copy.deepcopy(converted.module)
    images = torch.randn(2, 3, 32, 32).to(converted.dtype)
    with torch.inference_mode():
        assert torch.equal(again(images).logits, converted.module(images).logits)


@pytest.mark.parametrize("name", NAMES)
def test_converting_in_inference_mode_gives_the_same(name):
    with torch.inference_mode():
        converted = to(vit(), name, ["classifier"])
        images = torch.randn(2, 3, 32, 32).to(converted.dtype)
        assert torch.isfinite(converted.module(images).logits).all()
    assert converted.fingerprint == to(vit(), name, ["classifier"]).fingerprint


@pytest.mark.parametrize("name", QUANTIZING)
def test_forwards_log_nothing(name, caplog):
    converted = converted_vit(name)
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        converted.module(torch.randn(1, 3, 32, 32, dtype=converted.dtype))
    assert caplog.records == []


def test_a_copy_of_the_tensors_is_made_once():
    source = small(nn.Linear(64, 64))
    shared = copy.copy(source[0])
    module = to(nn.ModuleDict({"a": source, "b": shared}), "fp32").module
    assert module["a"][0].weight is module["b"].weight
