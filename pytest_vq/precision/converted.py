"""What conversion works with: the unit that a precision supplies, and the model that comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pytest_vq.precision.layers import Copier
from pytest_vq.schema.figures import Coverage

# A linear layer (FP32, on the CPU, not to be changed) -> its replacement on ``copier.device``, whose biases and other
# unquantized parts have ``copier.dtype``; or a text: why this one stays as it is. What is looked for in the result and
# counted are modules with ``in_features``, ``out_features`` and a quantized ``weight`` (see ``tensors.is_quantized``).
LayerBuilder = Callable[[nn.Linear, Copier], nn.Module | str]

# A quantized layer of a converted model -> what is wrong with it; empty where it is what it should be.
LayerCheck = Callable[[nn.Module], str]


def short_name(dtype: torch.dtype) -> str:
    """``bf16``, ``fp16``, ``fp32``: what a type is called in methods, setups and tables."""
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}.get(dtype, str(dtype))


@dataclass(frozen=True, slots=True)
class Converted:
    """A model at a precision."""

    module: nn.Module
    method: str  # what really runs: "bitsandbytes LLM.int8, fp16 rest"
    dtype: torch.dtype  # of the inputs it must be fed
    coverage: Coverage
    own_layers: frozenset[str] = frozenset()  # dotted names of those that a user's function built
    # Both are of the state before the first forward, which changes it: on CPUs with AVX512-BF16 bitsandbytes repacks
    # NF4 weights there (other bytes, and no nested statistics).
    model_size_bytes: int = 0  # serialized, quantization state included
    fingerprint: str = ""
