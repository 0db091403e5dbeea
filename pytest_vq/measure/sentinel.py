"""A fixed reference workload, interleaved with every pair.

Its own time says how fast the machine was while the pair was measured, so that a slow hour is not read as a slow model.
"""

from __future__ import annotations

import torch

from pytest_vq.measure.clock import Call

_SIZE = {"cpu": 384, "cuda": 4096}  # a few milliseconds of the matrix products that vision transformers live on


def sentinel(device: torch.device) -> Call:
    """A call that multiplies two fixed FP32 matrices on ``device``."""
    size = _SIZE.get(device.type, _SIZE["cuda"])
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device) for _ in range(2))
    product = torch.empty(size, size, device=device)

    def run() -> torch.Tensor:
        return torch.mm(left, right, out=product)

    return run
