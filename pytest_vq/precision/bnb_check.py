"""Is a layer what bitsandbytes stores for LLM.int8 or NF4? Read off the layer, without a word from what built it."""

from __future__ import annotations

from typing import Any

import torch

_NF4_BLOCK = 64  # weights that share one scale


def int8_fault(module: Any) -> str:
    """What keeps ``module`` from being LLM.int8; empty if nothing does."""
    weight, shape = module.weight, (module.out_features, module.in_features)
    state = getattr(module, "state", None)
    # The first call moves the scales from the parameter to the layer's state.
    scales = getattr(weight, "SCB", None)
    scales = getattr(state, "SCB", None) if scales is None else scales
    if weight.dtype is not torch.int8 or tuple(weight.shape) != shape:
        return f"its weight is {weight.dtype} {tuple(weight.shape)}, expected int8 {shape}"
    if scales is None or scales.dtype is not torch.float32 or tuple(scales.shape) != shape[:1]:
        return "its weight has no scale for every row"
    if not bool(torch.isfinite(scales).all()):
        return "its scales are not finite: the FP32 weights do not fit into FP16"
    if state is None or state.has_fp16_weights or state.threshold <= 0:
        return "it keeps FP16 weights, or its outlier threshold is off"
    return ""


def nf4_fault(module: Any) -> str:
    """What keeps ``module`` from being NF4 with double quantization; empty if nothing does."""
    weight, shape = module.weight, (module.out_features, module.in_features)
    state = getattr(weight, "quant_state", None)
    packed = (shape[0] * shape[1] + 1) // 2
    if weight.dtype is not torch.uint8 or weight.numel() != packed:
        return f"its weight is {weight.dtype} with {weight.numel()} elements, expected uint8 with {packed}"
    if state is None or state.quant_type != "nf4" or tuple(state.shape) != shape or state.blocksize != _NF4_BLOCK:
        return "its quantization state is not NF4 of its shape"
    if not state.nested:
        return "its scales are not quantized themselves"
    if not bool(torch.isfinite(state.offset)):
        return "its scales are not finite: the FP32 weights do not fit into half precision"
    return ""
