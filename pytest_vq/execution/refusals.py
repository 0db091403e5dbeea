"""Why a device cannot run an execution, and what to do there. Importing this loads no torch."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

from pytest_vq.schema.spec import Target

_LEAST_FOR_TRITON = (7, 0)  # compute capability


def compile_refusal(target: Target) -> str:
    """Why ``target`` cannot run what torch.compile makes; empty where it can."""
    return _triton_refusal(target) if target.is_accelerator else _compiler_refusal()


def graph_refusal(target: Target) -> str:
    """Why ``target`` cannot replay a CUDA graph; empty where it can."""
    if target.is_accelerator:
        return ""
    return "a CUDA graph needs an NVIDIA GPU: measure with --gpu, or take +compile, which also runs on a CPU"


def compiled_graph_refusal(target: Target) -> str:
    """Why ``target`` cannot replay a CUDA graph of what torch.compile makes; empty where it can."""
    return graph_refusal(target) or compile_refusal(target)


def _triton_refusal(target: Target) -> str:
    if find_spec("triton") is None:
        return (
            "torch.compile writes a GPU's kernels in Triton, and the package triton is not installed: install it, or a "
            "CUDA build of torch from PyPI, which brings it"
        )
    capability = target.compute_capability
    if capability is not None and capability < _LEAST_FOR_TRITON:
        own, least = (".".join(map(str, version)) for version in (capability, _LEAST_FOR_TRITON))
        return f"torch.compile's kernels need compute capability {least}, and this GPU has {own}: take it eagerly"
    return ""


def _compiler_refusal() -> str:
    """Looks where inductor does: for ``CXX``, else for the platform's usual compiler."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is not None:
        return ""
    return (
        f"torch.compile needs a C++ compiler on a CPU, and there is no {compiler}: install one (on Debian and Ubuntu "
        "apt-get install g++), or name yours in the variable CXX"
    )
