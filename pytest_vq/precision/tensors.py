"""Tensors down to the bytes behind them: what a library's quantized tensor really holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def is_wrapper(tensor: Tensor) -> bool:
    """True for a tensor made of others, as torchao's are: its own type is what it stands for, and it has no bytes."""
    return is_traceable_wrapper_subclass(tensor)


def is_quantized(tensor: Tensor) -> bool:
    """True for a weight in no ordinary floating-point type: wrapped, of integers, or of 8-bit floats."""
    if is_wrapper(tensor):
        return True
    return tensor.itemsize == 1 if tensor.is_floating_point() else not tensor.is_complex()


def plain_tensors(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that ``tensor`` is made of, named as in a file (``weight.qdata``); itself where it is plain."""
    if not is_wrapper(tensor):
        yield name, tensor
        return
    for part in _parts_of(tensor)[0]:
        yield from plain_tensors(f"{name}.{part}", getattr(tensor, part))


def wrappings(name: str, tensor: Tensor) -> Iterator[str]:
    """What is known of a wrapped tensor beside its bytes, in words: two schemes may differ in nothing else."""
    if is_wrapper(tensor):
        parts, context = _parts_of(tensor)
        yield f"{name} {type(tensor).__name__} {context!r}"
        for part in parts:
            yield from wrappings(f"{name}.{part}", getattr(tensor, part))


def _parts_of(tensor: Any) -> tuple[list[str], object]:
    parts, context = tensor.__tensor_flatten__()
    return parts, context
