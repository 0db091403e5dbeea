"""LLM.int8 and NF4 by bitsandbytes: each eligible linear layer is replaced, the rest is held in half precision.

The layers are swapped here and not by transformers' loader, which would quantize the head too and cannot start from a
model that is already built.

Sources: Dettmers et al., LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale (arXiv:2208.07339);
Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs (arXiv:2305.14314) for NF4 and double quantization.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.errors import PrecisionError
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.layers import Copier, eligible_layers, tied_outside
from pytest_vq.record import Coverage

OUTLIER_THRESHOLD = 6.0  # of the LLM.int8 paper: activations from here on are multiplied in half precision
# Constraints of bitsandbytes' CPU kernels for NF4: out_features that are no multiple of 32 crash, and in_features that
# are no multiple of the block of 64 weights give wrong values without a word.
_CPU_NF4_OUT, _CPU_NF4_IN = 32, 64
# What a layer must reach on Gaussian weights: about 10 dB less than it does, and far above what a wrong kernel gives.
_MIN_TRIAL_SQNR_DB = {"int8": 25.0, "int4": 10.0}


def _import_bitsandbytes() -> Any:
    """bitsandbytes, imported without reaching out: where the package ``kernels`` is installed, it downloads code."""
    absent = object()
    kernels = sys.modules.get("kernels", absent)
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    sys.modules["kernels"] = None  # type: ignore[assignment]  # an import of it fails, and the built-in kernel is used
    logger.setLevel(logging.ERROR)  # it warns that it could not download
    try:
        import bitsandbytes
        import bitsandbytes.nn
    finally:
        logger.setLevel(level)
        if kernels is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels  # type: ignore[assignment]
    return bitsandbytes


bitsandbytes = _import_bitsandbytes()
_Linear8bitLt: Any = bitsandbytes.nn.Linear8bitLt
_Linear4bit: Any = bitsandbytes.nn.Linear4bit


class Int8Linear(_Linear8bitLt):  # type: ignore[misc]
    """``Linear8bitLt`` for every shape of input.

    bitsandbytes reads activations as if they were contiguous and at most three-dimensional, without a check: its CUDA
    kernel takes a slice such as the class tokens ``hidden[:, 0]`` of a batch for consecutive memory. It also logs a
    warning for each call that is not in FP16, so other types are cast here.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``: floating point [..., in_features]; the result has its type."""
        if x.dtype is torch.float16 and x.dim() in (2, 3) and x.is_contiguous():
            return super().forward(x)  # type: ignore[no-any-return]
        rows = x.to(torch.float16).reshape(-1, x.shape[-1]).contiguous()
        output: Tensor = super().forward(rows).to(x.dtype)
        return output.view(*x.shape[:-1], self.out_features)


class NF4Linear(_Linear4bit):  # type: ignore[misc]
    """``Linear4bit`` for every layout of input: its kernels assume contiguous rows, without a check."""

    def forward(self, x: Tensor) -> Tensor:
        """``x``: floating point [..., in_features]; the result has its type."""
        return super().forward(x if x.is_contiguous() else x.contiguous())  # type: ignore[no-any-return]


def int8(source: nn.Module, *, device: torch.device, heads: Sequence[str]) -> Converted:
    """LLM.int8: rows of weights and of activations scaled to 8 bits, outlier columns of activations in FP16."""
    layers = eligible_layers(source, heads)
    return _convert(source, "int8", "LLM.int8", device, layers, {})


def int4(source: nn.Module, *, device: torch.device, heads: Sequence[str]) -> Converted:
    """NF4 with double quantization; layers that bitsandbytes' CPU kernels get wrong are left, and named."""
    layers = eligible_layers(source, heads)
    left = {name: why for name, layer in layers.items() if (why := _why_not_nf4(layer, device))}
    return _convert(source, "int4", "NF4", device, layers, left)


def _why_not_nf4(layer: nn.Linear, device: torch.device) -> str:
    if device.type != "cpu":
        return ""
    if layer.out_features % _CPU_NF4_OUT:
        return f"out_features {layer.out_features} is not a multiple of {_CPU_NF4_OUT}, as NF4 on a CPU needs"
    if layer.in_features % _CPU_NF4_IN:
        return f"in_features {layer.in_features} is not a multiple of {_CPU_NF4_IN}, as NF4 on a CPU needs"
    return ""


