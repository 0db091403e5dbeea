"""How far an output is from FP32's. Computed in float64 on the CPU, so that the comparison adds no error of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pytest_vq.errors import OutputError
from pytest_vq.schema.figures import Fidelity

# What an exact match is reported as, and the most there is: infinity is not JSON, and no figure would look like "not
# measured". It is above the 150 dB or so that separate float32 from exact arithmetic, so it can only mean "equal".
MAX_SQNR_DB = 200.0
# A randomly initialised network can end in outputs of 1e-41, which FP16 turns into zeros that then agree perfectly.
MIN_STD = 1e-4


def check_output(output: object, what: str, like: Tensor | None = None) -> None:
    """Refuse an output that no precision could be judged by.

    Args:
        output: a floating-point tensor [n, ...].
        what: whose output it is, for the message.
        like: the reference's output, whose shape it must have.

    Raises:
        OutputError: not a floating-point tensor with rows, another shape than ``like``, not finite, or degenerate:
            all features of some row (nearly) equal.
    """
    if not isinstance(output, Tensor):
        raise OutputError(f"{what}: the output is a {type(output).__name__}, not a tensor: return one tensor [n, ...]")
    if not output.is_floating_point():
        raise OutputError(f"{what}: the output is {output.dtype}, and only floating point can be compared")
    if like is not None and output.shape != like.shape:
        raise OutputError(f"{what}: the output has shape {_shape(output)}, FP32's has {_shape(like)}")
    if output.dim() == 0 or not output.numel():
        raise OutputError(f"{what}: the output has shape {_shape(output)}: expected [n, ...] with at least one element")
    rows = _rows(output)
    bad = int((~torch.isfinite(rows)).sum())
    if bad:
        raise OutputError(
            f"{what}: {bad} of {rows.numel()} output values are NaN or infinite. Values beyond 65,504 do not fit FP16: "
            "look for large activations or weights, or leave this precision out for this model"
        )
    _check_spread(rows, what)


def _check_spread(rows: Tensor, what: str) -> None:
    if rows.shape[1] == 1:  # one feature: all that can vary is the row, and a single row nothing can be said of
        rows = rows.T
    if rows.shape[1] == 1:
        return
    smallest = float(rows.std(dim=1).min())
    if smallest <= MIN_STD:
        raise OutputError(
            f"{what}: the output is degenerate: its standard deviation is {smallest:.1e}, at most {MIN_STD:.0e}: "
            "nothing can be said about precision. Random weights may vanish: initialise them, or use trained ones"
        )


def measure_fidelity(reference: Tensor, candidate: Tensor) -> Fidelity:
    """The fidelity of ``candidate`` to ``reference``, both [n, ...] of any type and device; features are flattened.

    SQNR is 10 log10(sum of squares of the reference / sum of squares of the difference). Accuracy is left empty: it
    takes labels.

    Raises:
        OutputError: shapes differ, or a value is not finite.
    """
    if reference.shape != candidate.shape:
        raise OutputError(f"cannot compare outputs of shapes {_shape(reference)} and {_shape(candidate)}")
    signal, other = _rows(reference), _rows(candidate)
    if not bool(torch.isfinite(signal).all() and torch.isfinite(other).all()):
        raise OutputError("cannot compare outputs that are not finite")
    noise = other - signal
    return Fidelity(
        cosine=_cosine(signal, other),
        sqnr_db=ratio_db(float(signal.square().sum()), float(noise.square().sum())),
        max_abs_error=float(noise.abs().max()),
        top1_agreement=_agreement(signal, other) if signal.shape[1] > 1 else None,
    )


def ratio_db(signal: float, noise: float) -> float:
    """``signal`` over ``noise``, two powers, in dB; within +-200, and the least for noise that is not finite."""
    if not math.isfinite(noise):
        return -MAX_SQNR_DB
    if noise == 0:
        return MAX_SQNR_DB
    if signal == 0:
        return -MAX_SQNR_DB
    return min(max(10 * math.log10(signal / noise), -MAX_SQNR_DB), MAX_SQNR_DB)


def find_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which rows of ``logits`` [n, classes] are largest where ``labels`` [n] say: booleans [n], on the CPU.

    Raises:
        OutputError: the number of rows and of labels differ, or there is none.
    """
    if logits.dim() != 2 or labels.dim() != 1 or len(logits) != len(labels) or not len(labels):
        raise OutputError(
            f"accuracy needs logits [n, classes] and labels [n], got {_shape(logits)} and {_shape(labels)}"
        )
    return _rows(logits).argmax(dim=1) == labels.cpu()


def to_bits(right: Tensor) -> str:
    """Booleans [n] as hexadecimal digits, the first the highest bit; filled up with zeros to whole digits."""
    text = "".join("1" if one else "0" for one in right.tolist())
    digits = -(-len(text) // 4)
    return f"{int(text.ljust(4 * digits, '0'), 2):0{digits}x}"


def _rows(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64).reshape(len(tensor), -1)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _cosine(signal: Tensor, other: Tensor) -> float:
    # Not torch's cosine_similarity: it clamps small norms, which lowers the cosine of two tiny equal vectors.
    norms = signal.norm(dim=1) * other.norm(dim=1)
    cosines = (signal * other).sum(dim=1) / norms
    # A vector of zeros has no direction: equal to another of zeros, unlike anything else.
    cosines = torch.where(norms == 0, (signal == other).all(dim=1).double(), cosines)
    return float(cosines.mean().clamp(-1.0, 1.0))


def _agreement(signal: Tensor, other: Tensor) -> float:
    return float((signal.argmax(dim=1) == other.argmax(dim=1)).double().mean())
