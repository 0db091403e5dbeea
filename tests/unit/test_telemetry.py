"""The machine's state around a measurement: read as it is, and judged by what makes times wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vq.device import telemetry
from pytest_vq.device.telemetry import GpuTelemetry, HostTelemetry

SCHEDSTAT = Path("/proc/self/schedstat")


class TestHost:
    def test_it_reads_this_process(self) -> None:
        host = HostTelemetry()
        before = host.read()
        time.sleep(0.05)
        after = host.read()
        assert after["monotonic_s"] - before["monotonic_s"] >= 0.05
        assert after["load_1min"] >= 0
        json.dumps(after)

    @pytest.mark.skipif(not SCHEDSTAT.is_file(), reason=f"this kernel has no {SCHEDSTAT}")
    def test_it_reads_how_long_this_process_waited(self) -> None:
        host = HostTelemetry()
        before, after = host.read(), host.read()
        assert after["waiting_s"] >= before["waiting_s"] >= 0

    @pytest.mark.parametrize(("waited_s", "share"), [(0.0, None), (2.4, None), (2.6, "26%"), (9.0, "90%")])
    def test_a_quarter_of_the_time_waited_is_too_much(self, waited_s: float, share: str | None) -> None:
        before = {"monotonic_s": 100.0, "waiting_s": 7.0}
        reason = HostTelemetry().disturbance(before, {"monotonic_s": 110.0, "waiting_s": 7.0 + waited_s})
        assert reason == (share and f"a busy machine: for {share} of its time this process waited for a processor")

    def test_what_the_kernel_does_not_tell_is_left_out_and_not_held_against_it(self, monkeypatch) -> None:
        is_file = Path.is_file
        monkeypatch.setattr(Path, "is_file", lambda path: path != SCHEDSTAT and is_file(path))
        host = HostTelemetry()
        state = host.read()
        assert "waiting_s" not in state
        assert host.disturbance(state, host.read()) is None

    def test_of_a_cpu_nothing_is_watched_and_no_energy_told(self) -> None:
        assert HostTelemetry().glance() == {}
        assert HostTelemetry().energy_mj() is None

    def test_two_readings_at_one_moment(self) -> None:
        state = {"monotonic_s": 1.0, "waiting_s": 0.0}
        assert HostTelemetry().disturbance(state, {"monotonic_s": 1.0, "waiting_s": 1.0}) is None


class NVMLError(Exception):
    """As the library raises it."""


class FakeNvml:
    """An NVML with one GPU; ``refused`` names the queries that it does not support."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_PERF_POLICY_THERMAL = 1, 2, 0, 1

    def __init__(self, pids: tuple[int, ...] = (), busy: dict[int, int] | None = None, refused: str = "") -> None:
        self.values: dict[str, Any] = {
            "nvmlDeviceGetHandleByUUID": "the gpu",
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetPowerUsage": 120_000,
            "nvmlDeviceGetTotalEnergyConsumption": 5_000_000,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x4,  # the power cap of every busy GPU: no throttling
            "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=5_000),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=7 * 2**20),
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=pid) for pid in pids],
            "nvmlDeviceGetProcessUtilization": [
                SimpleNamespace(pid=pid, smUtil=percent, timeStamp=int(time.time() * 1e6))
                for pid, percent in (busy or {}).items()
            ],
        }
        self.refused = refused.split()
        self.opened = 0
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def query(*_: object) -> Any:
            assert self.opened, "a query before it was opened"
            self.asked.append(name)
            if name in self.refused:
                raise NVMLError("Not Supported")
            return self.values[name]

        return query

    def open(self) -> FakeNvml:
        self.opened += 1
        return self


CALM = {"monotonic_s": 100.0, "waiting_s": 7.0}  # of the host


