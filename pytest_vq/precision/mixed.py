"""A model in which each layer has a precision of its own, as a recipe says, and whether it holds them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.bits import bits_fault, quantized_layers
from pytest_vq.precision.building import build_layer, disable_fused_encoder
from pytest_vq.precision.converted import Converted, LayerCheck, short_name
from pytest_vq.precision.layers import Copier, eligible_layers, tied_outside
from pytest_vq.precision.own_layers import own_layer_fault
from pytest_vq.precision.tensors import is_quantized, is_wrapper
from pytest_vq.schema.figures import Coverage
from pytest_vq.schema.spec import Mix, PrecisionSpec


class CastingLayer(nn.Module):
    """A layer of another type than what surrounds it: inputs are cast to its type, and outputs back."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = layer
        self.dtype = dtype

    @property
    def weight(self) -> Tensor:
        """The layer's own: some models look its type up."""
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """``x``: floating point [..., in_features]; the result has its type."""
        output: Tensor = self.layer(x.to(self.dtype))
        return output.to(x.dtype)


def mix_layers(source: nn.Module, spec: PrecisionSpec, mix: Mix, copier: Copier, heads: Sequence[str]) -> Converted:
    """The copy of ``source`` with each layer at its precision of ``mix``, and all else in the copier's type.

    Raises:
        PrecisionError: a layer that the model does not have, or that cannot have the precision named for it.
    """
    layers = eligible_layers(source, heads)
    check_names(spec.name, mix, layers)
    tied = tied_outside(source, layers)
    copiers: dict[str, Copier] = {}  # one each: what layers of one precision share they share in the copy too
    replacements: dict[nn.Module, nn.Module] = {}
    left: dict[str, str] = {}
    for name, layer in layers.items():
        own = mix.layers.get(name, mix.rest)
        dtype = _dtype_of(own, copier)
        if own.layer is None:
            left[name] = f"it is {own.name}, as chosen"
            if dtype is copier.dtype:
                continue
        elif name in tied:
            raise PrecisionError(f"{spec.name}: {name} cannot be {own.name}: another module uses its weight too")
        built = _build(layer, own, copiers.setdefault(own.name, Copier(copier.device, dtype)))
        if isinstance(built, str):
            raise PrecisionError(f"{spec.name}: {name} cannot be {own.name} here: {built}")
        replacements[layer] = built if dtype is copier.dtype else CastingLayer(built, dtype)
    module = copier.model(source, replacements)
    disable_fused_encoder(module)
    coverage = Coverage(eligible=len(layers), quantized=len(layers) - len(left), left=left)
    return Converted(module, _method(layers, mix, copier.dtype), copier.dtype, coverage)


def check_names(what: str, mix: Mix, layers: Mapping[str, nn.Linear]) -> None:
    """Refuse a ``mix`` that names what is no linear layer outside the head. Raises PrecisionError."""
    for name in mix.layers:
        if name not in layers:
            near = difflib.get_close_matches(name, layers, n=2, cutoff=0.8)
            hint = f"; the nearest are {' and '.join(near)}" if near else ""
            raise PrecisionError(
                f"{what}: the model has no linear layer {name!r} outside its head{hint}. A recipe fits the model, and "
                "the version of the library, that it was chosen for: choose anew"
            )


def check_mixed(converted: Converted, spec: PrecisionSpec, mix: Mix) -> None:
    """Check each layer of a converted model against its precision in ``mix``, and all else against the rest's.

    Raises:
        PrecisionError: naming the layer and what was found in it.
    """
    inside: set[int] = set()
    expected, users = set(), set()
    for name, own in mix.layers.items():
        module = converted.module.get_submodule(name)
        is_cast = isinstance(module, CastingLayer)
        layer: nn.Module = module.layer if isinstance(module, CastingLayer) else module
        found = _fault(layer, own)
        if found:
            raise PrecisionError(f"{spec.name}: the layer {name} is not {own.name}: {found}")
        inside |= {id(tensor) for _, tensor in _tensors(layer)}
        if own.layer is not None:
            held_as = f"{name}.layer" if is_cast else name
            expected.add(held_as)
            users |= {held_as} if own.is_local else set()
    quantized = set(quantized_layers(converted.module, users))
    if quantized != expected:
        one = min(quantized ^ expected)
        raise PrecisionError(f"{spec.name}: {one} is {'' if one in quantized else 'not '}quantized, unlike chosen")
    for name, tensor in _tensors(converted.module):
        if id(tensor) in inside:
            continue
        if is_wrapper(tensor) or (isinstance(tensor, nn.Parameter) and is_quantized(tensor)):
            raise PrecisionError(f"{spec.name}: {name} is quantized, and is no chosen layer's weight")
        if tensor.is_floating_point() and tensor.dtype is not converted.dtype:
            raise PrecisionError(f"{spec.name}: {name} is {tensor.dtype}, but {converted.dtype} was promised")


def _fault(layer: nn.Module, own: PrecisionSpec) -> str:
    """What keeps ``layer`` from being of the precision ``own``; empty if nothing does."""
    if own.is_local:
        return own_layer_fault(layer, own.max_bits)
    if own.layer is not None:
        check: LayerCheck | None = resolve_name(own.check) if own.check else None
        return (check(layer) if check else "") or bits_fault(layer, own.max_bits)
    wrong = [f"{name} is {t.dtype}" for name, t in _tensors(layer) if str(t.dtype) != f"torch.{own.dtype}"]
    return wrong[0] if wrong else "" if type(layer) is nn.Linear else f"it is a {type(layer).__name__}"


def _build(layer: nn.Linear, own: PrecisionSpec, copier: Copier) -> nn.Module | str:
    if own.layer is not None:
        return build_layer(layer, own, copier)
    return copier.model(layer)


def _dtype_of(own: PrecisionSpec, copier: Copier) -> torch.dtype:
    """The type that a layer of the precision ``own`` is fed: its own, what its kernels want, or the rest's."""
    name = own.dtype
    if name is None:
        name = own.cpu_rest if copier.device.type == "cpu" else own.accelerator_rest
    dtype: torch.dtype = copier.dtype if name is None else getattr(torch, name)
    return dtype


def _method(layers: Mapping[str, nn.Linear], mix: Mix, rest: torch.dtype) -> str:
    """``mixed: 12 int8wo, 4 bf16, fp32 rest``."""
    counts = Counter(mix.layers.get(name, mix.rest).name for name in layers)
    parts = [f"{count} {name}" for name, count in counts.most_common()]
    return f"mixed: {', '.join([*parts, f'{short_name(rest)} rest'])}"


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