def _convert(
    source: nn.Module,
    kind: str,
    scheme: str,
    device: torch.device,
    layers: Mapping[str, nn.Linear],
    left: Mapping[str, str],
) -> Converted:
    """The copy of ``source`` with ``layers`` quantized, except those ``left`` and those whose weight others use too."""
    # FP16 convolutions are some 30 times slower than FP32's on a CPU; BF16 ones are not.
    dtype, rest = (torch.bfloat16, "bf16") if device.type == "cpu" else (torch.float16, "fp16")
    tied = dict.fromkeys(tied_outside(source, layers), "its weight is shared with a module that is not quantized")
    left = {**tied, **left}
    chosen = {name: layer for name, layer in layers.items() if name not in left}
    for shape in {(layer.in_features, layer.out_features) for layer in chosen.values()}:
        _try_shape(kind, *shape, device)
    copier = Copier(device, dtype)
    build = _LAYERS[kind](copier)
    module = copier.model(source, {layer: build(layer) for layer in chosen.values()})
    _keep_to_calls(module)
    coverage = Coverage(eligible=len(layers), quantized=len(chosen), left=left)
    return Converted(module, f"bitsandbytes {scheme}, {rest} rest", dtype, coverage)


def _keep_to_calls(module: nn.Module) -> None:
    # torch's fused encoder layer reads linear1.weight and linear2.weight itself; this turns that path off.
    for layer in module.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0


def _int8_builder(copier: Copier) -> Callable[[nn.Linear], nn.Module]:
    # Biases are FP16 as LLM.int8 adds them, whatever the rest is.
    biases = Copier(copier.device, torch.float16)
    stored: dict[int, Any] = {}

    def build(linear: nn.Linear) -> nn.Module:
        layer: nn.Module = Int8Linear(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            has_fp16_weights=False,
            threshold=OUTLIER_THRESHOLD,
            device="meta",  # nothing allocated, and the generator not advanced, for weights that are replaced at once
        )
        params = bitsandbytes.nn.Int8Params
        if id(linear.weight) not in stored:  # moving to the device quantizes
            weight = params(linear.weight.detach(), requires_grad=False, has_fp16_weights=False)
            stored[id(linear.weight)] = weight.to(copier.device)
        first = stored[id(linear.weight)]
        # A parameter of its own over the same bytes: the first call takes the scales out of the parameter, and a layer
        # that shared it would then quantize the quantized weights again.
        layer.weight = params(first.data, requires_grad=False, has_fp16_weights=False, CB=first.data, SCB=first.SCB)
        if linear.bias is not None:
            layer.bias = biases.parameter(linear.bias)
        return layer.eval()

    return build


def _nf4_builder(copier: Copier) -> Callable[[nn.Linear], nn.Module]:
    stored: dict[int, Any] = {}

    def build(linear: nn.Linear) -> nn.Module:
        layer: nn.Module = NF4Linear(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=copier.dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        if id(linear.weight) not in stored:
            weight = bitsandbytes.nn.Params4bit(
                linear.weight.detach().to(copier.dtype),
                requires_grad=False,
                compress_statistics=True,
                quant_type="nf4",
                module=layer,
            )
            stored[id(linear.weight)] = weight.to(copier.device)
        layer.weight = stored[id(linear.weight)]
        layer.quant_state = stored[id(linear.weight)].quant_state
        if linear.bias is not None:
            layer.bias = copier.parameter(linear.bias)
        return layer.eval()

    return build


_LAYERS: Mapping[str, Callable[[Copier], Callable[[nn.Linear], nn.Module]]] = {
    "int8": _int8_builder,
    "int4": _nf4_builder,
}


@functools.cache
def _try_shape(kind: str, in_features: int, out_features: int, device: torch.device) -> None:
    """Multiply with a throwaway layer of this shape once, because which kernel runs depends on shape and device.

    Raises:
        PrecisionError: the result is not that of the weights it was given.
    """
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(in_features, out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(torch.randn(out_features, in_features, generator=generator), requires_grad=False)
    dtype = torch.bfloat16 if device.type == "cpu" else torch.float16
    layer = _LAYERS[kind](Copier(device, dtype))(linear)
    for rows in (1, 5):
        inputs = torch.randn(rows, in_features, generator=generator)
        expected = inputs @ linear.weight.T
        with torch.inference_mode():
            noise = layer(inputs.to(device, dtype)).float().cpu() - expected
        sqnr_db = 10 * torch.log10(expected.square().mean() / noise.square().mean()).item()
        if not sqnr_db >= _MIN_TRIAL_SQNR_DB[kind]:  # NaN included
            raise PrecisionError(
                f"bitsandbytes {bitsandbytes.__version__} computes wrong values at {kind} on {device}: a linear layer "
                f"{in_features} -> {out_features} with {rows} rows reaches {sqnr_db:.1f} dB, where at least "
                f"{_MIN_TRIAL_SQNR_DB[kind]:.0f} are expected. Try another version of bitsandbytes"
            )
