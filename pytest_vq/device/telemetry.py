"""The state of the machine before and after a measurement, and whether it lets the times be trusted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pytest_vq.device.nvml import open_nvml

State = Mapping[str, Any]


class Telemetry(Protocol):
    """Reads the machine's state, and judges two readings taken around a measurement."""

    def begin(self) -> None:
        """The device's lock was just taken: what others did there before is over, and disturbs nothing."""
        ...

    def read(self) -> State:
        """The state now: plain JSON values, units in the names."""
        ...

    def glance(self) -> State:
        """What changes while timing, quickly read: ``sm_clock_mhz``, ``power_mw``, as far as the device tells them."""
        ...

    def energy_mj(self) -> int | None:
        """Millijoules that the whole device took since some moment; None where that is not counted."""
        ...

    def disturbance(self, before: State, after: State) -> str | None:
        """Why times taken between the two readings cannot be trusted; None where they can."""
        ...


_SCHEDSTAT = Path("/proc/self/schedstat")


class HostTelemetry:
    """Load of the machine, and how long this process was ready to run but had no processor to run on."""

    # Adjacent ratios and low quantiles bear a neighbour; a quarter of the time spent waiting they do not.
    _MAX_WAITING = 0.25

    def __init__(self, thread_id: int | None = None) -> None:
        """Args: ``thread_id`` is the system's number of the thread of this process to watch; None: its first one."""
        self._schedstat = _SCHEDSTAT if thread_id is None else Path(f"/proc/self/task/{thread_id}/schedstat")

    def begin(self) -> None:
        """See ``Telemetry.begin``: the processor's other work holds no lock."""

    def read(self) -> State:
        """See ``Telemetry.read``. ``waiting_s`` is left out where the kernel does not tell it."""
        state = {"monotonic_s": time.monotonic(), "load_1min": os.getloadavg()[0]}
        if self._schedstat.is_file():
            state["waiting_s"] = int(self._schedstat.read_text().split()[1]) / 1e9
        return state

    def glance(self) -> State:
        """See ``Telemetry.glance``: nothing of a CPU is worth a look between two blocks."""
        return {}

    def energy_mj(self) -> int | None:
        """See ``Telemetry.energy_mj``: the counters of CPUs are for the superuser only."""
        return None

    def disturbance(self, before: State, after: State) -> str | None:
        """See ``Telemetry.disturbance``: the process was kept waiting for a good part of the time."""
        elapsed_s = after["monotonic_s"] - before["monotonic_s"]
        waiting = (after.get("waiting_s", 0) - before.get("waiting_s", 0)) / elapsed_s if elapsed_s > 0 else 0.0
        if waiting <= self._MAX_WAITING:
            return None
        return f"a busy machine: for {waiting:.0%} of its time this process waited for a processor"


