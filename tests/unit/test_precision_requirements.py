"""What a device or an environment lacks for a precision, said by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_vq.precision import requirements
from pytest_vq.precision.precisions import all_precisions, find_precision
from pytest_vq.precision.requirements import (
    fp8_refusal,
    int4wo_refusal,
    int8dyn_refusal,
    int8wo_refusal,
    tf32_refusal,
)
from pytest_vq.schema.spec import Target

CPU = Target(is_accelerator=False)
T4, A100, L4, H100 = (Target(is_accelerator=True, compute_capability=c) for c in ((7, 5), (8, 0), (8, 9), (9, 0)))
NOT_ASKED = Target(is_accelerator=True)
TORCHAO = [fp8_refusal, int4wo_refusal, int8dyn_refusal, int8wo_refusal]


@pytest.mark.parametrize("refuses", [tf32_refusal, *TORCHAO])
def test_an_h100_runs_them_all_and_so_may_a_gpu_that_was_not_asked(refuses) -> None:
    assert refuses(H100) == refuses(NOT_ASKED) == ""


@pytest.mark.parametrize(
    ("refuses", "target", "why"),
    [
        (tf32_refusal, CPU, "TF32 needs an NVIDIA GPU of compute capability 8.0 or later: measure with --gpu"),
        (tf32_refusal, T4, "TF32 needs an NVIDIA GPU of compute capability 8.0 or later, and this one has 7.5"),
        (tf32_refusal, A100, ""),
        (fp8_refusal, CPU, "FP8 needs an NVIDIA GPU of compute capability 8.9 or later: measure with --gpu"),
        (fp8_refusal, A100, "FP8 needs an NVIDIA GPU of compute capability 8.9 or later, and this one has 8.0"),
        (fp8_refusal, L4, ""),
        (int4wo_refusal, CPU, "torchao's 4-bit product needs an NVIDIA GPU of compute capability 8.0 or later: measure "
                              "with --gpu"),
        (int4wo_refusal, T4, "torchao's 4-bit product needs an NVIDIA GPU of compute capability 8.0 or later, and this "
                             "one has 7.5"),
        (int4wo_refusal, A100, ""),
        (int8dyn_refusal, CPU, ""),
        (int8dyn_refusal, T4, "torch's 8-bit product needs an NVIDIA GPU of compute capability 8.0 or later, and this "
                              "one has 7.5"),
        (int8dyn_refusal, A100, ""),
        (int8wo_refusal, CPU, ""),
        (int8wo_refusal, T4, ""),
    ],
)  # fmt: skip
def test_a_device_is_refused_with_what_it_lacks(refuses, target: Target, why: str) -> None:
    assert refuses(target) == why


@pytest.mark.parametrize("refuses", TORCHAO)
def test_a_missing_torchao_is_said_to_be(refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda _: None)
    assert refuses(H100) == "needs pytest-vq[torchao]: pip install 'pytest-vq[torchao]'"


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ("2.8.0+cu128", "torchao needs torch 2.11 or later, and this is torch 2.8.0+cu128"),
        ("2.11.0", ""),
        ("3.0.0a0+git123", ""),
    ],
)
def test_a_torch_that_is_too_old_for_torchao(own: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "version", lambda _: own)
    assert int8wo_refusal(H100) == why


def test_the_studys_precisions_run_everywhere() -> None:
    assert [name for name in ("fp32", "fp16", "bf16", "int8", "int4") if find_precision(name).refusal] == []


def test_asking_loads_neither_torch_nor_torchao() -> None:
    names = [spec.refusal for spec in all_precisions().values() if spec.refusal]
    code = (
        "import sys; from pkgutil import resolve_name; from pytest_vq.schema.spec import Target\n"
        f"for name in {names}: resolve_name(name)(Target(True, (9, 0)))\n"
        "sys.exit(bool({'torch', 'torchao'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
