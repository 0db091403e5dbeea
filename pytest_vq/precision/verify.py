"""Does a converted model hold what its precision's name says? Looked up in the model, not in what built it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.bits import bits_fault, quantized_layers
from pytest_vq.precision.converted import Converted, LayerCheck
from pytest_vq.precision.mixed import CastingLayer
from pytest_vq.precision.own_layers import own_layer_fault
from pytest_vq.precision.tensors import is_quantized, is_wrapper, plain_tensors
from pytest_vq.schema.spec import Mix, PrecisionSpec


def check_source(source: nn.Module) -> None:
    """Refuse a model to convert that is not FP32 on the CPU.

    Raises:
        PrecisionError: a tensor of another type or elsewhere, or a model that is quantized already.
    """
    for name, parameter in source.named_parameters():
        # Integer buffers are ordinary (indices, counters); an integer parameter is a quantized weight.
        if is_quantized(parameter):
            raise PrecisionError(
                f"the model to convert is already quantized ({name} is {_kind(parameter)}): a second scheme changes "
                "nothing and is measured under a wrong name. Convert each precision from the FP32 model"
            )
    for name, tensor in _tensors(source):
        if tensor.device.type != "cpu":
            raise PrecisionError(f"the model to convert must be on the CPU, but {name} is on {tensor.device}")
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            raise PrecisionError(
                f"the model to convert must be FP32, but {name} is {tensor.dtype}: build it from a fresh config "
                "(transformers keeps the type of the last model in a config that is used again)"
            )


def verify(converted: Converted, spec: PrecisionSpec) -> None:
    """Check a converted model against its precision's name, layer by layer.

    Take it before the first forward (see ``bits.bits_fault``). A precision without a check of its own is checked for
    what holds of every one: it quantized as many layers as it says, none of them stores more bits than it promises, and
    the rest has one type and is on one device. A user's layers are looked into further (see ``own_layers``).

    Raises:
        PrecisionError: naming the layer and what was found in it.
    """
    _check_places(converted.module, spec)
    if spec.mix is not None:
        _check_mixed(converted, spec, spec.mix)
        return
    quantized = quantized_layers(converted.module, converted.own_layers)
    if spec.layer is None:
        _check_floating(converted, spec, quantized)
        return
    _check_coverage(converted, spec)
    for name, module in quantized.items():
        found = _quantized_fault(module, spec, is_own=name in converted.own_layers)
        if found:
            raise PrecisionError(f"{spec.name}: the layer {name} is not what it should be: {found}")
    if len(quantized) != converted.coverage.quantized:
        raise PrecisionError(
            f"{spec.name}: {converted.coverage.quantized} layers were replaced, but the model holds {len(quantized)} "
            "quantized ones"
        )
    _check_rest(converted, spec, quantized.values())
    _check_biases(converted, spec, quantized)


def _kind(tensor: Tensor) -> str:
    return type(tensor).__name__ if is_wrapper(tensor) else str(tensor.dtype)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _check_places(module: nn.Module, spec: PrecisionSpec) -> None:
    plain = (part for name, tensor in _tensors(module) for part in plain_tensors(name, tensor))
    places = {tensor.device: name for name, tensor in plain}
    if len(places) > 1 or torch.device("meta") in places:
        where = ", ".join(f"{name} on {device}" for device, name in places.items())
        raise PrecisionError(f"{spec.name}: not every tensor is on one real device: {where}")


def _check_floating(converted: Converted, spec: PrecisionSpec, quantized: Mapping[str, nn.Module]) -> None:
    expected = getattr(torch, str(spec.dtype))
    if quantized or converted.coverage.quantized:
        raise PrecisionError(f"{spec.name} quantizes nothing, but {next(iter(quantized), 'a layer')} is quantized")
    if converted.dtype is not expected:
        raise PrecisionError(f"{spec.name} must be fed {expected}, not {converted.dtype}")
    _check_rest(converted, spec, ())


def _check_coverage(converted: Converted, spec: PrecisionSpec) -> None:
    coverage = converted.coverage
    if not coverage.eligible:
        raise PrecisionError(
            f"{spec.name}: no linear layer to quantize outside the head{_kinds_of_linear(converted.module)}, so this "
            "would be half precision under another name. Leave this precision out for this model"
        )
    if not coverage.quantized:
        name, why = next(iter(coverage.left.items()), ("a layer", "no reason given"))
        raise PrecisionError(
            f"{spec.name}: none of {coverage.eligible} linear layers was quantized ({name}: {why}). Leave this "
            "precision out for this model"
        )
    if coverage.quantized + len(coverage.left) != coverage.eligible:
        raise PrecisionError(
            f"{spec.name}: {coverage.quantized} layers quantized and {len(coverage.left)} left with a reason do not "
            f"make {coverage.eligible}"
        )


def _check_mixed(converted: Converted, spec: PrecisionSpec, mix: Mix) -> None:
    """Check each layer against its precision in ``mix``, and all else against the rest's."""
    layers: list[nn.Module] = []
    expected, users = set(), set()
    for name, own in mix.layers.items():
        module = converted.module.get_submodule(name)
        is_cast = isinstance(module, CastingLayer)
        layer: nn.Module = module.layer if isinstance(module, CastingLayer) else module
        found = _chosen_fault(layer, own)
        if found:
            raise PrecisionError(f"{spec.name}: the layer {name} is not {own.name}: {found}")
        layers.append(layer)
        if own.layer is not None:
            held_as = f"{name}.layer" if is_cast else name
            expected.add(held_as)
            users |= {held_as} if own.is_local else set()
    quantized = set(quantized_layers(converted.module, users))
    if quantized != expected:
        one = min(quantized ^ expected)
        raise PrecisionError(f"{spec.name}: {one} is {'' if one in quantized else 'not '}quantized, unlike chosen")
    _check_rest(converted, spec, layers)


