"""Measuring on a CUDA device: events, memory, device time, telemetry, the lock, and the way on after an error.

Whole runs are processes of their own: a crashed kernel takes its process's device with it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
import torch
from fp32_ways import WAYS, Way, describe, go

from pytest_vq.device.clock import EventClock
from pytest_vq.device.device import Device, guarded, open_device
from pytest_vq.device.device_time import device_time_ms
from pytest_vq.device.environment import fingerprint, slug
from pytest_vq.device.lock import device_lock
from pytest_vq.device.memory import AcceleratorMemory, MemoryReading
from pytest_vq.device.pinned import pin_storages, release_pinned
from pytest_vq.device.telemetry import GpuTelemetry
from pytest_vq.errors import DeviceOutOfMemoryError
from pytest_vq.measure.energy import energy_per_image_mj
from pytest_vq.measure.sentinel import sentinel
from pytest_vq.precision.fp32 import true_fp32

pytestmark = pytest.mark.gpu
MIB = 2**20
CUDA = torch.device("cuda", 0)
RUN_TIMEOUT_S = 300


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu().double() - expected).norm() / expected.norm())


def bytes_on_device(mib: int) -> torch.Tensor:
    return torch.zeros(mib * MIB, dtype=torch.uint8, device=CUDA)


@pytest.fixture(scope="module")
def gpu() -> Device:
    return open_device(gpu=True, threads=1)


@pytest.fixture(autouse=True)
def own_locks_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with true_fp32():  # which puts back whatever a test sets
        yield
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


SPIN_CYCLES, SHORTEST_SPIN_MS = 20_000_000, 6.6  # on any clock up to 3 GHz


def spin() -> None:
    """Keep the device, but not the host, busy for some milliseconds. torch has no public way to."""
    torch.cuda._sleep(SPIN_CYCLES)


class TestEvents:
    def test_they_time_what_the_device_does_not_what_the_host_waits_for(self) -> None:
        clock = EventClock(CUDA)
        clock.time_ms(spin, 2)
        for _ in range(100):  # two thirds of a second of work for the device
            spin()
        assert not torch.cuda.current_stream(CUDA).query()  # the host is long back
        torch.cuda.synchronize()
        started = time.perf_counter()
        times = clock.time_ms(spin, 5)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        assert len(times) == 5
        assert min(times) > SHORTEST_SPIN_MS
        assert sum(times) <= elapsed_ms * 1.01  # and each interval was waited for

    def test_an_interval_of_several_calls_is_shared_among_them(self) -> None:
        clock = EventClock(CUDA)
        calls = []

        def call() -> None:
            calls.append(1)
            spin()

        alone, together = clock.time_ms(call, 3), clock.time_ms(call, 3, 4)
        assert len(calls) == 3 + 12
        assert len(together) == 3
        assert min(together) > SHORTEST_SPIN_MS
        assert min(together) < 2 * max(alone)

    def test_launches_count_as_a_caller_waits_for_them(self) -> None:
        tiny = torch.zeros(1, device=CUDA)

        def call() -> None:
            time.sleep(0.005)
            tiny.add_(1)

        assert min(EventClock(CUDA).time_ms(call, 3)) >= 4.9


def event_time_ms(call: Callable[[], object]) -> float:
    call()
    return median(EventClock(CUDA).time_ms(call, 9))


@pytest.fixture
def spins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cycles of each kernel that was made to spin."""
    given: list[int] = []
    sleep = torch.cuda._sleep

    def noted(cycles: int) -> None:
        given.append(cycles)
        sleep(cycles)

    monkeypatch.setattr(torch.cuda, "_sleep", noted)
    return given


