"""A model in which each layer has a precision of its own, as a recipe says."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.building import build_layer, disable_fused_encoder
from pytest_vq.precision.converted import Converted, short_name
from pytest_vq.precision.layers import Copier, eligible_layers, tied_outside
from pytest_vq.precision.rest import rest_dtype
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
        dtype = rest_dtype(own, copier.device, copier.dtype)
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


def _build(layer: nn.Linear, own: PrecisionSpec, copier: Copier) -> nn.Module | str:
    if own.layer is not None:
        return build_layer(layer, own, copier)
    return copier.model(layer)


def _method(layers: Mapping[str, nn.Linear], mix: Mix, rest: torch.dtype) -> str:
    """``mixed: 12 int8wo, 4 bf16, fp32 rest``."""
    counts = Counter(mix.layers.get(name, mix.rest).name for name in layers)
    parts = [f"{count} {name}" for name, count in counts.most_common()]
    return f"mixed: {', '.join([*parts, f'{short_name(rest)} rest'])}"
