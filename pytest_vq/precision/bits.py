"""How many bits a quantized layer takes for a weight, looked up in what it stores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from pytest_vq.precision.size import stored_tensors
from pytest_vq.precision.tensors import is_quantized

# What a layer may take of a format's bits: its scales and padding too. Formats in use add up to 0.5 bits for scales to
# 4 bits a weight and, padded, 1.7 (torchao's packed tiles at 768 columns), while the next wider format takes twice as
# many bits. Half as many again lies between the two: 4-bit weights that are stored in a byte each are found out.
_MOST = 1.5
# On top of that, what does not grow with a layer: NF4 keeps tables of 1.2 KiB in each, more than tiny weights take.
_TABLE_BYTES = 2048


def quantized_layers(model: nn.Module, own: Collection[str] = ()) -> dict[str, nn.Module]:
    """The linear layers of ``model`` whose weight is quantized, of whatever kind, by dotted name; each once.

    Those called ``own``, the user's, are among them whatever they hold (see ``own_layers``), and what they are made of
    is not.
    """
    inside = tuple(f"{name}." for name in own)
    return {
        name: module
        for name, module in model.named_modules()
        if name in own or (_is_quantized_linear(module) and not name.startswith(inside))
    }


def _is_quantized_linear(module: Any) -> bool:
    features = getattr(module, "in_features", None), getattr(module, "out_features", None)
    weight = getattr(module, "weight", None)
    return all(isinstance(count, int) for count in features) and isinstance(weight, Tensor) and is_quantized(weight)


def bits_fault(layer: Any, max_bits: float | None, held: Mapping[str, Tensor] | None = None) -> str:
    """Why ``layer``, a quantized linear one, stores too much to be one of ``max_bits`` a weight; empty if it does not.

    ``held`` are its tensors, where they are more than what it stores.

    Take it before the first forward, which may pack weights anew (see ``size.stored_tensors``).
    """
    if max_bits is None:
        return ""
    tensors = stored_tensors(layer) if held is None else held
    stored = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] != "bias"}
    stored_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    weights = layer.in_features * layer.out_features
    most_bytes = _MOST * max_bits * weights / 8 + _TABLE_BYTES
    if stored_bytes <= most_bytes:
        return ""
    return (
        f"it stores {8 * stored_bytes / weights:.1f} bits a weight, where {max_bits:g} are meant and at most "
        f"{_MOST * max_bits:g} pass, scales and padding included"
    )
