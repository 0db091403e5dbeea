"""BEiT's relative positions: transformers' bits, without a table that each forward copies from the CPU."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

from pytest_vq.catalog import build as building
from pytest_vq.catalog import models as registry
from pytest_vq.catalog.beit import BufferedRelativePositionBias, buffer_relative_positions
from pytest_vq.catalog.build import build_meta, build_source, example_inputs, output_tensor
from pytest_vq.catalog.models import find_model
from pytest_vq.precision.convert import convert
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.size import file_bytes, stored_tensors
from pytest_vq.schema.spec import ModelSpec

NAMES = ("beit-base-patch16-224-pt22k-ft22k", "beit-large-patch16-224")
CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real architectures, images and windows, but two layers of 64 channels."""
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    for name in NAMES:
        config = json.loads((registry.DATA / f"{name}.json").read_text())
        (tmp_path / f"{name}.json").write_text(json.dumps(config | small))
    monkeypatch.setattr(building, "DATA", tmp_path)


@pytest.fixture(params=NAMES)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return find_model(request.param)


@pytest.fixture
def model(spec: ModelSpec) -> nn.Module:
    source = build_source(spec)
    draw_biases(source)
    return source


def draw_biases(model: nn.Module) -> None:
    """Give each pair of positions a bias of its own: a wrong index then changes the output."""
    generator = torch.Generator().manual_seed(0)
    for layer in biases(model):
        layer.relative_position_bias_table.data.normal_(generator=generator)


def biases(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BeitRelativePositionBias)]


def as_transformers_has_it(model: nn.Module) -> nn.Module:
    for layer in biases(model):
        layer.__class__ = BeitRelativePositionBias
        del layer.relative_position_index
    return model


@torch.inference_mode()
def forward(model: nn.Module, images: Tensor) -> Tensor:
    return output_tensor(model(images))


class OnCpu(TorchDispatchMode):
    """Notes the operators that read or make a tensor on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if any(tensor.device == CPU for tensor in tensors):
            self.operators.add(str(func))
        return result


def test_the_output_is_transformers_bit_for_bit(spec: ModelSpec, model: nn.Module) -> None:
    images = example_inputs(spec, 2)
    ours = forward(model, images)
    assert torch.equal(ours, forward(as_transformers_has_it(model), images))
    for layer in biases(model):
        layer.relative_position_bias_table.data.zero_()
    assert not torch.equal(ours, forward(model, images))  # the biases reach the output at all


def test_a_forward_on_a_device_touches_nothing_on_the_cpu(spec: ModelSpec, model: nn.Module) -> None:
    images = example_inputs(spec, 1).to(META)
    model.to(META)
    with OnCpu() as ours:
        forward(model, images)
    assert ours.operators == set()
    with OnCpu() as theirs:
        forward(as_transformers_has_it(model), images)
    assert "aten.index.Tensor" in theirs.operators  # what is seen is what would be copied


def test_it_is_not_stored(spec: ModelSpec, model: nn.Module) -> None:
    ours = stored_tensors(model)
    theirs = stored_tensors(as_transformers_has_it(model))
    assert list(ours) == list(theirs)
    assert file_bytes(ours) == file_bytes(theirs)
    assert list(ours) == list(build_meta(spec).state_dict())  # what a checkpoint is compared with


def test_every_layer_has_it_and_they_share_one(model: nn.Module) -> None:
    assert [type(layer) for layer in biases(model)] == [BufferedRelativePositionBias] * 2
    assert len({layer.relative_position_index.data_ptr() for layer in biases(model)}) == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_precisions_copy_has_it_too(spec: ModelSpec, model: nn.Module, precision: str) -> None:
    converted = convert(model, find_precision(precision), device=CPU, rest=torch.float32, heads=spec.heads)
    copies = biases(converted.module)
    assert [type(layer) for layer in copies] == [BufferedRelativePositionBias] * 2
    (index,) = {layer.relative_position_index.data_ptr(): layer.relative_position_index for layer in copies}.values()
    assert torch.equal(index, biases(model)[0].relative_position_index)
    assert index.data_ptr() != biases(model)[0].relative_position_index.data_ptr()
    images = example_inputs(spec, 1).to(converted.dtype)
    ours = forward(converted.module, images)
    assert torch.equal(ours, forward(as_transformers_has_it(converted.module), images))


def test_another_window_than_the_models_own_is_made_as_before(model: nn.Module) -> None:
    layer, windows = biases(model)[0], [(14, 14), (7, 7), (9, 12)]
    ours = [layer(window) for window in windows]
    as_transformers_has_it(model)
    theirs = [layer(window) for window in windows]
    assert all(map(torch.equal, ours, theirs))
    assert [bias.shape[-1] for bias in ours] == [197, 50, 109]


@pytest.fixture
def pretrained(spec: ModelSpec, model: nn.Module, tmp_path: Path) -> nn.Module:
    model.save_pretrained(tmp_path / "checkpoint")
    return build_source(dataclasses.replace(spec, checkpoint=str(tmp_path / "checkpoint"), revision=None), "pretrained")


def test_trained_weights_get_it_too(spec: ModelSpec, model: nn.Module, pretrained: nn.Module) -> None:
    assert [type(layer) for layer in biases(pretrained)] == [BufferedRelativePositionBias] * 2
    images = example_inputs(spec, 1)
    assert torch.equal(forward(pretrained, images), forward(model, images))


def test_a_model_without_relative_positions_is_left_as_it_is() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    before = {name: type(module) for name, module in net.named_modules()}
    buffer_relative_positions(net)
    assert {name: type(module) for name, module in net.named_modules()} == before
    assert list(net.buffers()) == []
