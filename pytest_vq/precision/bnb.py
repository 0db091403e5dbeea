"""LLM.int8 and NF4 by bitsandbytes: each eligible linear layer is replaced, the rest is held in half precision.

The layers are swapped here and not by transformers' loader, which would quantize the head too and cannot start from a
model that is already built.

Sources: Dettmers et al., LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale (arXiv:2208.07339);
Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs (arXiv:2305.14314) for NF4 and double quantization.
"""

from __future__ import annotations

import functools
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.precision.converted import Converted
from pytest_vq.precision.layers import Copier, eligible_layers, tied_outside
from pytest_vq.schema.record import Coverage

OUTLIER_THRESHOLD = 6.0  # of the LLM.int8 paper: activations from here on are multiplied in half precision
# Constraints of bitsandbytes' CPU kernels for NF4: out_features that are no multiple of 32 crash, and in_features that
# are no multiple of the block of 64 weights give wrong values without a word.
_CPU_NF4_OUT, _CPU_NF4_IN = 32, 64
# What a layer must reach on Gaussian weights: half of what it does, and far above what a wrong kernel gives (about 0).
_MIN_TRIAL_SQNR_DB = {"int8": 20.0, "int4": 10.0}


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
    return _convert(source, "int8", "LLM.int8", device, heads)


def int4(source: nn.Module, *, device: torch.device, heads: Sequence[str]) -> Converted:
    """NF4 with double quantization: 4 bits a weight, a scale of 8 bits for each block of 64."""
    return _convert(source, "int4", "NF4", device, heads)


def _rest_dtype(device: torch.device) -> torch.dtype:
    # FP16 convolutions are some 30 times slower than FP32's on a CPU; BF16 ones are not.
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def _convert(source: nn.Module, kind: str, scheme: str, device: torch.device, heads: Sequence[str]) -> Converted:
    """The copy of ``source`` with every layer quantized that can be; the others are named with their reason."""
    layers = eligible_layers(source, heads)
    left = dict.fromkeys(tied_outside(source, layers), "its weight is shared with a module that is not quantized")
    for name, layer in layers.items():
        if name not in left and (why := _why_not(kind, layer.in_features, layer.out_features, device)):
            left[name] = why
    dtype = _rest_dtype(device)
    copier = Copier(device, dtype)
    build = _LAYERS[kind](copier)
    chosen = [layer for name, layer in layers.items() if name not in left]
    module = copier.model(source, {layer: build(layer) for layer in chosen})
    _keep_to_calls(module)
    coverage = Coverage(eligible=len(layers), quantized=len(chosen), left=left)
    rest = "bf16" if dtype is torch.bfloat16 else "fp16"
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


def _ratio_db(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise else math.inf


@functools.cache
def _why_not(kind: str, in_features: int, out_features: int, device: torch.device) -> str:
    """Why a layer of this shape cannot be ``kind`` on ``device``; empty if it can.

    Which kernel runs depends on shape, device and version, so a throwaway layer of each shape is tried once: a kernel
    that fails, or gives something else than its weights say, is not measured.
    """
    if kind == "int4" and device.type == "cpu":
        if out_features % _CPU_NF4_OUT:
            return f"out_features {out_features} is not a multiple of {_CPU_NF4_OUT}, as NF4 on a CPU needs"
        if in_features % _CPU_NF4_IN:
            return f"in_features {in_features} is not a multiple of {_CPU_NF4_IN}, as NF4 on a CPU needs"
    try:
        sqnr_db = _trial_sqnr_db(kind, in_features, out_features, device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # about the device, not about the shape
    except (RuntimeError, ValueError, AssertionError) as error:
        return f"bitsandbytes {bitsandbytes.__version__} fails at {in_features} -> {out_features}: {error}"
    if sqnr_db >= _MIN_TRIAL_SQNR_DB[kind]:
        return ""
    return (
        f"bitsandbytes {bitsandbytes.__version__} gives wrong values at {in_features} -> {out_features}: "
        f"{sqnr_db:.1f} dB, where at least {_MIN_TRIAL_SQNR_DB[kind]:.0f} are expected"
    )


def _trial_sqnr_db(kind: str, in_features: int, out_features: int, device: torch.device) -> float:
    """The worse SQNR, in dB against FP32, of one row and of five Gaussian ones through a layer of Gaussian weights."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(in_features, out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(torch.randn(out_features, in_features, generator=generator), requires_grad=False)
    dtype = _rest_dtype(device)
    layer = _LAYERS[kind](Copier(device, dtype))(linear)
    worst_db = math.inf
    for rows in (1, 5):
        inputs = torch.randn(rows, in_features, generator=generator)
        with torch.inference_mode():
            noise = layer(inputs.to(device, dtype)).float().cpu() - inputs @ linear.weight.T
        # What such products have on average, not these few: one output may be near zero by chance.
        noise_power = float(noise.square().mean())
        worst_db = min(worst_db, _ratio_db(in_features, noise_power))
    return worst_db
