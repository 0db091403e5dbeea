"""What a model is called with: a tensor, several by position, or several by keyword, with the batch first in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pytest_vq.errors import RegistrationError

ModelInputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]

_FORMS = "a tensor, a tuple of tensors, or a dict of keyword arguments"
# Values that are fed at once, at most, where a model's batch is not what it was made for: 55 images of 224 x 224.
_AT_ONCE = 2**23


def named_tensors(inputs: ModelInputs) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of ``inputs``, with what messages call it."""
    if isinstance(inputs, Tensor):
        yield "the tensor", inputs
    elif isinstance(inputs, tuple):
        yield from ((f"tensor {place}", tensor) for place, tensor in enumerate(inputs))
    else:
        yield from ((f"{name!r}", tensor) for name, tensor in inputs.items())


def change_tensors(inputs: ModelInputs, change: Callable[[Tensor], Tensor]) -> ModelInputs:
    """The same inputs with each tensor changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, tuple):
        return tuple(change(tensor) for tensor in inputs)
    return {name: change(tensor) for name, tensor in inputs.items()}


def bind_inputs(call: Callable[..., object], inputs: ModelInputs) -> Callable[[], object]:
    """A call without arguments that gives ``inputs`` to ``call``."""
    if isinstance(inputs, Tensor):
        return partial(call, inputs)
    return partial(call, *inputs) if isinstance(inputs, tuple) else partial(call, **inputs)


def batch_of(inputs: ModelInputs) -> int:
    """How many rows ``inputs`` have."""
    return len(next(tensor for _, tensor in named_tensors(inputs)))


def move_tensor(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``tensor`` on ``device`` and, if it is floating, of ``dtype``; integers and booleans stay what they are."""
    return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)


def move_inputs(inputs: ModelInputs, device: torch.device, dtype: torch.dtype) -> ModelInputs:
    """``inputs`` on ``device``, what is floating of ``dtype``."""
    return change_tensors(inputs, partial(move_tensor, device=device, dtype=dtype))


def split_inputs(inputs: ModelInputs, batch: int) -> list[ModelInputs]:
    """``inputs`` in parts of ``batch`` rows; the last may have fewer."""
    starts = range(0, batch_of(inputs), batch)
    return [change_tensors(inputs, lambda tensor, at=at: tensor[at : at + batch]) for at in starts]  # type: ignore[misc]


def join_inputs(parts: Sequence[ModelInputs]) -> ModelInputs:
    """The rows of all ``parts``, which are alike but for their number of rows, in one."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    columns = [[tensor for _, tensor in named_tensors(part)] for part in parts]
    joined = [torch.cat(column) for column in zip(*columns, strict=True)]
    return tuple(joined) if isinstance(first, tuple) else dict(zip(first, joined, strict=True))


def pad_inputs(inputs: ModelInputs, batch: int) -> ModelInputs:
    """``inputs`` with their last row repeated up to ``batch`` rows."""
    last = batch_of(inputs) - 1
    return change_tensors(
        inputs, lambda tensor: tensor.index_select(0, torch.arange(batch, device=tensor.device).clamp(max=last))
    )


def rows_at_once(inputs: ModelInputs) -> int:
    """How many rows of ``inputs`` may be fed at once, so that many labelled images do not fill a device."""
    values = sum(tensor.numel() for _, tensor in named_tensors(inputs))
    return max(1, _AT_ONCE * batch_of(inputs) // max(1, values))


def describe_inputs(inputs: ModelInputs) -> str:
    """Shapes, types and device, for messages: ``[2, 3, 8, 8] torch.float32 on cpu``."""
    tensors = [tensor for _, tensor in named_tensors(inputs)]
    shapes = ", ".join(f"{list(tensor.shape)} {tensor.dtype}" for tensor in tensors)
    return f"{shapes} on {tensors[0].device}"


def checked_inputs(given: Any, what: str, batch: int | None = None) -> ModelInputs:
    """``given`` as inputs, where a model can be called with it.

    Args:
        given: what a user gave, or a user's function returned.
        what: whose it is, for messages: ``my-net: its function inputs``.
        batch: the rows that it must have; None: any number, and all tensors the same.

    Raises:
        RegistrationError: it is neither a tensor, a tuple nor a dict of tensors, or a tensor is not on the CPU, of
            another floating-point type than FP32, or has another batch.
    """
    inputs = tuple(given) if isinstance(given, list) else given
    if isinstance(inputs, dict):
        tensors, named = list(inputs.values()), all(isinstance(name, str) for name in inputs)
    else:
        tensors, named = list(inputs) if isinstance(inputs, tuple) else [inputs], True
    if not (named and tensors and all(isinstance(tensor, Tensor) for tensor in tensors)):
        kinds = ", ".join(sorted({type(tensor).__name__ for tensor in tensors})) or "nothing"
        inside = f" of {kinds}" if isinstance(given, dict | tuple | list) else ""
        raise RegistrationError(f"{what}: found a {type(given).__name__}{inside}, expected {_FORMS}")
    for name, tensor in named_tensors(inputs):
        fault = _fault(tensor, len(tensors[0]) if batch is None and tensors[0].dim() else batch)
        if fault:
            raise RegistrationError(f"{what}: {name} {fault}")
    checked: ModelInputs = inputs
    return checked


def checked_labelled(given: Any, what: str) -> tuple[ModelInputs, Tensor]:
    """``given`` as inputs and their labels. Raises RegistrationError where it is something else."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise RegistrationError(f"{what} returned a {type(given).__name__}; it must return two things: inputs, labels")
    inputs, labels = checked_inputs(given[0], what), given[1]
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 1:
        kind = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise RegistrationError(f"{what}: its labels are {kind}; return the number of each image's class, INT64 [n]")
    if len(labels) != batch_of(inputs):
        raise RegistrationError(f"{what}: it has {batch_of(inputs)} images and {len(labels)} labels; each needs one")
    return inputs, labels.long().cpu()


def _fault(tensor: Tensor, batch: int | None) -> str:
    """What keeps ``tensor`` from being an input; empty if nothing does."""
    if tensor.dim() == 0 or len(tensor) != batch or not len(tensor):
        meant = f"[{batch or 'n'}, ...]"
        return f"has shape {list(tensor.shape)}, expected {meant}: every tensor's first axis is the batch"
    if tensor.device.type != "cpu":
        return f"is on {tensor.device}; it must be on the CPU, and each precision gets its copy on the device"
    if tensor.is_floating_point() and tensor.dtype is not torch.float32:
        return f"is {tensor.dtype}; it must be FP32, and each precision gets it in its own type"
    return ""
