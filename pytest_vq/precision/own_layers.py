"""A layer of the user's own: built by a user's function, and found to be quantized or not by what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError, VqError, first_line
from pytest_vq.precision.bits import bits_fault
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.tensors import is_quantized, plain_tensors
from pytest_vq.registering import qualname
from pytest_vq.schema.spec import PrecisionSpec

_FEATURES = ("in_features", "out_features")


def build_own_layer(linear: nn.Linear, spec: PrecisionSpec, copier: Copier) -> nn.Module | str:
    """What the user's function of ``spec`` replaces ``linear`` by; a text where it stays: why.

    Raises:
        PrecisionError: the function raised, returned something else, or changed ``linear``.
    """
    assert callable(spec.layer)
    whose = f"{spec.name}: its function {qualname(spec.layer)}, given a layer of {_shape(linear)},"
    before = _state(linear)
    try:
        built: object = spec.layer(linear, copier)
    except (VqError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        raise PrecisionError(f"{whose} raised {type(error).__name__}: {first_line(error)}") from error
    if _state(linear) != before:
        raise PrecisionError(
            f"{whose} changed that layer, which is the FP32 model's own: all precisions are made from it, and compared "
            "with it. Build a new layer from a copy of its weight"
        )
    if isinstance(built, str):
        return built or f"{qualname(spec.layer)} does not say why"
    if not isinstance(built, nn.Module):
        raise PrecisionError(
            f"{whose} returned a {type(built).__name__}; it must return the torch.nn.Module that replaces the layer, "
            "or a text that says why the layer stays"
        )
    for name in _FEATURES:  # what its weights are counted by
        features = getattr(linear, name)
        if getattr(built, name, features) != features:
            raise PrecisionError(f"{whose} returned one whose {name} is {getattr(built, name)}")
        if not hasattr(built, name):
            setattr(built, name, features)
    return built.eval()


def own_layer_fault(layer: Any, max_bits: float | None) -> str:
    """What keeps ``layer`` from being quantized to ``max_bits`` a weight; empty if nothing does.

    Of a layer that nothing else is known of, this much can be said: it holds no tensor of wider type that could be its
    weight, what it holds in integers or 8-bit floats is at least a bit for each weight, and all of it together is no
    more than it promises.
    """
    weights = layer.in_features * layer.out_features
    held = dict(_held(layer, set()))
    for name, tensor in held.items():
        if tensor.numel() >= weights and tensor.itemsize > 1 and name.split(".")[0] != "bias":
            return f"it holds {name}, {tensor.dtype} {list(tensor.shape)}: weights that are not quantized"
    codes_bytes = sum(tensor.nbytes for tensor in held.values() if is_quantized(tensor))
    if 8 * codes_bytes < weights:
        return (
            f"it holds {8 * codes_bytes / weights:.1f} bits a weight in integers and 8-bit floats, which is not "
            "quantized weights: keep them in parameters or buffers (what a library keeps where nobody can look is for "
            "opaque=True)"
        )
    # Views of one tensor are held once.
    distinct = {(tensor.device, tensor.data_ptr(), tensor.nbytes): (name, tensor) for name, tensor in held.items()}
    return bits_fault(layer, max_bits, dict(distinct.values()))


def _state(linear: nn.Linear) -> tuple[object, ...]:
    """What would be different in a layer that was changed."""
    tensors = [tensor for tensor in (linear.weight, linear.bias) if tensor is not None]
    # As text, because NaN is unlike itself.
    return tuple((id(t), t.device, t.dtype, tuple(t.shape), str(float(t.detach().double().sum()))) for t in tensors)


def _shape(linear: nn.Linear) -> str:
    return f"{linear.in_features} -> {linear.out_features}"


def _held(layer: nn.Module, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors in ``layer``: parameters, buffers, and those that are attributes or in lists of them."""
    for prefix, module in layer.named_modules():
        if id(module) in seen:
            continue
        seen.add(id(module))
        own = {**module._parameters, **module._buffers}
        attributes = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        for name, value in [*_within(own, "", seen), *_within(attributes, "", seen)]:
            for part, tensor in plain_tensors(name, value):
                yield ".".join(filter(None, (prefix, part))), tensor


def _within(value: object, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The tensors in ``value``, a tensor, a module that is no submodule, or what holds some."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        yield from ((f"{name}.{inner}", tensor) for inner, tensor in _held(value, seen))
    elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
        seen.add(id(value))
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _within(inner, f"{name}.{key}" if name else str(key), seen)
