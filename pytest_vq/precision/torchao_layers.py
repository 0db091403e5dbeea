"""torchao's 8-bit and 4-bit layers: from a linear layer to the one of a quantized weight that takes its place.

torchao puts a tensor of its own into a linear layer, one that holds 8-bit codes and scales and answers for the weight.
What it does not take it leaves as it was, with a line in a log; here the layer is left with that as the reason.

Layers of few rows are no better off: on a GPU ``int8dyn`` multiplies 16 rows or fewer in FP32 and, compiled, raises
(ao#2376). Heads, which see a row an image, stay unquantized at every precision.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from pytest_vq.precision.layers import Copier
from pytest_vq.precision.tensors import is_wrapper


@contextlib.contextmanager
def _only_errors_logged(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# It warns that extensions for other machines do not load here, and torch that torchao registers enumerations.
with _only_errors_logged("torchao", "torch.utils._pytree"):
    from torchao import quantization as ao
    from torchao.utils import should_reduce_range

_INT8_GPU_MULTIPLE = 8  # of both features: torchao multiplies others on the CPU, which waits for the device each time
_FP8_MULTIPLE = 16  # of both features: torchao leaves others, because FP8's matrix product takes no others
_INT4_GROUP = 128  # weights that share a scale, as torchao has it by default: it leaves rows that are no multiple


def int8wo_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    """8-bit weights with a scale a row, multiplied in the type of the rest."""
    return _layer(linear, copier, ao.Int8WeightOnlyConfig(set_inductor_config=False))


def int8dyn_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    """8-bit weights with a scale a row, and activations rounded to 8 bits, a scale a row, at each call."""
    if copier.device.type != "cpu":
        why = _not_multiple(linear, _INT8_GPU_MULTIPLE, "8-bit products on a GPU need")
        if why:
            return why
    # Without VNNI, a CPU adds products of 8 bits up in 16, which overflow: there 7 bits are used of the 8.
    reduced = should_reduce_range(copier.device)
    config = ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=reduced)
    return _layer(linear, copier, config)


def int4wo_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    """4-bit weights in groups of 128 with a scale and a zero point each, in tiles as a GPU's kernel reads them.

    The tiles fill rows up to a multiple of 1,024, which is stored too: layers of other widths can take more bits than
    their name allows, and are then left (see ``bits.bits_fault``).
    """
    if linear.in_features % _INT4_GROUP:
        return f"in_features {linear.in_features} is not a multiple of {_INT4_GROUP}, the weights that share a scale"
    config = ao.Int4WeightOnlyConfig(
        group_size=_INT4_GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )
    return _layer(linear, copier, config)


def fp8_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    """E4M3 weights with a scale a row, and activations rounded to E4M3, a scale a row, at each call."""
    why = _not_multiple(linear, _FP8_MULTIPLE, "FP8's products need")
    if why:
        return why
    config = ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow(), set_inductor_config=False)
    return _layer(linear, copier, config)


def _not_multiple(linear: nn.Linear, multiple: int, needs: str) -> str:
    for name in ("in_features", "out_features"):
        features = getattr(linear, name)
        if features % multiple:
            return f"{name} {features} is not a multiple of {multiple}, as {needs}"
    return ""


def _layer(linear: nn.Linear, copier: Copier, config: Any) -> nn.Module | str:
    """A linear layer with the weight that torchao makes of ``linear``'s by ``config``; why not, where it makes none."""
    quantized: nn.Parameter = copier.once(linear.weight, _quantizer(copier, config))
    if not is_wrapper(quantized):
        return f"torchao leaves a layer of {linear.in_features} -> {linear.out_features} as it is, and does not say why"
    layer = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    layer.weight = quantized
    if linear.bias is not None:
        layer.bias = copier.parameter(linear.bias)
    return layer.eval()


def _quantizer(copier: Copier, config: Any) -> Callable[[Tensor], nn.Parameter]:
    def quantize(weight: Tensor) -> nn.Parameter:
        # In the rest's type before it is quantized: a cast afterwards would leave the scales of the type it had. On a
        # layer of its own, because torchao also gives the layer another text to print.
        carrier = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        carrier.weight = nn.Parameter(weight.detach().to(copier.device, copier.dtype), requires_grad=False)
        ao.quantize_(carrier, config)
        return carrier.weight

    return quantize
