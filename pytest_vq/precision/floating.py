"""Schemes that hold every tensor in one floating-point type and quantize nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pytest_vq.precision.converted import Converted
from pytest_vq.precision.layers import Copier, eligible_layers
from pytest_vq.schema.record import Coverage


def fp32(source: nn.Module, *, device: torch.device, heads: Sequence[str]) -> Converted:
    """The model as it is, copied to ``device``: the reference of every comparison."""
    return _cast(source, torch.float32, device, heads)


def fp16(source: nn.Module, *, device: torch.device, heads: Sequence[str]) -> Converted:
    """Every floating-point parameter and buffer in IEEE half precision."""
    return _cast(source, torch.float16, device, heads)


def _cast(source: nn.Module, dtype: torch.dtype, device: torch.device, heads: Sequence[str]) -> Converted:
    coverage = Coverage(eligible=len(eligible_layers(source, heads)), quantized=0)
    return Converted(Copier(device, dtype).model(source), str(dtype), dtype, coverage)
