"""A fixed reference workload, interleaved with every pair.

Its own time says how fast the machine was while the pair was measured, so that a slow hour is not read as a slow model.
It is a transformer block rather than a matrix product alone: on a shared CPU the block's time followed the machine as
the models' did, through caches and memory too, while a matrix product that fits a cache moved half as far.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from pytest_vq.device.clock import Call

# Batch, tokens, width, heads: 2.5 ms on one core; sized for about as long on a GPU, where it was not measured yet.
_SHAPES = {"cpu": (1, 197, 192, 3), "cuda": (16, 197, 1024, 16)}


def sentinel(device: torch.device) -> Call:
    """A call of one FP32 transformer block on ``device``, with fixed weights and input (batch, tokens, width)."""
    batch, tokens, width, heads = _SHAPES.get(device.type, _SHAPES["cuda"])
    generator = torch.Generator().manual_seed(0)

    def fixed(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5).to(device)

    images = fixed(batch, tokens, width)
    into_heads, out_of_heads = fixed(3 * width, width), fixed(width, width)
    up, down = fixed(4 * width, width), fixed(width, 4 * width)

    def run() -> Tensor:
        split = linear(layer_norm(images, (width,)), into_heads).view(batch, tokens, 3, heads, width // heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(images.shape)
        hidden = images + linear(attended, out_of_heads)
        return hidden + linear(gelu(linear(layer_norm(hidden, (width,)), up)), down)

    return run
