"""Rows of a batch: of what a model is called with, and of what it answers. The batch is the first axis of each tensor.

An answer is a tensor, or a tuple, list or mapping of tensors (an output of transformers is one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytest_vq.errors import OutputError


def row_count(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many rows a model is called with: those of its first tensor; 1 where it has none."""
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim)
    first = next(tensors, None)
    return 1 if first is None else len(first)


def take_rows(
    args: Sequence[Any], kwargs: Mapping[str, Any], rows: Sequence[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments for these ``rows`` alone."""
    count = row_count(args, kwargs)

    def taken(value: Any) -> Any:
        has_rows = isinstance(value, Tensor) and value.ndim and len(value) == count
        return value[torch.as_tensor(rows, device=value.device)] if has_rows else value

    return tuple(map(taken, args)), {name: taken(value) for name, value in kwargs.items()}


def bad_rows(answer: Any, count: int) -> list[int]:
    """The rows of ``answer`` that hold a NaN or an infinity. Raises OutputError where it has not ``count`` rows."""
    tensors = list(_tensors(answer))
    if not tensors:
        raise OutputError(f"the model answered with a {type(answer).__name__} without a tensor: it has no rows")
    for tensor in tensors:
        if tensor.ndim == 0 or len(tensor) != count:
            raise OutputError(f"the model answered {count} rows with a tensor of shape {list(tensor.shape)}")
    finite = torch.ones(count, dtype=torch.bool, device=tensors[0].device)
    for tensor in tensors:
        finite &= torch.isfinite(tensor).reshape(count, -1).all(dim=1).to(finite.device)
    # On an accelerator this waits for the answer: until then, nobody knows how long it took.
    return [row for row, is_good in enumerate(finite.tolist()) if not is_good]


def put_rows(answer: Any, rows: Sequence[int], replacement: Any) -> Any:
    """A copy of ``answer`` in which ``rows`` are those of ``replacement``. Raises TypeError where they are unlike.

    The copy has the wider of both types: what overflowed in half precision would overflow again.
    """

    def put(mine: Tensor, theirs: Tensor) -> Tensor:
        if len(theirs) != len(rows) or mine.shape[1:] != theirs.shape[1:]:
            raise TypeError(f"rows of {list(theirs.shape)} cannot take the place of rows of {list(mine.shape)}")
        merged = mine.to(torch.promote_types(mine.dtype, theirs.dtype), copy=True)
        merged[torch.as_tensor(rows, device=mine.device)] = theirs.to(merged)
        return merged

    return _mapped(put, answer, replacement)


def with_nan(answer: Any, rows: Sequence[int]) -> Any:
    """A copy of ``answer`` in which the floating-point ``rows`` are NaN."""

    def strike(tensor: Tensor) -> Tensor:
        struck = tensor.clone()
        if tensor.is_floating_point():
            struck[torch.as_tensor(rows, device=tensor.device)] = float("nan")
        return struck

    return _mapped(strike, answer)


def _mapped(change: Callable[..., Tensor], answer: Any, *others: Any) -> Any:
    """``answer`` with each of its tensors changed, given those of ``others`` at its place."""
    if any(type(other) is not type(answer) for other in others):
        raise TypeError(f"a {type(answer).__name__} is unlike {', '.join(type(other).__name__ for other in others)}")
    if isinstance(answer, Tensor):
        return change(answer, *others)
    if isinstance(answer, Mapping):
        if any(other.keys() != answer.keys() for other in others):
            raise TypeError(f"answers have different names: {', '.join(map(str, answer))}")
        parts = {name: _mapped(change, value, *(other[name] for other in others)) for name, value in answer.items()}
        return parts if type(answer) is dict else type(answer)(**parts)
    if isinstance(answer, tuple | list):
        if any(len(other) != len(answer) for other in others):
            raise TypeError(f"answers have different lengths: {len(answer)} and others")
        items = [_mapped(change, *at) for at in zip(answer, *others, strict=True)]
        return type(answer)(*items) if hasattr(answer, "_fields") else type(answer)(items)
    raise TypeError(f"a {type(answer).__name__} has no rows")


def _tensors(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, Mapping):
        for value in answer.values():
            yield from _tensors(value)
    elif isinstance(answer, tuple | list):
        for value in answer:
            yield from _tensors(value)
