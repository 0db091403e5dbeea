"""What a handler gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from pytest_vq.schema.record import Coverage


@dataclass(frozen=True, slots=True)
class Converted:
    """A model at a precision. The last two fields are filled in by ``convert``, not by handlers."""

    module: nn.Module
    method: str  # what really runs: "bitsandbytes LLM.int8, fp16 rest"
    dtype: torch.dtype  # of the inputs it must be fed
    coverage: Coverage
    # Both are of the state before the first forward, which changes it: on CPUs with AVX512-BF16 bitsandbytes repacks
    # NF4 weights there (other bytes, and no nested statistics).
    model_size_bytes: int = 0  # serialized, quantization state included
    fingerprint: str = ""


class Handler(Protocol):
    """Converts a model; ``source`` is FP32 on the CPU, is used again, and must not be changed."""

    def __call__(self, source: nn.Module, *, device: torch.device, heads: Sequence[str]) -> Converted:
        """``source`` at this handler's precision on ``device``, linear layers in ``heads`` left unquantized."""
        ...