class TestDeviceTime:
    def test_of_a_call_that_waits_for_its_host(self) -> None:
        tiny = torch.zeros(1, device=CUDA)

        def call() -> None:
            time.sleep(0.005)
            tiny.add_(1)

        latency_ms = event_time_ms(call)
        found = device_time_ms(call, latency_ms)
        assert found is not None
        assert 0 < found < 1 < latency_ms

    def test_of_a_call_that_keeps_the_device_busy(self) -> None:
        latency_ms = event_time_ms(spin)
        found = device_time_ms(spin, latency_ms)
        assert found is not None
        assert SHORTEST_SPIN_MS < found < 1.3 * latency_ms

    def test_a_call_that_waits_for_the_device_itself_has_none_and_is_tried_twice(self, spins: list[int]) -> None:
        square = torch.randn(2048, 2048, device=CUDA)

        def call() -> float:  # as LLM.int8 does, looking for outliers
            return float((square @ square).sum())

        assert device_time_ms(call, event_time_ms(call)) is None
        assert len(spins) == 2

    def test_more_launches_than_the_queue_holds_have_none(self, spins: list[int]) -> None:
        tiny = torch.zeros(1, device=CUDA)

        def call() -> None:
            for _ in range(20_000):
                tiny.add_(1)

        latency_ms = event_time_ms(call)
        if latency_ms > 160:
            pytest.skip(f"this host launches too slowly to be spun for: {latency_ms:.0f} ms")
        assert device_time_ms(call, latency_ms) is None
        assert len(spins) == 2

    def test_a_call_too_long_to_hide_is_not_spun_for(self, spins: list[int]) -> None:
        square = torch.randn(2048, 2048, device=CUDA)
        assert device_time_ms(lambda: square @ square, latency_ms=60_000.0) is None
        assert spins == []


class TestMemory:
    def test_figures_are_exact(self) -> None:
        others = bytes_on_device(32)  # held before: no part of it
        meter = AcceleratorMemory(CUDA)
        meter.mark()
        held = bytes_on_device(64)

        def call() -> torch.Tensor:
            return bytes_on_device(128) + 1

        figures = meter.measure(call)
        assert held.numel() + others.numel() == 96 * MIB
        assert figures.resting_bytes == 64 * MIB
        assert figures.peak_bytes == (64 + 128 + 128) * MIB
        assert figures.activation_bytes == 256 * MIB
        assert figures.workspace_bytes == 0  # no matrix product: cuBLAS took nothing
        assert figures.reserved_bytes is not None
        assert figures.reserved_bytes >= figures.peak_bytes

    def test_blocks_larger_than_what_they_hold_are_not_counted(self) -> None:
        meter = AcceleratorMemory(CUDA)
        meter.mark()
        allocated = torch.cuda.memory_allocated(CUDA)
        held = bytes_on_device(25)
        assert torch.cuda.memory_allocated(CUDA) - allocated > 25 * MIB  # the block is not split for what is left of it
        figures = meter.measure(lambda: torch.empty(3, dtype=torch.uint8, device=CUDA))
        assert held.is_cuda
        assert (figures.resting_bytes, figures.peak_bytes) == (25 * MIB, 25 * MIB + 3)

    def test_an_earlier_peak_and_a_first_call_do_not_count(self) -> None:
        bytes_on_device(1024)
        meter = AcceleratorMemory(CUDA)
        meter.mark()
        bytes_on_device(512)
        figures = meter.measure(lambda: bytes_on_device(32))
        assert figures.resting_bytes == 0
        assert figures.peak_bytes == 32 * MIB

    def test_workspaces_are_told_apart_whatever_ran_before(self) -> None:
        def measure() -> MemoryReading:
            meter = AcceleratorMemory(CUDA)
            meter.mark()
            square = torch.randn(1024, 1024, device=CUDA)
            square @ square  # takes the workspace
            return meter.measure(lambda: square @ square)

        first = measure()
        assert (first.resting_bytes, first.peak_bytes) == (4 * MIB, 8 * MIB)
        assert first.workspace_bytes is not None
        assert first.workspace_bytes >= MIB
        large = torch.randn(4096, 4096, device=CUDA, dtype=torch.float16)
        large @ large
        del large
        again = measure()
        assert again.workspace_bytes == first.workspace_bytes
        assert (again.resting_bytes, again.peak_bytes) == (4 * MIB, 8 * MIB)

    def test_the_workspace_of_a_layer_with_a_bias_is_told_apart_too(self) -> None:
        # With a bias torch may call cuBLASLt, which has a workspace of its own.
        meter = AcceleratorMemory(CUDA)
        meter.mark()
        layer = torch.nn.Linear(1024, 1024, device=CUDA, dtype=torch.float16).requires_grad_(False)
        images = torch.randn(512, 1024, device=CUDA, dtype=torch.float16)
        layer(images)
        figures = meter.measure(lambda: layer(images))
        assert (figures.resting_bytes, figures.activation_bytes) == (3 * MIB + 2048, MIB)
        assert figures.workspace_bytes is not None
        assert figures.workspace_bytes >= MIB

    def test_what_ran_on_after_the_workspace_was_given_back_is_still_right(self) -> None:
        meter = AcceleratorMemory(CUDA)
        meter.mark()
        square = torch.randn(512, 512, device=CUDA)
        expected = square @ square
        meter.measure(lambda: square @ square)
        assert torch.equal(square @ square, expected)

    def test_an_allocation_that_was_retried_makes_no_peak(self) -> None:
        meter = AcceleratorMemory(CUDA)
        meter.mark()
        total = torch.cuda.get_device_properties(CUDA).total_memory
        room = torch.cuda.memory_reserved(CUDA) + 512 * MIB
        torch.cuda.set_per_process_memory_fraction(room / total, CUDA)
        try:

            def call() -> None:
                bytes_on_device(300)  # dropped, and cached: what is wanted next fits only once that is given back
                bytes_on_device(400)

            figures = meter.measure(call)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
        assert figures.peak_bytes is None
        assert figures.resting_bytes == 0


