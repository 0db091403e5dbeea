"""What decides a CPU's speed: the instructions that torch uses, and whether it computes in BF16.

Torch is imported when it is asked.
"""

from __future__ import annotations

import platform
from pathlib import Path

# What /proc/cpuinfo calls arithmetic in BF16: on x86 two extensions of AVX-512, on ARM one of NEON.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def cpu_info() -> dict[str, str]:
    """The kernel's description of the first processor; empty where there is none to read."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cpu_name() -> str:
    """What the processor is called; different machines bear one name."""
    return cpu_info().get("model name") or platform.processor() or platform.machine()


def computes_bf16() -> bool:
    """True where the processor computes in BF16, and torch lets it.

    Elsewhere BF16 is converted to FP32 and back around every operation: a linear layer of 768 -> 3072 took 7 times as
    long as in FP32 on a CPU of AVX2. ``ATEN_CPU_CAPABILITY`` can keep torch below what the processor has.
    """
    info = cpu_info()
    flags = set(info.get("flags", info.get("Features", "")).split())
    is_x86 = "flags" in info
    return bool(flags & _BF16_FLAGS) and (not is_x86 or _capability().startswith("avx512"))


def instruction_set() -> str:
    """``avx2``, ``avx512``, ``avx512-bf16``: what tells machines of one name, and their speed, apart."""
    return _capability() + ("-bf16" if computes_bf16() else "")


def _capability() -> str:
    import torch

    return torch.backends.cpu.get_cpu_capability().lower()
