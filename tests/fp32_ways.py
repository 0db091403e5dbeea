"""Every way in which something else than FP32 can have been switched on before a pair, for the tests of true FP32.

A way is a sequence of settings: where something is set below ``torch.backends``, and to what.
"""

from __future__ import annotations

from functools import reduce

import torch

Way = tuple[tuple[str, object], ...]

# Two that are no attributes there: the function for matrix products, and oneDNN's switch for all its operations, whose
# attribute sets the generic one.
MATMUL, MKLDNN_ALL = "torch.set_float32_matmul_precision", "mkldnn.set_flags"

OLD_SWITCHES = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
_CUDA = tuple(f"{owner}.fp32_precision" for owner in ("cudnn", "cuda.matmul", "cudnn.conv", "cudnn.rnn"))
_MKLDNN = tuple(f"mkldnn.{operation}.fp32_precision" for operation in ("matmul", "conv", "rnn"))
NEW_SWITCHES = ("fp32_precision", *_CUDA, "mkldnn.fp32_precision", *_MKLDNN)
HAS_NEW_SWITCHES = hasattr(torch._C, "_get_fp32_precision_getter")  # torch 2.9

_ALONE: tuple[Way, ...] = (
    (),
    *(((MATMUL, precision),) for precision in ("highest", "high", "medium")),
    *(((switch, value),) for switch in OLD_SWITCHES for value in (True, False)),
    (("cuda.matmul.allow_tf32", True), ("cudnn.allow_tf32", True)),
)
_NEW: tuple[Way, ...] = (
    *(((switch, value),) for switch in ("fp32_precision", MKLDNN_ALL, *_MKLDNN) for value in ("tf32", "bf16", "ieee")),
    *(((switch, value),) for switch in _CUDA for value in ("tf32", "ieee", "none")),
)
# A parent and a child that disagree, and both sets: after most of these some of the old switches cannot be read.
_MIXED: tuple[Way, ...] = (
    (("fp32_precision", "tf32"), ("cudnn.fp32_precision", "ieee"), ("cudnn.conv.fp32_precision", "tf32")),
    (("fp32_precision", "ieee"), ("cudnn.fp32_precision", "tf32"), ("cudnn.rnn.fp32_precision", "none")),
    ((MKLDNN_ALL, "bf16"), ("mkldnn.matmul.fp32_precision", "tf32")),
    *((("cuda.matmul.allow_tf32", False), ("cudnn.allow_tf32", False), *way) for way in _NEW),
    *((*way, ("cuda.matmul.allow_tf32", True), ("cudnn.allow_tf32", True)) for way in _NEW),
    (("cudnn.allow_tf32", True), ("cudnn.conv.fp32_precision", "ieee"), ("cudnn.rnn.fp32_precision", "ieee")),
    ((MATMUL, "medium"), ("cuda.matmul.allow_tf32", False)),
    ((MATMUL, "high"), ("mkldnn.matmul.fp32_precision", "bf16")),
    ((MATMUL, "medium"), ("fp32_precision", "tf32"), ("cuda.matmul.fp32_precision", "none")),
)
WAYS = (*_ALONE, *_NEW, *_MIXED) if HAS_NEW_SWITCHES else _ALONE


def describe(way: Way) -> str:
    """A way's name among a test's parameters."""
    return " ".join(f"{switch}={value}" for switch, value in way) or "nothing"


def go(way: Way) -> None:
    """Set what ``way`` sets, in its order."""
    for switch, value in way:
        if switch == MATMUL:
            torch.set_float32_matmul_precision(str(value))
        elif switch == MKLDNN_ALL:
            torch.backends.mkldnn.set_flags(_fp32_precision=value)
        else:
            owner, _, name = switch.rpartition(".")
            setattr(reduce(getattr, owner.split("."), torch.backends) if owner else torch.backends, name, value)


def readings() -> dict[str, object]:
    """What every switch reads; that it cannot be read, where it cannot."""
    found: dict[str, object] = {}
    for switch in (MATMUL, *OLD_SWITCHES, *(NEW_SWITCHES if HAS_NEW_SWITCHES else ())):
        try:
            if switch == MATMUL:
                found[switch] = torch.get_float32_matmul_precision()
            else:
                found[switch] = reduce(getattr, switch.split("."), torch.backends)
        except RuntimeError:
            found[switch] = "cannot be read"
    return found


def start_afresh() -> None:
    """Set every switch as torch starts with, so far as it can be set."""
    go(((MATMUL, "highest"), ("cudnn.allow_tf32", True)))
    if HAS_NEW_SWITCHES:
        go(tuple((switch, "none") for switch in (*NEW_SWITCHES, MKLDNN_ALL) if switch != "mkldnn.fp32_precision"))
        go((("cudnn.conv.fp32_precision", "tf32"), ("cudnn.rnn.fp32_precision", "tf32")))