def _chosen_fault(layer: nn.Module, own: PrecisionSpec) -> str:
    """What keeps ``layer`` from being of the precision ``own``; empty if nothing does."""
    if own.layer is not None:
        return _quantized_fault(layer, own, is_own=own.is_local)
    wrong = [f"{name} is {t.dtype}" for name, t in _tensors(layer) if str(t.dtype) != f"torch.{own.dtype}"]
    return wrong[0] if wrong else "" if type(layer) is nn.Linear else f"it is a {type(layer).__name__}"


def _quantized_fault(layer: nn.Module, spec: PrecisionSpec, *, is_own: bool) -> str:
    """What keeps ``layer`` from storing what ``spec`` quantizes to; ``is_own``: a user's function built it."""
    if is_own:
        return own_layer_fault(layer, spec.max_bits)
    check: LayerCheck | None = resolve_name(spec.check) if spec.check else None
    return (check(layer) if check else "") or bits_fault(layer, spec.max_bits)


def _kinds_of_linear(module: nn.Module) -> str:
    """A hint at layers that look like ones to quantize, and are none; empty where there are no such."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and type(layer) is not nn.Linear:
            kind = type(layer).__name__
            return f" (exactly torch.nn.Linear is meant: {name} is a {kind}, which has its own way with its weight)"
    return ""


def _check_rest(converted: Converted, spec: PrecisionSpec, layers: Iterable[nn.Module]) -> None:
    """Check all that is not in ``layers``, which were looked into one by one."""
    inside = {id(tensor) for module in layers for _, tensor in _tensors(module)}
    for name, tensor in _tensors(converted.module):
        if id(tensor) in inside:
            continue
        # Integers that are no layer's are ordinary as buffers only; a wrapped tensor's type is not what it stores.
        if is_wrapper(tensor) or (isinstance(tensor, nn.Parameter) and is_quantized(tensor)):
            raise PrecisionError(f"{spec.name}: {name} is quantized ({_kind(tensor)}), and is no linear layer's weight")
        if tensor.is_floating_point() and tensor.dtype is not converted.dtype:
            raise PrecisionError(f"{spec.name}: {name} is {tensor.dtype}, but {converted.dtype} was promised")


def _check_biases(converted: Converted, spec: PrecisionSpec, quantized: Mapping[str, nn.Module]) -> None:
    for layer, module in quantized.items():
        bias = None if layer in converted.own_layers else getattr(module, "bias", None)
        # LLM.int8 adds its biases in FP16, whatever the rest is.
        if bias is not None and bias.dtype not in (torch.float16, converted.dtype):
            raise PrecisionError(f"{spec.name}: the bias of {layer} is {bias.dtype}, not {converted.dtype}")
