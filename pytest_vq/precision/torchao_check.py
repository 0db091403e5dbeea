"""Is a layer what torchao stores for a precision? Read off its tensors, without a word from what built it.

torchao's tensors have changed their names and attributes between releases: what is read is each plain tensor's type and
shape, and whether there is anything by which activations are quantized.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pytest_vq.precision.tensors import is_wrapper, plain_tensors

_INT4_GROUP = 128  # weights that share a scale and a zero point
_INT4_ROWS, _INT4_COLUMNS = 8, 1024  # a packed weight is filled up to multiples of these
_SCALE_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def int8wo_fault(module: Any) -> str:
    """What keeps ``module`` from having 8-bit weights, and no others, quantized; empty if nothing does."""
    return _row_scaled_fault(module, torch.int8) or _activation_fault(module, quantized=False)


def int8dyn_fault(module: Any) -> str:
    """What keeps ``module`` from multiplying 8-bit weights and activations; empty if nothing does."""
    return _row_scaled_fault(module, torch.int8) or _activation_fault(module, quantized=True)


def fp8_fault(module: Any) -> str:
    """What keeps ``module`` from multiplying weights and activations in E4M3; empty if nothing does."""
    return _row_scaled_fault(module, torch.float8_e4m3fn) or _activation_fault(module, quantized=True)


def int4wo_fault(module: Any) -> str:
    """What keeps ``module`` from having 4-bit weights in packed tiles; empty if nothing does."""
    parts = _parts_of(module)
    if isinstance(parts, str):
        return parts
    rows = -(-module.out_features // _INT4_ROWS) * _INT4_ROWS
    columns = -(-module.in_features // _INT4_COLUMNS) * _INT4_COLUMNS
    codes = [part for part in parts if part.dtype is torch.int32 and part.numel() == rows * columns // 8]
    if len(codes) != 1:
        return f"it holds {_kinds(parts)}, expected int32 with {rows * columns // 8} elements, 8 weights in each"
    scales = [part for part in parts if part.dtype in _SCALE_TYPES]
    expected = rows * columns // _INT4_GROUP * 2
    if len(scales) != 1 or scales[0].numel() != expected:
        return f"it holds {_kinds(parts)}, expected a scale and a zero point for each {_INT4_GROUP} weights"
    return _finite_fault(scales[0]) or _activation_fault(module, quantized=False)


def _row_scaled_fault(module: Any, dtype: torch.dtype) -> str:
    """What keeps the weight of ``module`` from being codes of ``dtype`` with a scale for every row."""
    parts = _parts_of(module)
    if isinstance(parts, str):
        return parts
    rows, shape = module.out_features, (module.out_features, module.in_features)
    if [part for part in parts if part.dtype is dtype and tuple(part.shape) == shape] == []:
        return f"it holds {_kinds(parts)}, expected {dtype} {shape}"
    scales = [part for part in parts if part.dtype in _SCALE_TYPES]
    if len(scales) != 1 or math.prod(scales[0].shape) != rows:
        return f"it holds {_kinds(parts)}, expected a scale for each of {rows} rows"
    return _finite_fault(scales[0])


def _parts_of(module: Any) -> list[Tensor] | str:
    if not is_wrapper(module.weight):
        return f"its weight is {module.weight.dtype} {tuple(module.weight.shape)}, and no tensor of torchao's"
    shape = (module.out_features, module.in_features)
    if tuple(module.weight.shape) != shape:
        return f"its weight stands for {tuple(module.weight.shape)}, expected {shape}"
    return [part for _, part in plain_tensors("weight", module.weight)]


def _activation_fault(module: Any, *, quantized: bool) -> str:
    """Whether a call quantizes activations stands in no tensor's bytes, but in how the weight wants it done."""
    found = getattr(module.weight, "act_quant_kwargs", None) is not None
    if found == quantized:
        return ""
    return "its activations are quantized too" if found else "its activations are not quantized"


def _finite_fault(scales: Tensor) -> str:
    if bool(torch.isfinite(scales).all()):
        return ""
    return "its scales are not finite: the FP32 weights do not fit into half precision"


def _kinds(parts: list[Tensor]) -> str:
    return ", ".join(f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}" for part in parts)