@pytest.fixture
def gpu(monkeypatch):
    """A GpuTelemetry on a fake NVML, whose host waited for no processor."""

    def make(uuid: str = "GPU-1", nvml: FakeNvml | None = None, **given: Any) -> GpuTelemetry:
        nvml = nvml or FakeNvml(**given)
        monkeypatch.setattr(telemetry, "open_nvml", nvml.open)
        monkeypatch.setattr(HostTelemetry, "read", lambda _: CALM)
        return GpuTelemetry(uuid)

    return make


class TestGpu:
    def test_every_figure_is_read_and_plain(self, gpu) -> None:
        state = gpu(pids=(os.getpid(),)).read()
        assert state == CALM | {
            "sm_clock_mhz": 1980,
            "memory_clock_mhz": 1980,
            "temperature_c": 41,
            "power_mw": 120_000,
            "throttle_reasons": 4,
            "thermal_violation_ns": 5_000,
            "device_memory_bytes": 7 * 2**20,
            "compute_pids": [os.getpid()],
            "neighbours": {},
            "unsupported": [],
        }
        assert json.loads(json.dumps(state)) == state

    def test_what_a_gpu_does_not_support_is_listed_and_not_made_up(self, gpu) -> None:
        device = gpu(
            refused="nvmlDeviceGetPowerUsage nvmlDeviceGetViolationStatus nvmlDeviceGetComputeRunningProcesses"
        )
        state = device.read()
        assert not {"power_mw", "thermal_violation_ns", "compute_pids"} & state.keys()
        assert state["unsupported"] == [
            "power_mw: Not Supported",
            "thermal_violation_ns: Not Supported",
            "compute_pids: Not Supported",
        ]
        assert state["sm_clock_mhz"] == 1980
        assert device.disturbance(state, state) is None

    def test_nvml_is_opened_and_the_gpu_looked_up_once(self, gpu) -> None:
        nvml = FakeNvml()
        device = gpu(nvml=nvml)
        for _ in range(3):
            device.read()
            device.glance()
            device.energy_mj()
        assert nvml.opened == 1
        assert nvml.asked.count("nvmlDeviceGetHandleByUUID") == 1

    def test_a_glance_asks_for_clock_and_power_and_no_more(self, gpu) -> None:
        nvml = FakeNvml()
        assert gpu(nvml=nvml).glance() == {"sm_clock_mhz": 1980, "power_mw": 120_000}
        assert nvml.asked == ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage"]

    def test_a_glance_leaves_out_what_the_gpu_does_not_support(self, gpu) -> None:
        assert gpu(refused="nvmlDeviceGetPowerUsage").glance() == {"sm_clock_mhz": 1980}

    def test_energy_is_the_counters(self, gpu) -> None:
        assert gpu().energy_mj() == 5_000_000

    def test_a_gpu_that_does_not_count_its_energy_has_none(self, gpu) -> None:
        assert gpu(refused="nvmlDeviceGetTotalEnergyConsumption").energy_mj() is None

    def test_a_slice_is_not_given_the_whole_gpus_energy(self, gpu) -> None:
        nvml = FakeNvml()
        assert gpu(uuid="MIG-1", nvml=nvml).energy_mj() is None
        assert nvml.asked == []

    def test_a_host_that_waited_for_a_processor_disturbs_what_it_launches(self, gpu) -> None:
        device = gpu()
        before = device.read()
        waited = {**before, "monotonic_s": before["monotonic_s"] + 10, "waiting_s": before["waiting_s"] + 4}
        reason = device.disturbance(before, waited)
        assert reason == "a busy machine: for 40% of its time this process waited for a processor"

    def test_a_throttled_gpu_is_named_before_a_busy_host(self, gpu) -> None:
        waited = {"monotonic_s": 110.0, "waiting_s": 16.0, "throttle_reasons": 0x40, "temperature_c": 88}
        assert gpu().disturbance(CALM, waited) == "the GPU was throttled (hardware thermal) at 88 °C"

    def test_a_gpu_that_nvml_does_not_know_is_an_error(self, gpu) -> None:
        with pytest.raises(NVMLError):
            gpu(refused="nvmlDeviceGetHandleByUUID").read()

    def test_neighbours_and_how_busy_they_are(self, gpu) -> None:
        device = gpu(pids=(os.getpid(), 111, 222), busy={111: 40, os.getpid(): 100})
        assert device.read()["neighbours"] == {"111": 40, "222": 0}

    @pytest.mark.parametrize(("sampled_after_s", "percent"), [(-0.2, 0), (0.9, 0), (1.1, 40)])
    def test_what_a_worker_did_before_it_gave_up_the_lock_is_no_disturbance(
        self, gpu, monkeypatch, sampled_after_s: float, percent: int
    ) -> None:
        nvml = FakeNvml(pids=(os.getpid(), 111))
        device = gpu(nvml=nvml)
        monkeypatch.setattr(time, "monotonic", lambda: 50.0)
        device.begin()
        monkeypatch.setattr(time, "monotonic", lambda: 51.2)
        monkeypatch.setattr(time, "time", lambda: 1001.2)  # the lock was taken at 1000
        sample = SimpleNamespace(pid=111, smUtil=40, timeStamp=int((1000 + sampled_after_s) * 1e6))
        nvml.values["nvmlDeviceGetProcessUtilization"] = [sample]
        assert device.read()["neighbours"] == {"111": percent}

    def test_what_was_sampled_before_the_clock_was_set_back_is_not_of_the_last_second(self, gpu, monkeypatch) -> None:
        device = gpu(pids=(os.getpid(), 111), busy={111: 40})
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s - 3600)
        assert device.read()["neighbours"] == {"111": 0}

    def test_neighbours_at_work_are_not_known_where_nothing_ran(self, gpu) -> None:
        device = gpu(pids=(os.getpid(), 111), refused="nvmlDeviceGetProcessUtilization")
        assert device.read()["neighbours"] == {"111": 0}

    def test_in_a_container_nobody_is_taken_for_a_neighbour(self, gpu) -> None:
        # The driver lists the host's process ids: this process is among them under another one.
        assert gpu(pids=(111, 222), busy={111: 99}).read()["neighbours"] == {}

    @pytest.mark.parametrize(
        ("bits", "words"),
        [
            (0x0, None),
            (0x1, None),  # idle
            (0x4, None),  # at its power cap
            (0x8, "hardware slowdown"),
            (0x20, "software thermal"),
            (0x40, "hardware thermal"),
            (0x80, "power brake"),
            (0x8 | 0x40 | 0x4, "hardware slowdown, hardware thermal"),
        ],
    )
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_throttling_by_the_drivers_reasons(self, bits: int, words: str | None, when: str) -> None:
        states = {"before": CALM, "after": CALM} | {when: {**CALM, "throttle_reasons": bits, "temperature_c": 88}}
        reason = GpuTelemetry("GPU-1").disturbance(states["before"], states["after"])
        assert reason == (words and f"the GPU was throttled ({words}) at 88 °C")

    def test_throttling_between_the_readings(self) -> None:
        judge = GpuTelemetry("GPU-1").disturbance
        assert judge(CALM | {"thermal_violation_ns": 5_000}, CALM | {"thermal_violation_ns": 5_000}) is None
        reason = judge(CALM | {"thermal_violation_ns": 5_000_000}, CALM | {"thermal_violation_ns": 12_000_000})
        assert reason == "the GPU was thermally throttled for 7 ms"

    @pytest.mark.parametrize(("percent", "disturbed"), [(0, False), (5, False), (6, True), (100, True)])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_busy_neighbour(self, percent: int, disturbed: bool, when: str) -> None:
        states = {"before": CALM, "after": CALM} | {when: {**CALM, "neighbours": {"222": 0, "111": percent}}}
        reason = GpuTelemetry("GPU-1").disturbance(states["before"], states["after"])
        assert reason == (f"a busy neighbour: process 111 used {percent} % of this GPU" if disturbed else None)