# Reasons for which the driver lowers the clocks that make times wrong; nvml.h names the bits.
_THROTTLES = {0x8: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
_BUSY_PERCENT = 5
_SECOND_US = 1_000_000
_SAMPLED_S = 1.0  # one sample of a process's share is taken over 1/6 to 1 s, as nvml.h says


@dataclass(frozen=True, slots=True)
class _Reader:
    """One NVML query: its key in the state, and how to read it."""

    key: str
    read: Callable[[Any, Any], Any]


_READERS = (
    _Reader("sm_clock_mhz", lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
    _Reader("memory_clock_mhz", lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
    _Reader("temperature_c", lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
    _Reader("power_mw", lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu)),
    _Reader("throttle_reasons", lambda nvml, gpu: nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)),
    _Reader(
        "thermal_violation_ns",
        lambda nvml, gpu: nvml.nvmlDeviceGetViolationStatus(gpu, nvml.NVML_PERF_POLICY_THERMAL).violationTime,
    ),
    _Reader("device_memory_bytes", lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
    _Reader("compute_pids", lambda nvml, gpu: [p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)]),
)


# Of these, the ones that are read again and again while a pair is timed.
_GLANCED = tuple(reader for reader in _READERS if reader.key in {"sm_clock_mhz", "power_mw"})


class GpuTelemetry:
    """Clocks, throttling, energy and neighbours of one GPU, through NVML; and the state of the host that launches.

    The host is watched too because launching bounds most requests of one image: a process that waits for a processor
    launches late.
    """

    def __init__(self, gpu_uuid: str) -> None:
        self._uuid = gpu_uuid
        self._host = HostTelemetry()
        self._begun_s: float | None = None  # when the lock was taken, by a clock that is never set

    @cached_property
    def _gpu(self) -> tuple[Any, Any]:
        """NVML and its handle of this GPU, opened at first use."""
        nvml = open_nvml()
        return nvml, nvml.nvmlDeviceGetHandleByUUID(self._uuid)

    def begin(self) -> None:
        """See ``Telemetry.begin``."""
        self._begun_s = time.monotonic()

    def read(self) -> State:
        """See ``Telemetry.read``. A query that this GPU or driver does not support is listed, not made up."""
        nvml, gpu = self._gpu
        state = dict(self._host.read())
        unsupported = []
        for reader in _READERS:
            try:
                state[reader.key] = reader.read(nvml, gpu)
            except nvml.NVMLError as error:
                unsupported.append(f"{reader.key}: {error}")
        state["neighbours"] = self._neighbours(nvml, gpu, state.get("compute_pids", []))
        return state | {"unsupported": unsupported}

    def glance(self) -> State:
        """See ``Telemetry.glance``. Power is the driver's mean over the last second, on Hopper as on most GPUs."""
        nvml, gpu = self._gpu
        state = {}
        for reader in _GLANCED:
            with contextlib.suppress(nvml.NVMLError):  # not supported: left out, as `read` lists it
                state[reader.key] = reader.read(nvml, gpu)
        return state

    def energy_mj(self) -> int | None:
        """See ``Telemetry.energy_mj``. None on a MIG slice, because the counter is the whole GPU's."""
        if self._uuid.startswith("MIG-"):
            return None
        nvml, gpu = self._gpu
        try:
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu))
        except nvml.NVMLError:  # GPUs before Volta do not count
            return None

    def _neighbours(self, nvml: Any, gpu: Any, pids: list[int]) -> dict[str, int]:
        """Other processes on the GPU -> the share in percent of its multiprocessors they used in the last second.

        A worker beside this one keeps its context there while it waits for the lock, idle. What it did until it gave
        the lock up is in samples that end up to a second later, as long as the driver takes for one: those are left
        out. A stranger at work without the lock is seen when the measurement ends.
        """
        own = {os.getpid(), os.getppid()}
        # In a container the driver lists the host's process ids: this one cannot be told from its neighbours.
        if own.isdisjoint(pids):
            return {}
        now_us = int(time.time() * 1e6)  # the driver's samples bear the time of day
        try:
            used = nvml.nvmlDeviceGetProcessUtilization(gpu, now_us - _SECOND_US)
        except nvml.NVMLError:  # not supported, or nothing ran in that second: nobody is known to be busy
            used = []
        # A clock that was set back leaves samples of a time to come: they are old, and no part of the last second.
        held_s = _SAMPLED_S + 1 if self._begun_s is None else time.monotonic() - self._begun_s
        first_us, last_us = now_us - (held_s - _SAMPLED_S) * 1e6, now_us + _SECOND_US
        busy = {sample.pid: sample.smUtil for sample in used if first_us <= sample.timeStamp <= last_us}
        return {str(pid): busy.get(pid, 0) for pid in pids if pid not in own}

    def disturbance(self, before: State, after: State) -> str | None:
        """See ``Telemetry.disturbance``: thermal or power throttling, a neighbour at work, or a busy host."""
        return self._gpu_disturbance(before, after) or self._host.disturbance(before, after)

    @staticmethod
    def _gpu_disturbance(before: State, after: State) -> str | None:
        for state in (before, after):
            reasons = [name for bit, name in _THROTTLES.items() if state.get("throttle_reasons", 0) & bit]
            if reasons:
                return f"the GPU was throttled ({', '.join(reasons)}) at {state.get('temperature_c', '?')} °C"
        throttled_ns = after.get("thermal_violation_ns", 0) - before.get("thermal_violation_ns", 0)
        if throttled_ns > 0:
            return f"the GPU was thermally throttled for {throttled_ns / 1e6:.0f} ms"
        for pid, percent in {**before.get("neighbours", {}), **after.get("neighbours", {})}.items():
            if percent > _BUSY_PERCENT:
                return f"a busy neighbour: process {pid} used {percent} % of this GPU"
        return None
