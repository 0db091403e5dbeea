"""Why a device, or an environment, cannot run a precision, and what to do there. Importing this loads no torch."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from pytest_vq.schema.spec import Target

_Version = tuple[int, int]
_TORCH_FOR_TORCHAO = (2, 11)  # torchao 0.18 says so itself


def tf32_refusal(target: Target) -> str:
    """Why ``target`` does not compute in TF32; empty where it does."""
    return _gpu_refusal(target, "TF32", (8, 0))


def fp8_refusal(target: Target) -> str:
    """Why ``target`` cannot run torchao's FP8 layers; empty where it can."""
    return _gpu_refusal(target, "FP8", (8, 9)) or _torchao_refusal()


def int4wo_refusal(target: Target) -> str:
    """Why ``target`` cannot run torchao's 4-bit layers; empty where it can. For a CPU torchao has a prototype only."""
    return _gpu_refusal(target, "torchao's 4-bit product", (8, 0)) or _torchao_refusal()


def int8wo_refusal(_: Target) -> str:
    """Why torchao's layers of 8-bit weights cannot be had; empty where they can, which is on every device."""
    return _torchao_refusal()


def int8dyn_refusal(target: Target) -> str:
    """Why ``target`` cannot run torchao's layers of 8-bit weights and activations; empty where it can."""
    # torch's 8-bit product works from 8.0 on (pytorch#106840); a CPU's has no such limit.
    refused = _gpu_refusal(target, "torch's 8-bit product", (8, 0)) if target.is_accelerator else ""
    return refused or _torchao_refusal()


def _torchao_refusal() -> str:
    if find_spec("torchao") is None:
        return "needs pytest-vq[torchao]: pip install 'pytest-vq[torchao]'"
    own = version("torch")
    major, minor = (int(part) for part in own.split(".")[:2])
    if (major, minor) < _TORCH_FOR_TORCHAO:
        return f"torchao needs torch {_words(_TORCH_FOR_TORCHAO)} or later, and this is torch {own}"
    return ""


def _gpu_refusal(target: Target, what: str, least: _Version) -> str:
    """Where the compute capability was not asked yet, nothing is refused for it."""
    needs = f"{what} needs an NVIDIA GPU of compute capability {_words(least)} or later"
    if not target.is_accelerator:
        return f"{needs}: measure with --gpu"
    own = target.compute_capability
    return f"{needs}, and this one has {_words(own)}" if own is not None and own < least else ""


def _words(numbers: _Version) -> str:
    return ".".join(map(str, numbers))
