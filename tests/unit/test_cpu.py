"""Machines of one name that differ in speed are told apart, and BF16 is used where it is computed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from fake_cpu import let_cpu_be

from pytest_vq.device.cpu import computes_bf16, instruction_set
from pytest_vq.device.environment import fingerprint, former_slug

EPYC = "model name\t: AMD EPYC\nflags\t\t: {flags}\n\nmodel name\t: AMD EPYC\n"
NEW = EPYC.format(flags="sse avx2 avx512f avx512_bf16")
OLD = EPYC.format(flags="sse avx2")


@pytest.mark.parametrize(
    ("cpu_info", "capability", "expected"),
    [
        (NEW, "AVX512", "avx512-bf16"),
        (EPYC.format(flags="avx2 avx512f"), "AVX512", "avx512"),
        (EPYC.format(flags="avx2 amx_bf16 avx512f"), "AVX512", "avx512-bf16"),
        (OLD, "AVX2", "avx2"),
        (NEW, "AVX2", "avx2"),  # ATEN_CPU_CAPABILITY keeps torch below what the processor has
        ("Features\t: fp asimd bf16\n", "DEFAULT", "default-bf16"),
        ("Features\t: fp asimd\n", "DEFAULT", "default"),
        (None, "DEFAULT", "default"),
    ],
)
def test_the_instruction_set_names_what_decides_speed(monkeypatch, cpu_info, capability, expected) -> None:
    let_cpu_be(monkeypatch, cpu_info, capability)
    assert instruction_set() == expected
    assert computes_bf16() == expected.endswith("bf16")


def test_two_machines_of_one_name_have_baselines_of_their_own(monkeypatch) -> None:
    slugs = []
    for cpu_info, capability in ((NEW, "AVX512"), (OLD, "AVX2")):
        with monkeypatch.context() as patch:
            let_cpu_be(patch, cpu_info, capability)
            environment = fingerprint(torch.device("cpu"))
            slugs.append((environment.device_slug, former_slug(environment)))
    assert slugs == [("cpu-amd-epyc-avx512-bf16", "cpu-amd-epyc"), ("cpu-amd-epyc-avx2", "cpu-amd-epyc")]


def test_torch_is_asked_what_it_really_uses() -> None:
    code = "from pytest_vq.device.cpu import instruction_set; print(instruction_set())"
    environment = {"ATEN_CPU_CAPABILITY": "default", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "default"
