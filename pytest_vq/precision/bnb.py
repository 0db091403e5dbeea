"""LLM.int8 and NF4 by bitsandbytes: from a linear layer to the quantized one that takes its place.

The layers are swapped here and not by transformers' loader, which would quantize the head too and cannot start from a
model that is already built.

Sources: Dettmers et al., LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale (arXiv:2208.07339);
Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs (arXiv:2305.14314) for NF4 and double quantization.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pytest_vq.precision.layers import Copier

OUTLIER_THRESHOLD = 6.0  # of the LLM.int8 paper: activations from here on are multiplied in half precision
# Constraints of bitsandbytes' CPU kernels for NF4: out_features that are no multiple of 32 crash, and in_features that
# are no multiple of the block give wrong values without a word.
_NF4_BLOCK = 64  # weights that share a scale
_CPU_NF4_OUT, _CPU_NF4_IN = 32, _NF4_BLOCK


@contextlib.contextmanager
def _compiling_when_called() -> Iterator[None]:
    """torch.compile that waits for the first call of what it is given.

    bitsandbytes has four functions of its own compiled while it is imported, two of them its optimizers'. Nothing is
    compiled by that yet, but torch loads its compiler, which costs each process that measures INT8 a second more.
    """
    compile_now = torch.compile

    def compile_later(function: Callable[..., Any] | None = None, **given: Any) -> Any:
        if function is None:
            return functools.partial(compile_later, **given)
        compiled = functools.cache(lambda: compile_now(function, **given))
        return functools.wraps(function)(lambda *args, **kwargs: compiled()(*args, **kwargs))

    torch.compile = compile_later  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_now


def _import_bitsandbytes() -> Any:
    """bitsandbytes, imported without reaching out: where the package ``kernels`` is installed, it downloads code."""
    absent = object()
    kernels = sys.modules.get("kernels", absent)
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    sys.modules["kernels"] = None  # type: ignore[assignment]  # an import of it fails, and the built-in kernel is used
    logger.setLevel(logging.ERROR)  # it warns that it could not download
    try:
        with _compiling_when_called():
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
    """``Linear4bit`` for every layout of input, and without a warning for each call.

    Its kernels assume contiguous rows, without a check. Where ``in_features`` is no multiple of the block, the one for
    CUDA dequantizes the weight and multiplies, but first gives a Python warning, at each call (``gemm_4bit`` in
    ``backends/cuda/ops.py`` of 0.50.2). That formats text while a request is timed and, in a suite that turns warnings
    into errors, fails it. pytest sets the filters anew for each test, so no filter of ours would last: the same two
    steps are taken here instead, by the library's public function.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``: floating point [..., in_features]; the result has its type."""
        rows = x if x.is_contiguous() else x.contiguous()
        if self.in_features % _NF4_BLOCK == 0:
            return super().forward(rows)  # type: ignore[no-any-return]
        weight: Tensor = bitsandbytes.functional.dequantize_4bit(self.weight, self.weight.quant_state)
        return nn.functional.linear(rows.to(weight.dtype), weight, self.bias).to(x.dtype)


def int8_layer(linear: nn.Linear, copier: Copier) -> nn.Module:
    """LLM.int8: rows of weights and of activations scaled to 8 bits, outlier columns of activations in FP16."""
    layer: nn.Module = Int8Linear(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER_THRESHOLD,
        device="meta",  # nothing allocated, and the generator not advanced, for weights that are replaced at once
    )
    params = bitsandbytes.nn.Int8Params

    def quantize(weight: Tensor) -> Any:
        return params(weight.detach(), requires_grad=False, has_fp16_weights=False).to(copier.device)

    first = copier.once(linear.weight, quantize)
    # A parameter of its own over the same bytes: the first call takes the scales out of the parameter, and a layer
    # that shared it would then quantize the quantized weights again.
    layer.weight = params(first.data, requires_grad=False, has_fp16_weights=False, CB=first.data, SCB=first.SCB)
    if linear.bias is not None:
        layer.bias = copier.parameter(linear.bias, torch.float16)  # as LLM.int8 adds it, whatever the rest is
    return layer.eval()


def nf4_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    """NF4 with double quantization: 4 bits a weight, a scale of 8 bits for each block of 64."""
    if copier.device.type == "cpu":
        if linear.out_features % _CPU_NF4_OUT:
            return f"out_features {linear.out_features} is not a multiple of {_CPU_NF4_OUT}, as NF4 on a CPU needs"
        if linear.in_features % _CPU_NF4_IN:
            return f"in_features {linear.in_features} is not a multiple of {_CPU_NF4_IN}, as NF4 on a CPU needs"
    layer: nn.Module = NF4Linear(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=copier.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )

    def quantize(weight: Tensor) -> Any:
        return bitsandbytes.nn.Params4bit(
            weight.detach().to(copier.dtype),
            requires_grad=False,
            compress_statistics=True,
            quant_type="nf4",
            module=layer,
        ).to(copier.device)

    quantized = copier.once(linear.weight, quantize)
    layer.weight = quantized
    layer.quant_state = quantized.quant_state
    if linear.bias is not None:
        layer.bias = copier.parameter(linear.bias)
    return layer.eval()
