"""Profiling on a CUDA device: every kernel's time once, and never in a process that measures.

Tests of functions profile this process, so none of them times anything by the host's launches; whole runs are
processes of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import bitsandbytes
import pytest
import torch
from unprofiled import UNPROFILED, stored_entries, take_said

from pytest_vq.device.device import open_device
from pytest_vq.device.peak import peak_stacks
from pytest_vq.device.profile import profile_operators

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
MIB = 2**20
RUN_TIMEOUT_S = 300
SPIN_CYCLES, SHORTEST_SPIN_MS = 20_000_000, 6.6  # on any clock up to 3 GHz


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


@pytest.fixture
def _profiler_sees_kernels() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        torch.zeros(1, device=CUDA).add_(1)
        torch.cuda.synchronize()
    if not sum(event.self_device_time_total for event in profiler.key_averages()):
        pytest.skip("the profiler sees no kernels here: it needs CUPTI, and the right to use it")


def busy_ms(call: Callable[[], object]) -> float:
    """Median milliseconds that the device works on ``call``, by events behind a kernel that lets the host get ahead."""
    times_ms = []
    for _ in range(9):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(SPIN_CYCLES)
        start.record()
        call()
        stop.record()
        stop.synchronize()
        times_ms.append(start.elapsed_time(stop))
    return median(times_ms)


@pytest.mark.usefixtures("_profiler_sees_kernels")
class TestOperators:
    def test_their_time_is_what_the_device_works_and_not_twice_that(self) -> None:
        square = torch.randn(2048, 2048, device=CUDA)

        def call() -> torch.Tensor:
            product = square
            for _ in range(10):
                product = square @ product
            return product

        call()
        worked_ms = busy_ms(call)
        found = profile_operators(call, CUDA)
        total_ms = sum(operator.self_ms for operator in found.values())
        assert worked_ms / 1.3 < total_ms < worked_ms * 1.3
        assert found["aten::mm"].calls == 10
        assert found["aten::mm"].self_ms > 0.9 * total_ms

    def test_what_bitsandbytes_launches_is_its_operators(self) -> None:
        eight = bitsandbytes.nn.Linear8bitLt(512, 512, has_fp16_weights=False, threshold=6.0).to(CUDA)
        four = bitsandbytes.nn.Linear4bit(512, 512, compute_dtype=torch.float16, quant_type="nf4").to(CUDA)
        images = torch.randn(64, 512, device=CUDA, dtype=torch.float16)

        def call() -> torch.Tensor:
            return four(eight(images))

        with torch.inference_mode():
            call()
            found = profile_operators(call, CUDA)
        timed = {name: operator.self_ms for name, operator in found.items() if operator.self_ms > 0}
        assert found["bitsandbytes::int8_linear_matmul"].self_ms > 0
        assert [name for name in timed if not name.startswith(("aten::", "bitsandbytes::"))] == []

    def test_what_is_launched_past_the_dispatcher_has_its_own_name(self) -> None:
        tiny = torch.zeros(1, device=CUDA)

        def call() -> None:
            torch.cuda._sleep(SPIN_CYCLES)
            tiny.add_(1)

        call()
        found = profile_operators(call, CUDA)
        (spin,) = (name for name in found if "spin" in name)
        assert found[spin].calls == 1
        assert found[spin].self_ms > SHORTEST_SPIN_MS
        assert found["aten::add_"].calls == 1

    def test_who_holds_memory_is_told(self) -> None:
        kept: list[torch.Tensor] = []

        def call() -> None:
            kept.append(torch.zeros(8 * MIB, dtype=torch.uint8, device=CUDA))

        call()
        found = profile_operators(call, CUDA)
        assert found["aten::empty"].self_bytes == 8 * MIB


def test_the_peak_is_that_of_the_call() -> None:
    def hold(mib: int) -> torch.Tensor:
        return torch.zeros(mib * MIB, dtype=torch.uint8, device=CUDA)

    def call() -> None:
        hold(64)
        hold(32)

    for _ in range(2):  # the first call's history is none of the second's
        (sentence,) = peak_stacks(call, CUDA)
        assert sentence.startswith("64.0 MiB at the peak (100%) from test_profile_gpu.py:")


def test_a_gpu_keeps_the_profiler() -> None:
    assert open_device(gpu=True, threads=1).keeps_profiler


CONFTEST = """
from torch import nn

import pytest_vq


@pytest_vq.register_model("my-net", input_shape=(3, 16, 16), head="head")
def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 256), nn.GELU(), nn.Linear(256, 256))
    net.add_module("head", nn.Linear(256, 10))
    return net
"""
TEST = """
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""


class TestRuns:
    @pytest.fixture
    def project(self, pytester: pytest.Pytester) -> pytest.Pytester:
        """A user's project whose measuring processes cannot be profiled; each process says what it is for."""
        pytester.makeini("[pytest]\naddopts = -p no:randomly\nvq_budget = 1\n")
        pytester.makeconftest(CONFTEST + UNPROFILED)
        pytester.makepyfile(test_my_bench=TEST)
        return pytester

    def run(self, project: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, list[str]]:
        result = project.runpytest_subprocess("--gpu", *arguments, timeout=RUN_TIMEOUT_S)
        return result, take_said(project.path)

    def test_a_recording_run_leaves_operators_and_is_never_profiled_itself(self, project) -> None:
        result, said = self.run(project, "--vq-save")
        assert result.ret == 0
        assert said == ["measures", "profiles"]
        stored = [entry["operators"] for entry in stored_entries(project.path)]
        assert len(stored) == 4
        for operators in stored:
            assert sum(operator["self_ms"] for operator in operators.values()) > 0
            assert not any(name.startswith("void ") for name in operators)  # no kernels beside their operators
        result, said = self.run(project, "--vq-save")
        assert (result.ret, said) == (0, ["measures"])

    def test_a_failure_is_explained_and_the_run_goes_on_unprofiled(self, project) -> None:
        both = ("--vq-precisions=fp16,int8",)
        assert self.run(project, *both, "--vq-save")[0].ret == 0
        provoked = ("-p", "pytest_vq.plugin.provoke", "--provoke-allocation=fp16=64")
        result, said = self.run(project, *both, *provoked)
        assert result.ret == 1
        result.assert_outcomes(failed=1, passed=1)
        assert said.count("profiles") == 1
        result.stdout.fnmatch_lines(["*keeps 64.0 MiB that it allocates*", "*64.0 MiB at the peak*provoke.py:*"])