class TestPinned:
    def test_a_model_is_moved_and_copied_from_there(self) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)).requires_grad_(False)
        model[1].weight.data = model[0].weight.data  # memory that is shared
        before = [parameter.clone() for parameter in model.parameters()]
        assert pin_storages(model)
        assert all(parameter.is_pinned() for parameter in model.parameters())
        assert model[0].weight.data_ptr() == model[1].weight.data_ptr()
        assert all(map(torch.equal, model.parameters(), before))
        on_device = model[0].weight.detach().to(CUDA, copy=True)
        assert torch.equal(on_device.cpu(), before[0])
        del model
        release_pinned()


class TestSentinel:
    def test_it_takes_a_time_that_can_be_interleaved(self) -> None:
        with torch.inference_mode():
            call = sentinel(CUDA)
            assert bool(torch.isfinite(call()).all())
            latency_ms = event_time_ms(call)
            assert 0.1 < latency_ms < 20


class TestTelemetry:
    def test_the_fingerprint_is_the_drivers(self, gpu: Device) -> None:
        found = fingerprint(CUDA)
        assert found.device == "cuda"
        assert found.device_name == torch.cuda.get_device_name(CUDA)
        assert found.device_slug == slug(found.device_name)
        assert found.device_uuid.startswith(("GPU-", "MIG-"))
        assert found.device_uuid == gpu.environment.device_uuid
        assert found.versions["cuda"] == torch.version.cuda
        assert found.versions["driver"][0].isdigit()
        assert (found.settings["mig"] is not None) == found.device_uuid.startswith("MIG-")

    def test_the_state_is_plain_and_sees_what_is_allocated(self, gpu: Device) -> None:
        telemetry = GpuTelemetry(gpu.environment.device_uuid)
        torch.cuda.empty_cache()
        before = telemetry.read()
        held = bytes_on_device(1024)
        after = telemetry.read()
        assert held.is_cuda
        json.dumps(after)
        unsupported = {line.partition(":")[0] for line in after["unsupported"]}
        expected = {"sm_clock_mhz", "temperature_c", "power_mw", "throttle_reasons", "device_memory_bytes"}
        assert after.keys() >= expected - unsupported
        assert "device_memory_bytes" not in unsupported
        assert after["device_memory_bytes"] - before["device_memory_bytes"] >= 1000 * MIB
        assert str(os.getpid()) not in after["neighbours"]

    def test_clocks_are_in_mhz(self, gpu: Device) -> None:
        state = gpu.telemetry.read()
        if "sm_clock_mhz" not in state:
            pytest.skip(f"this GPU does not tell its clock: {state['unsupported']}")
        assert 100 < state["sm_clock_mhz"] < 5000

    def test_a_glance_is_a_part_of_a_reading(self, gpu: Device) -> None:
        unsupported = {line.partition(":")[0] for line in gpu.telemetry.read()["unsupported"]}
        glance = gpu.telemetry.glance()
        assert glance.keys() == {"sm_clock_mhz", "power_mw"} - unsupported
        assert all(value > 0 for value in glance.values())

    def test_the_host_is_watched_too(self, gpu: Device) -> None:
        before, after = gpu.telemetry.read(), gpu.telemetry.read()
        assert after["monotonic_s"] > before["monotonic_s"]
        assert "load_1min" in after

    def test_energy_an_image_is_what_a_gpu_can_take(self, gpu: Device) -> None:
        if gpu.telemetry.energy_mj() is None:
            pytest.skip("this GPU or slice does not count its energy")
        square = torch.randn(4096, 4096, device=CUDA)
        square @ square
        stretch_ms: list[float] = []

        def stretch() -> None:
            stretch_ms.extend(ms * 5 for ms in gpu.clock.time_ms(lambda: square @ square, 1, 5))

        found = energy_per_image_mj(gpu.telemetry.energy_mj, stretch, 5, gpu.clock.now_s)
        assert found is not None
        watts = found * 5 / median(stretch_ms)  # millijoules over milliseconds
        assert 20 < watts < 2000

    def test_readings_of_the_real_driver_can_be_judged(self, gpu: Device) -> None:
        # What another process does on the same GPU must not decide this test: it is taken out of the readings.
        calm = {**gpu.telemetry.read(), "throttle_reasons": 0, "neighbours": {}}
        assert gpu.telemetry.disturbance(calm, calm) is None
        reason = gpu.telemetry.disturbance(calm, {**calm, "throttle_reasons": 0x40, "temperature_c": 88})
        assert reason == "the GPU was throttled (hardware thermal) at 88 °C"


