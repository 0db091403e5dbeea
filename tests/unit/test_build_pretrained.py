"""Trained weights from a checkpoint: loaded exactly, or refused by name; never random without a word."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from pytest_vq.catalog import pretrained
from pytest_vq.catalog.build import build_source
from pytest_vq.catalog.models import find_model
from pytest_vq.errors import BuildError

NAME = "mobilevit-xx-small"  # the smallest; the others differ in their class only


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with what a hub checkpoint holds, of other weights than the random ones; and the model saved there."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = build_source(find_model(NAME))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.125)
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture
def edited(checkpoint, tmp_path):
    """The checkpoint with ``edit(tensors, config)`` done to it; returns its spec."""

    def apply(edit):
        folder = tmp_path / "edited"
        shutil.copytree(checkpoint[0], folder)
        tensors = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        edit(tensors, config)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        return spec_of(folder)

    return apply


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def spec_of(path):
    return dataclasses.replace(find_model(NAME), checkpoint=str(path))


def test_the_checkpoints_weights_are_loaded(checkpoint):
    folder, saved = checkpoint
    loaded = build_source(spec_of(folder), "pretrained")
    state = loaded.state_dict()
    assert state.keys() == saved.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.state_dict().items())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_half_precision_weights_are_loaded_in_fp32(edited):
    def halve(tensors, config):
        config["dtype"] = "float16"
        for name, tensor in tensors.items():
            tensors[name] = tensor.half() if tensor.is_floating_point() else tensor

    loaded = build_source(edited(halve), "pretrained")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_headless_model_ignores_the_classifier_of_its_checkpoint(tmp_path, monkeypatch):
    """As BEiT's: the checkpoint has a classifier, the study measured the model without it."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    whole = ViTForImageClassification(config)
    whole.save_pretrained(tmp_path)
    spec = dataclasses.replace(find_model("dino-vits16"), checkpoint=str(tmp_path))
    loaded = build_source(spec, "pretrained")
    assert loaded.pooler is None
    assert torch.equal(loaded.embeddings.position_embeddings, whole.vit.embeddings.position_embeddings)


def test_missing_weights_are_an_error(edited):
    def drop(tensors, config):
        del tensors["classifier.bias"], tensors["mobilevit.conv_stem.convolution.weight"]

    with pytest.raises(BuildError, match=r"mobilevit-xx-small: checkpoint .* no usable weights for classifier\.bias"):
        build_source(edited(drop), "pretrained")


def test_weights_of_another_shape_are_an_error(edited):
    def shrink(tensors, config):
        tensors["classifier.bias"] = tensors["classifier.bias"][:10].clone()

    with pytest.raises(BuildError, match=r"mobilevit-xx-small: checkpoint"):
        build_source(edited(shrink), "pretrained")


def test_a_checkpoint_of_another_size_does_not_fit(edited):
    def narrow(tensors, config):
        tensors["classifier.bias"] = tensors["classifier.bias"][:10].clone()
        tensors["classifier.weight"] = tensors["classifier.weight"][:10].clone()
        config["id2label"] = {str(index): str(index) for index in range(10)}
        config["label2id"] = {str(index): index for index in range(10)}

    message = r"does not fit this package's config: 2 tensors differ \(classifier\.bias 10 for 1000; classifier"
    with pytest.raises(BuildError, match=message):
        build_source(edited(narrow), "pretrained")


def test_a_truncated_file_is_an_error(edited):
    spec = edited(lambda tensors, config: None)
    path = f"{spec.checkpoint}/model.safetensors"
    with open(path, "r+b") as file:  # noqa: PTH123
        file.truncate(1000)
    with pytest.raises(BuildError, match=r"mobilevit-xx-small: checkpoint .* could not be loaded"):
        build_source(spec, "pretrained")


def test_unreachable_is_asked_for_once_and_says_how_to_cache(empty_cache, monkeypatch):
    asked = []

    class Unreachable:
        def head(self, url: str, timeout: float) -> None:
            asked.append((url, timeout))
            raise ConnectionError("nobody answers")

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(pretrained.huggingface_hub, "get_session", Unreachable)
    with pytest.raises(BuildError) as caught:
        build_source(dataclasses.replace(find_model(NAME), revision="a" * 40), "pretrained")
    assert asked == [("https://hub.invalid", pretrained.CONNECT_TIMEOUT_S)]  # the hub's client would retry for long
    message = str(caught.value)
    assert message.startswith(f"{NAME}: checkpoint apple/{NAME} at {'a' * 40} could not be loaded: ConnectionError: ")
    assert f"hf download apple/{NAME} --revision {'a' * 40}" in message
    assert all(word in message for word in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE=1", "--vq-weights random"))
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_hub_that_nothing_listens_for_is_unreachable(empty_cache, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port
    with pytest.raises(BuildError, match=rf"^{NAME}: checkpoint apple/{NAME} could not be loaded: ") as caught:
        build_source(find_model(NAME), "pretrained")
    assert caught.value.__cause__ is not None


def test_offline_asks_no_one(empty_cache, monkeypatch):
    def ask():
        pytest.fail("the hub was asked although HF_HUB_OFFLINE=1")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(pretrained.huggingface_hub, "get_session", ask)
    with pytest.raises(BuildError, match=f"hf download apple/{NAME} "):
        build_source(find_model(NAME), "pretrained")


def test_a_cached_checkpoint_needs_no_hub(checkpoint, tmp_path, monkeypatch):
    """The cache as ``hf download`` leaves it."""
    repository = tmp_path / f"models--apple--{NAME}"
    shutil.copytree(checkpoint[0], repository / "snapshots" / ("b" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained.huggingface_hub, "get_session", lambda: pytest.fail("the hub was asked"))
    loaded = build_source(find_model(NAME), "pretrained")
    expected = checkpoint[1].state_dict()["classifier.weight"]
    assert torch.equal(loaded.state_dict()["classifier.weight"], expected)


def test_loading_leaves_the_librarys_logging_as_it_was(checkpoint):
    logging.set_verbosity_info()
    try:
        build_source(spec_of(checkpoint[0]), "pretrained")
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()
