"""True FP32, whatever was set before: no TF32 or BF16 in its place, on an accelerator or a CPU. And TF32 by intent.

torch has two sets of switches for that. The old ones are ``set_float32_matmul_precision`` and ``allow_tf32`` of cuBLAS
and of cuDNN. The new ones (``fp32_precision``, torch 2.9) are a tree: a switch that is "none" follows its parent.
Setting one set only leaks: after ``torch.backends.fp32_precision = "tf32"`` and ``cudnn.allow_tf32 = False``,
convolutions run in TF32. Where the two disagree, kernels go by the new set, and reading the old one raises.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from pytest_vq.errors import MeasurementError

_HIGHEST, _HIGH, _IEEE, _TF32, _NONE = "highest", "high", "ieee", "tf32", "none"
# Backend and operation of each new switch, parents before their children.
_SWITCHES = (
    ("generic", "all"),
    *((backend, operation) for backend in ("cuda", "mkldnn") for operation in ("all", "matmul", "conv", "rnn")),
)


@dataclass(frozen=True, slots=True)
class _State:
    """What the switches hold themselves, as against what they read through their parents."""

    matmul: str  # of torch.set_float32_matmul_precision, cuBLAS's allow_tf32 included
    cudnn: bool  # cuDNN's allow_tf32
    own: Mapping[tuple[str, str], str]  # the new switches; none before torch 2.9


_ALL_FP32 = _State(_HIGHEST, False, dict.fromkeys(_SWITCHES, _IEEE))
# CUDA's alone: where the CPU computes something meanwhile, it computes it in FP32.
_CUDA_TF32 = _State(_HIGH, True, {s: _TF32 if s[0] == "cuda" else _IEEE for s in _SWITCHES})


@contextlib.contextmanager
def true_fp32() -> Iterator[None]:
    """Compute in FP32 inside, whatever was set before and by which switch; put all of it back at the end.

    Inside, the old switches can be read too. Afterwards each switch reads as it did, and one that could not be read,
    because the two sets disagreed, cannot be read again. One state has no setter: on torch 2.13 cuDNN's new switches
    start out as a "tf32" that yet follows a parent. What is put back is what they read, as ``cudnn.flags`` does too.

    Raises:
        MeasurementError: torch did not take it.
    """
    with _holding("FP32", _ALL_FP32):
        yield


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Let CUDA round what it multiplies, in matrix products and convolutions, to TF32's 10 bits inside.

    Entered within ``true_fp32`` for each timed block, so that FP32's blocks beside them see none of it: all is put back
    as ``true_fp32`` does. Both sets of switches say the same, so that either can be read inside.

    Raises:
        MeasurementError: torch did not take it.
    """
    with _holding("TF32", _CUDA_TF32):
        yield


@contextlib.contextmanager
def _holding(what: str, state: _State) -> Iterator[None]:
    found = _take()
    try:
        _write(state)
        _check(what, state)
        yield
    finally:
        _write(found)


def _has_new_switches() -> bool:
    return hasattr(torch._C, "_get_fp32_precision_getter")


# The private functions behind the attributes, as torch's own context managers use them: ``torch.backends.mkldnn``'s
# setter writes the generic switch (2.13), and all attributes refuse after ``torch.backends.disable_global_flags``.
def _take() -> _State:
    """What the switches hold. The new ones are left at "ieee", and the old ones as they are."""
    own = {}
    if _has_new_switches():
        read = {switch: torch._C._get_fp32_precision_getter(*switch) for switch in _SWITCHES}
        for switch in _SWITCHES:
            alone = torch._C._get_fp32_precision_getter(*switch)  # its parents, which come first, are "none" by now
            own[switch] = alone if alone == read[switch] else _NONE  # it read what it has, or what a parent had
            torch._C._set_fp32_precision_setter(*switch, _NONE)
        for switch in _SWITCHES:
            torch._C._set_fp32_precision_setter(*switch, _IEEE)
    return _State(*_read_old(), own)


def _read_old() -> tuple[str, bool]:
    """The old switches. Beside new ones that are all "ieee", only an ``allow_tf32`` that is set cannot be read."""
    with _unwarned():
        matmul = torch._C._get_float32_matmul_precision()
        try:
            return matmul, torch._C._get_cudnn_allow_tf32()
        except RuntimeError:
            return matmul, True


def _write(state: _State) -> None:
    with _unwarned():
        torch._C._set_float32_matmul_precision(state.matmul)
        torch._C._set_cudnn_allow_tf32(state.cudnn)
    if _has_new_switches():  # after the old ones, which write some of these too
        for switch, precision in state.own.items():
            torch._C._set_fp32_precision_setter(*switch, precision)


def _check(what: str, state: _State) -> None:
    read = dict(zip(("float32_matmul_precision", "cudnn.allow_tf32"), _read_old(), strict=True))
    expected: dict[str, object] = {"float32_matmul_precision": state.matmul, "cudnn.allow_tf32": state.cudnn}
    if _has_new_switches():
        for switch, precision in state.own.items():
            name = ".".join((*switch, "fp32_precision"))
            read[name], expected[name] = torch._C._get_fp32_precision_getter(*switch), precision
    wrong = [f"{name} is {value!r}" for name, value in read.items() if value != expected[name]]
    if wrong:
        raise MeasurementError(
            f"torch {torch.__version__} was told to compute in {what}, but {', '.join(wrong)}: {what} rows would "
            f"not be {what}. Look for what sets TF32 or BF16 on another thread, or take another version of torch"
        )


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    # torch 2.9.0 warns of the old switches; where warnings are errors, that would fail a pair for our own call.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