class TestErrors:
    def test_out_of_memory_leaves_the_device_as_it_was(self, gpu: Device) -> None:
        gpu.release()
        before = torch.cuda.memory_allocated(CUDA)

        def forward() -> None:
            kept = bytes_on_device(1024)
            torch.empty(2**46, dtype=torch.uint8, device=kept.device)

        words = r"^vit-int8: out of memory on "
        with pytest.raises(DeviceOutOfMemoryError, match=words) as raised, guarded(gpu, "vit-int8"):
            forward()
        assert torch.cuda.memory_allocated(CUDA) == before
        assert "\n" not in str(raised.value)
        assert not gpu.is_lost
        assert float((torch.ones(8, device=CUDA) * 2).sum()) == 16

    def test_an_error_of_the_model_is_none_of_the_device(self, gpu: Device) -> None:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), guarded(gpu, "vit-int8"):
            torch.zeros(2, 3, device=CUDA) @ torch.zeros(2, 3, device=CUDA)

    @pytest.mark.parametrize("way", WAYS, ids=describe)
    def test_fp32_is_fp32_whatever_was_set_before(self, gpu: Device, way: Way) -> None:
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
        images = torch.randn(8, 64, 32, 32, generator=generator)
        kernels = torch.randn(64, 64, 3, 3, generator=generator)
        go(way)
        with guarded(gpu, "vit-fp32"):
            product = left.to(CUDA) @ right.to(CUDA)
            convolution = torch.conv2d(images.to(CUDA), kernels.to(CUDA))
        assert relative_error(product, left.double() @ right.double()) < 1e-5  # TF32's ten bits give some 3e-4
        # Convolutions by Winograd's method round more often than a product does.
        assert relative_error(convolution, torch.conv2d(images.double(), kernels.double())) < 5e-5

    def test_tf32_would_show(self) -> None:
        if torch.cuda.get_device_capability(CUDA) < (8, 0):
            pytest.skip("this GPU has no TF32")
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
        torch.set_float32_matmul_precision("high")
        assert relative_error(left.to(CUDA) @ right.to(CUDA), left.double() @ right.double()) > 1e-4


