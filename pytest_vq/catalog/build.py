"""From a ModelSpec to the FP32 model on the CPU that every precision starts from, and to its inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.catalog.initialize import can_start_on_meta, fill_mobilevit, fill_transformer, generator_for, seed_of
from pytest_vq.catalog.inputs import ModelInputs, checked_inputs, checked_labelled
from pytest_vq.catalog.models import DATA, DIGITS, table
from pytest_vq.catalog.output import output_tensor
from pytest_vq.errors import BuildError, RegistrationError, SelectionError, first_line
from pytest_vq.registering import qualname
from pytest_vq.schema.spec import ModelSpec

__all__ = ["build_meta", "build_source", "example_inputs", "labelled_images", "output_tensor", "weights_kind"]

WEIGHTS = ("random", "pretrained")
STATISTICS_IMAGES = 2  # of 256 x 256 pixels: every batch norm sees at least 128 values a channel


def build_source(spec: ModelSpec, weights: str = "random") -> nn.Module:
    """The FP32 model on the CPU that every precision of ``spec`` starts from: in eval mode, without gradients.

    Args:
        spec: the model.
        weights: for the study's models ``random`` (the same bits at every call, in every process) or ``pretrained``
            (the hub or its cache). ``vit-digits`` always has its shipped weights, a user's model its own.

    Raises:
        BuildError: the checkpoint cannot be had or does not fit, or the user's function did not give an FP32 module
            on the CPU.
        SelectionError: ``weights`` is neither of the two.
    """
    _check_weights(weights)
    if spec.is_local:
        model = _build_local(spec)
    elif spec.name == DIGITS:
        model = _build_digits(spec)
    elif weights == "pretrained":
        model = _build_pretrained(spec)
    else:
        model = _build_random(spec)
    if spec.architecture.startswith("Beit") and not spec.is_local:
        from pytest_vq.catalog.beit import buffer_relative_positions

        buffer_relative_positions(model)
    return model.eval().requires_grad_(False)


def build_meta(spec: ModelSpec) -> nn.Module:
    """The catalog's model ``spec`` on the meta device: its layers and shapes, without memory for weights.

    Raises BuildError for a user's model: only its function knows what it is.
    """
    if spec.is_local:
        raise BuildError(f"{spec.name} is a registered model, and cannot be had without its weights: use build_source")
    with torch.device("meta"):
        return _instantiate(spec).float().eval()


def weights_kind(spec: ModelSpec, requested: str) -> str:
    """What the weights of ``build_source(spec, requested)`` are: random, pretrained, trained (shipped) or local."""
    _check_weights(requested)
    if spec.is_local:
        return "local"
    return "trained" if spec.name == DIGITS else requested


def example_inputs(spec: ModelSpec, batch: int) -> ModelInputs:
    """What a request of ``batch`` images is made of, FP32 on the CPU; the same at every call.

    Standard-normal images ``[batch, channels, height, width]``, or what a user's function makes.

    Raises:
        RegistrationError: that function raised, or made no inputs of that batch.
    """
    if batch < 1:
        raise SelectionError(f"batch {batch} is impossible: a request has at least 1 image")
    generator = generator_for(f"{spec.name}: inputs")
    if spec.inputs is not None:
        made = own_answer(spec, "inputs", partial(spec.inputs, batch, generator))
        return checked_inputs(made, f"{spec.name}: its function {qualname(spec.inputs)}", batch)
    assert spec.input_shape is not None
    return torch.randn(batch, *spec.input_shape, generator=generator, dtype=torch.float32)


def labelled_images(spec: ModelSpec) -> tuple[ModelInputs, Tensor] | None:
    """Held-out images (FP32 ``[n, channels, height, width]``) and labels (INT64 ``[n]``); None where there are none.

    Raises:
        RegistrationError: a user's function raised, or returned something else.
    """
    if spec.labelled is not None:
        made = own_answer(spec, "labelled", spec.labelled)
        return checked_labelled(made, f"{spec.name}: its function {qualname(spec.labelled)}")
    if spec.name != DIGITS or spec.is_local:
        return None
    from safetensors.torch import load_file

    held_out = load_file(DATA / "digits-heldout.safetensors")
    return scale_digits(held_out["images"]), held_out["labels"].long()


def scale_digits(images: Tensor) -> Tensor:
    """Digits as stored (integers 0 to 16) as ``vit-digits`` takes them: FP32, about -1 to 1."""
    return images.float() / 8.0 - 1.0


def _check_weights(weights: str) -> None:
    if weights not in WEIGHTS:
        raise SelectionError(f"weights {weights!r} do not exist: choose {' or '.join(WEIGHTS)}")


def _kind(spec: ModelSpec) -> Any:
    import transformers

    return getattr(transformers, spec.architecture)


def _config(spec: ModelSpec) -> Any:
    """A fresh config each time: transformers writes what it decides (its dtype) into the one it is given."""
    text = (DATA / f"{spec.name}.json").read_text(encoding="utf-8")
    return _kind(spec).config_class.from_dict(json.loads(text))


def _arguments(spec: ModelSpec) -> dict[str, Any]:
    """What the class is called with besides its config: DINO's checkpoints hold no pooler, so none is made."""
    return dict(table()[spec.name]["arguments"])


