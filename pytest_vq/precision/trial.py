"""Does a quantized layer of this shape compute what its weights say? Tried on a throwaway layer.

Which kernel runs depends on shape, device and version. A kernel that fails, or gives something else than its weights
say, is found here and not measured.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from pytest_vq.errors import first_line
from pytest_vq.precision.converted import LayerBuilder
from pytest_vq.precision.fidelity import ratio_db
from pytest_vq.precision.layers import Copier

# One row often takes a kernel of its own (a matrix-vector product), and up to 16 rows a GPU's 8-bit product does not.
_ROWS = (1, 5, 33)


@functools.cache
def fault_of_shape(
    builder: LayerBuilder, shape: tuple[int, int], device: torch.device, dtype: torch.dtype, min_sqnr_db: float
) -> str:
    """Why a layer of ``shape`` (in, out features) cannot be quantized by ``builder`` on ``device``; empty if it can.

    ``dtype`` is the type of its inputs and of what stays unquantized. Shapes are tried once.
    """
    in_features, out_features = shape
    try:
        sqnr_db = _trial_sqnr_db(builder, shape, Copier(device, dtype))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # about the device, not about the shape
    except (RuntimeError, ValueError, AssertionError) as error:
        return f"the library fails at {in_features} -> {out_features}: {first_line(error)}"
    if isinstance(sqnr_db, str):
        return sqnr_db
    if sqnr_db >= min_sqnr_db:
        return ""
    return (
        f"the library gives wrong values at {in_features} -> {out_features}: {sqnr_db:.1f} dB, where at least "
        f"{min_sqnr_db:.0f} are expected"
    )


def _trial_sqnr_db(builder: LayerBuilder, shape: tuple[int, int], copier: Copier) -> float | str:
    """The worst SQNR, in dB against FP32, of a few Gaussian rows through a layer of Gaussian weights; or why not."""
    in_features, out_features = shape
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(in_features, out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(torch.randn(out_features, in_features, generator=generator), requires_grad=False)
    layer = builder(linear, copier)
    if isinstance(layer, str):
        return layer
    worst_db = math.inf
    for rows in _ROWS:
        inputs = torch.randn(rows, in_features, generator=generator)
        with torch.inference_mode():
            noise = layer(inputs.to(copier.device, copier.dtype)).float().cpu() - inputs @ linear.weight.T
        # What such products have on average, not these few: one output may be near zero by chance.
        worst_db = min(worst_db, ratio_db(in_features, float(noise.square().mean())))
    return worst_db
