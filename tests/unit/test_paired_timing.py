"""A pair's timing: what is called in which order, on a fake clock and a fake accelerator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_case
from fake_clock import FakeClock

from pytest_vq.execution.prepared import Request
from pytest_vq.measure import paired_timing
from pytest_vq.measure.paired_timing import Partners, time_pair
from pytest_vq.measure.sampler import StopRule
from pytest_vq.schema.figures import TimedFigures

POWER_MW, BATCH = 400_000, 4
MS = {"sentinel": 1.0, "fp32": 6.0, "int8": 4.0}


class World:
    """Three workloads on one device; what each was called in."""

    def __init__(self, is_accelerator: bool = True) -> None:
        self.clock = FakeClock()
        self.inside: str | None = None
        self.energy_readings = 0
        self.energy_is_counted = True
        self.hidden: dict[str, float | None] = {"fp32": 3.0, "int8": 1.5}
        self.asked: list[tuple[str, float]] = []
        telemetry: Any = SimpleNamespace(glance=self.glance, energy_mj=self.energy_mj)
        environment: Any = SimpleNamespace(date_utc="2026-01-01T00:00:00Z")
        self.device: Any = SimpleNamespace(
            clock=self.clock, telemetry=telemetry, environment=environment, is_accelerator=is_accelerator
        )

    def glance(self) -> dict[str, Any]:
        assert self.inside is None  # nothing is being timed
        return {"sm_clock_mhz": 1980, "power_mw": POWER_MW} if self.device.is_accelerator else {}

    def energy_mj(self) -> int | None:
        self.energy_readings += 1
        return int(self.clock.now_ms * POWER_MW / 1e3) if self.energy_is_counted else None

    def request(self, name: str) -> Request:
        @contextlib.contextmanager
        def context() -> Iterator[None]:
            assert self.inside is None
            self.inside = name
            yield
            self.inside = None

        def call() -> str:
            assert self.inside == name
            self.clock.now_ms += MS[name]
            return name

        return Request(call, context)

    def sentinel(self) -> None:
        self.clock.now_ms += MS["sentinel"]

    def device_time_ms(self, call: Callable[[], object], latency_ms: float) -> float | None:
        name = str(call())
        self.asked.append((name, latency_ms))
        return self.hidden[name]

    def measure(self, scheme: str = "int8") -> TimedFigures:
        case = make_case(scheme=scheme, batch=BATCH)
        workload: Any = SimpleNamespace(case=case, request=self.request(scheme))
        partners = Partners(self.sentinel, None if scheme == "fp32" else self.request("fp32"))
        samples, figures = time_pair(workload, partners, self.device, StopRule(budget_s=10))
        assert set(samples.sentinel.times_ms) == {1.0}
        assert (samples.reference is None) == (scheme == "fp32")
        return figures


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(paired_timing, "device_time_ms", made.device_time_ms)
    return made


def test_a_device_speedup_is_over_fp32s_device_time_in_the_same_process(world: World) -> None:
    found = world.measure()
    assert (found.device_time_ms, found.device_time_method) == (1.5, "blocked queue")
    assert found.device_speedup == 2.0
    assert world.asked == [("int8", 4.0), ("fp32", 6.0)]
    assert found.launch_bound is True


def test_fp32s_device_time_is_not_asked_for_where_the_candidate_has_none(world: World) -> None:
    world.hidden["int8"] = None
    found = world.measure()
    assert (found.device_time_ms, found.device_time_method, found.device_speedup) == (None, None, None)
    assert found.launch_bound is None
    assert [name for name, _ in world.asked] == ["int8"]


def test_where_fp32_has_no_device_time_there_is_no_device_speedup(world: World) -> None:
    world.hidden["fp32"] = None
    found = world.measure()
    assert (found.device_time_ms, found.device_speedup) == (1.5, None)


def test_fp32s_own_row(world: World) -> None:
    found = world.measure("fp32")
    assert (found.device_time_ms, found.device_speedup, found.speedup) == (3.0, 1.0, 1.0)
    assert [name for name, _ in world.asked] == ["fp32"]


def test_clock_and_power_are_of_the_time_of_timing(world: World) -> None:
    found = world.measure()
    assert (found.sm_clock_mhz, found.power_mw) == (1980.0, 400_000.0)


def test_energy_and_throughput_are_of_calls_back_to_back(world: World) -> None:
    found = world.measure()
    assert found.throughput_ips == pytest.approx(BATCH / 4e-3)
    assert found.energy_per_image_mj == pytest.approx(POWER_MW * 4e-3 / BATCH, rel=0.01)


def test_a_device_without_a_counter_has_no_energy(world: World) -> None:
    world.energy_is_counted = False
    assert world.measure().energy_per_image_mj is None


def test_a_request_that_is_too_long_for_the_counter_is_not_run_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MS, "int8", 80.0)
    assert world.measure().energy_per_image_mj is None
    assert world.energy_readings == 0


def test_on_a_cpu_nothing_is_asked_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(is_accelerator=False)
    monkeypatch.setattr(paired_timing, "device_time_ms", lambda *_: pytest.fail("a CPU has no queue"))
    found = world.measure()
    assert found.throughput_ips == pytest.approx(BATCH / 4e-3)
    assert (found.device_time_ms, found.device_time_method, found.device_speedup) == (None, None, None)
    assert (found.energy_per_image_mj, found.sm_clock_mhz, found.power_mw) == (None, None, None)
    assert world.energy_readings == 0
