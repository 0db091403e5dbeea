"""The type of what a precision leaves unquantized."""

from __future__ import annotations

import torch

from pytest_vq.schema.spec import PrecisionSpec


def rest_dtype(precision: PrecisionSpec, device: torch.device, usual: torch.dtype) -> torch.dtype:
    """The type on ``device`` of what ``precision`` does not quantize, which is also what its model is fed.

    It is a recipe's, or that of a precision that casts all of a model, or what the kernels want there; else ``usual``.
    """
    if precision.mix is not None:
        return rest_dtype(precision.mix.rest, device, usual)
    kernels_rest = precision.cpu_rest if device.type == "cpu" else precision.accelerator_rest
    name = kernels_rest if precision.dtype is None else precision.dtype
    dtype: torch.dtype = usual if name is None else getattr(torch, name)
    return dtype