CONFTEST = """
    from pathlib import Path

    import pytest
    import torch
    from torch import nn

    import pytest_vq


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 256), nn.GELU(), nn.Linear(256, 256))
            self.head = nn.Linear(256, 10)

        def forward(self, images):
            return self.head(self.body(images))


    class OutOfMemory(Net):
        def forward(self, images):
            if images.is_cuda:
                kept = torch.zeros(2**32, dtype=torch.uint8, device=images.device)
                torch.empty(2**46, dtype=torch.uint8, device=kept.device)
            return super().forward(images)


    class Crashing(Net):
        def forward(self, images):
            if images.is_cuda:
                beyond = torch.full((1,), 99, device=images.device)
                torch.zeros(4, device=images.device)[beyond]
            return super().forward(images)


    def register(name, kind):
        @pytest_vq.register_model(name, input_shape=(3, 16, 16), head="head")
        def build():
            Path(f"built-{name}").touch()
            return kind()


    class CrashedBuild(Net):
        def __init__(self):
            super().__init__()
            torch.zeros(4, device="cuda")[torch.full((1,), 99, device="cuda")]  # and nobody waits for it


    register("good-net", Net)
"""
TEST = """
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's project with ``good-net``."""
    pytester.makeini("[pytest]\naddopts = -p no:randomly\nvq_budget = 1\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_my_bench=TEST)
    return pytester


def add_model(project: pytest.Pytester, name: str, kind: str) -> None:
    """``name`` is measured before ``good-net``."""
    conftest = project.path / "conftest.py"
    head, _, last = conftest.read_text().rpartition('register("good-net", Net)')
    conftest.write_text(f'{head}register("{name}", {kind})\nregister("good-net", Net){last}')


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("--gpu", *arguments, timeout=RUN_TIMEOUT_S)


def rows(project: pytest.Pytester) -> list[dict[str, str]]:
    with (project.path / "vq-results" / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def study(project: pytest.Pytester) -> dict:
    return json.loads((project.path / "vq-results" / "study.json").read_text())


class TestRuns:
    def test_every_figure_of_a_pair(self, project, gpu: Device) -> None:
        result = run(project, "--vq-models=vit-digits", "-v")
        assert result.ret == 0, result.outlines
        found = {row["precision"]: row for row in rows(project)}
        assert list(found) == ["fp32", "fp16", "int8", "int4"]
        for precision, row in found.items():
            assert row["device"] == gpu.environment.device_name
            assert float(row["latency_ms"]) > 0
            assert float(row["throughput_ips"]) > 0
            assert float(row["accuracy"]) > 0.9
            assert 0 < int(row["resting_memory_bytes"]) < int(row["peak_memory_bytes"])
            assert int(row["peak_memory_bytes"]) <= int(row["reserved_memory_bytes"])
            assert int(row["device_memory_bytes"]) > 0
            assert (row["sqnr_db"] == "") == (precision == "fp32")
            if precision in {"fp32", "fp16"}:
                assert float(row["device_time_ms"]) > 0
                assert float(row["device_speedup"]) > 0
            if precision == "int8":  # it waits for the device inside
                assert row["device_time_ms"] == row["device_speedup"] == ""
            assert row["device_time_method"] == ("blocked queue" if row["device_time_ms"] else "")
            assert int(row["workspace_bytes"]) >= 0
            glance = gpu.telemetry.glance()
            assert all((row[column] == "") == (column not in glance) for column in ("sm_clock_mhz", "power_mw"))
            device_ms = float(row["device_time_ms"] or "nan")
            bound = str(float(row["latency_ms"]) > 1.1 * device_ms).lower()
            assert row["launch_bound"] == (bound if row["device_time_ms"] else "")
            assert row["execution"] == "eager"
        assert float(found["fp32"]["device_speedup"]) == 1.0
        if gpu.telemetry.energy_mj() is not None:
            assert all(float(row["energy_per_image_mj"]) > 0 for row in found.values())
        assert [row["method"] for row in found.values()] == [
            "torch.float32",
            "torch.float16",
            "bitsandbytes LLM.int8, fp16 rest",
            "bitsandbytes NF4, fp16 rest",
        ]
        for record in study(project)["records"]:
            assert record["setup"]["threads"] is None
            assert record["setup"]["tf32"] is False
            assert {"before", "after"} <= record["telemetry"].keys()
        (environment,) = study(project)["environments"]
        assert environment["device_uuid"] == gpu.environment.device_uuid

    def test_memory_is_the_same_in_another_process_and_another_order(self, project) -> None:
        def peaks(*arguments: str) -> dict[str, str]:
            result = run(project, "--vq-gate=off", *arguments)
            assert result.ret == 0, result.outlines
            return {row["precision"]: row["peak_memory_bytes"] for row in rows(project)}

        everything = peaks()
        assert set(everything) == {"fp32", "fp16", "int8", "int4"}
        assert peaks("--vq-precisions=int8") == {"int8": everything["int8"]}

    def test_out_of_memory_costs_its_own_pairs_only(self, project) -> None:
        add_model(project, "oom-net", "OutOfMemory")
        project.makepyfile(
            test_z_after="""
            import torch

            def test_memory_was_given_back():
                assert torch.cuda.memory_allocated() < 2**30  # of the 4 GiB that each of those forwards held
            """
        )
        result = run(project, "--vq-precisions=fp32,fp16")
        result.assert_outcomes(failed=2, passed=3)
        assert result.ret == 1
        assert [(row["model"], row["precision"]) for row in rows(project)] == [
            ("good-net", "fp32"),
            ("good-net", "fp16"),
        ]
        assert all(int(row["peak_memory_bytes"]) < 2**28 for row in rows(project))
        failures = study(project)["failures"]
        assert [failure["id"] for failure in failures] == ["oom-net-fp32", "oom-net-fp16"]
        for failure in failures:
            assert failure["error"] == "DeviceOutOfMemoryError"
            assert "out of memory on" in failure["message"]
            assert "Take a smaller batch or model" in failure["message"]
        result.stdout.fnmatch_lines(["ERROR oom-net-fp32: DeviceOutOfMemoryError: oom-net-fp32: out of memory on *"])

    def test_after_a_crashed_kernel_the_other_pairs_are_measured_in_fresh_processes(self, project) -> None:
        add_model(project, "crash-net", "Crashing")
        result = run(
            project, "--vq-precisions=fp32,int8", "--deselect=test_my_bench.py::test_precision[crash-net-int8]"
        )
        result.assert_outcomes(failed=1, passed=2, deselected=1)
        assert result.ret == 1
        (failure,) = study(project)["failures"]
        assert failure["id"] == "crash-net-fp32"
        assert failure["error"] == "DeviceLostError"
        assert "a kernel crashed" in failure["message"]
        assert "CUDA_LAUNCH_BLOCKING=1" in failure["message"]
        found = rows(project)
        assert [(row["model"], row["precision"]) for row in found] == [("good-net", "fp32"), ("good-net", "int8")]
        for row in found:
            assert float(row["latency_ms"]) > 0
            assert int(row["peak_memory_bytes"]) > 0
            assert row["verdict"] == "NO_BASELINE"
        assert study(project)["complete"] is True

    def test_a_kernel_that_crashed_before_bitsandbytes_ran_does_not_end_the_process(self, project) -> None:
        add_model(project, "crash-net", "CrashedBuild")
        result = run(project, "--vq-precisions=int8")
        result.assert_outcomes(failed=1, passed=1)
        (failure,) = study(project)["failures"]
        assert (failure["id"], failure["error"]) == ("crash-net-int8", "DeviceLostError")
        assert "a kernel crashed" in failure["message"]
        assert [(row["model"], row["precision"]) for row in rows(project)] == [("good-net", "int8")]

    def test_a_device_that_a_test_of_the_users_lost_is_not_held_against_the_next_pair(self, project) -> None:
        project.makepyfile(
            test_a_timer="""
            import torch

            def test_timed(gpu_timer):
                values, beyond = torch.zeros(4, device="cuda"), torch.full((1,), 99, device="cuda")
                gpu_timer(lambda: values[beyond])
            """
        )
        result = run(project, "--vq-precisions=fp32", "test_a_timer.py", "test_my_bench.py")
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(["*gpu_timer: a kernel crashed*"])
        assert [row["model"] for row in rows(project)] == ["good-net"]
        assert study(project)["failures"] == []

    def test_any_callable_can_be_timed(self, project) -> None:
        project.makepyfile(
            test_my_op="""
            import torch

            def test_my_op(gpu_timer):
                square = torch.randn(2048, 2048, device="cuda")
                timing = gpu_timer(torch.mm, square, square)
                assert timing.latency_low_ms <= timing.latency_ms <= timing.latency_high_ms
                assert timing.latency_ms > 0
                assert len(timing.samples_ms) == 1000
                assert timing.stop_reason == "protocol"
                assert timing.peak_memory_bytes == 16 * 2**20  # the product, and not the workspace of cuBLAS
            """
        )
        # A protocol of counts: how many samples an interval needs depends on the machine.
        result = run(project, "--vq-protocol=study", "--vq-budget=200", "test_my_op.py")
        result.assert_outcomes(passed=1)

    def test_it_waits_for_whoever_measures_on_the_device(self, project, gpu: Device) -> None:
        command = [sys.executable, "-m", "pytest", "--gpu", "--vq-precisions=fp32", "--vq-gate=off"]
        with Path("out").open("wb") as out, device_lock(gpu.environment.device_uuid):
            process = subprocess.Popen(
                command, cwd=project.path, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
            try:
                deadline = time.monotonic() + RUN_TIMEOUT_S
                while not Path("built-good-net").exists():  # all it can do without the device
                    assert process.poll() is None, Path("out").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                time.sleep(3)
                assert process.poll() is None, Path("out").read_text()
                assert rows(project) == []
            except BaseException:
                process.kill()
                raise
        try:
            assert process.wait(RUN_TIMEOUT_S) == 0, Path("out").read_text()
        finally:
            process.kill()
            process.wait()
        assert [row["model"] for row in rows(project)] == ["good-net"]