def _instantiate(spec: ModelSpec) -> nn.Module:
    model: nn.Module = _kind(spec)(_config(spec), **_arguments(spec))
    return model


def _build_random(spec: ModelSpec) -> nn.Module:
    model = build_meta(spec)
    if can_start_on_meta(model):
        model = model.to_empty(device="cpu")
    else:
        # Slower: every weight is drawn twice, and the library's own draw must not move the caller's generator.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = _instantiate(spec).float()
    config: Any = model.config
    if config.model_type == "mobilevit":
        generator = generator_for(spec.name)
        assert spec.input_shape is not None
        images = torch.randn(STATISTICS_IMAGES, *spec.input_shape, generator=generator)
        fill_mobilevit(model, generator, images)
    else:
        scale = getattr(config, "layer_scale_init_value", getattr(config, "layerscale_value", 1.0))
        fill_transformer(model, spec.name, float(scale))
    return model


def _build_pretrained(spec: ModelSpec) -> nn.Module:
    from pytest_vq.catalog.pretrained import load_checkpoint

    shapes = {name: tensor.shape for name, tensor in build_meta(spec).state_dict().items()}
    return load_checkpoint(spec, _kind(spec), _arguments(spec), shapes)


def _build_digits(spec: ModelSpec) -> nn.Module:
    from pytest_vq.catalog.pretrained import load_shipped

    return load_shipped(spec.name, DATA / f"{spec.name}.safetensors", _kind(spec), _config(spec))


def own_answer(spec: ModelSpec, keyword: str, function: Callable[[], Any]) -> Any:
    """What a user's ``function`` returns that was given as ``keyword``, the global generator seeded meanwhile.

    Raises:
        RegistrationError: it raised.
    """
    try:
        return _seeded(spec, function)
    except Exception as error:
        what = f"{spec.name}: its function for {keyword}= raised {type(error).__name__}: {first_line(error)}"
        raise RegistrationError(what) from error


def _seeded(spec: ModelSpec, function: Callable[[], Any]) -> Any:
    """So that a function that draws its weights, or inputs, gives FP32 and the other precisions the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(spec.name))
        return function()


def _build_local(spec: ModelSpec) -> nn.Module:
    assert spec.build is not None
    try:
        model: object = _seeded(spec, spec.build)
    except Exception as error:
        raise BuildError(f"{_whose(spec)} raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise BuildError(
            f"{_whose(spec)} returned a {type(model).__name__}; "
            "it must return a torch.nn.Module with its weights, FP32, on the CPU"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        _check_tensor(spec, name, tensor)
    return model


def _whose(spec: ModelSpec) -> str:
    return f"{spec.name}: its function {spec.architecture}"


def _check_tensor(spec: ModelSpec, name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise BuildError(f"{_whose(spec)} left {name} without a shape; run one forward pass before returning the model")
    if tensor.device.type != "cpu":
        raise BuildError(f"{_whose(spec)} put {name} on {tensor.device}; return the model on the CPU")
    if (isinstance(tensor, nn.Parameter) or tensor.is_floating_point()) and tensor.dtype != torch.float32:
        raise BuildError(
            f"{_whose(spec)} made {name} {tensor.dtype}; return a model in FP32 (model.float()), a new one at each "
            "call: every precision starts from it"
        )
