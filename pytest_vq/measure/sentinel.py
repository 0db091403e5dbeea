"""A fixed reference workload, interleaved with every pair.

Its own time says how fast the machine was while the pair was measured, so that a slow hour is not read as a slow model.
It is a transformer block rather than a matrix product alone: on a shared CPU the block's time followed the machine as
the models' did, through caches and memory too, while a matrix product that fits a cache moved half as far. On a GPU
tiny kernels come before the block: what bounds most requests of one image there is the pace at which the host launches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from pytest_vq.device.clock import Call


@dataclass(frozen=True, slots=True)
class _Size:
    batch: int
    tokens: int
    width: int
    heads: int
    launches: int = 0  # of tiny kernels, before the block


# 2.5 ms on one core of a CPU. For a GPU it was not measured yet: at some 4 us a launch and 50 TFLOP/s in FP32 (an H100)
# launching and computing take 0.4 ms each.
_ON_CPU = _Size(batch=1, tokens=197, width=192, heads=3)
_ON_GPU = _Size(batch=4, tokens=197, width=1024, heads=16, launches=100)


def sentinel(device: torch.device) -> Call:
    """A call of one FP32 transformer block on ``device``, with fixed weights and input (batch, tokens, width)."""
    size = _ON_CPU if device.type == "cpu" else _ON_GPU
    width = size.width
    generator = torch.Generator().manual_seed(0)

    def fixed(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5).to(device)

    images = fixed(size.batch, size.tokens, width)
    into_heads, out_of_heads = fixed(3 * width, width), fixed(width, width)
    up, down = fixed(4 * width, width), fixed(width, 4 * width)
    tiny = images[:, 0, 0].clone()

    def run() -> Tensor:
        launched = tiny
        for _ in range(size.launches):
            launched = launched.neg()
        split = linear(layer_norm(images, (width,)), into_heads)
        split = split.view(size.batch, size.tokens, 3, size.heads, width // size.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(images.shape)
        hidden = images + linear(attended, out_of_heads)
        return hidden + linear(gelu(linear(layer_norm(hidden, (width,)), up)), down)

    return run
