"""Device time: how often it is tried, and what is made of the attempts. (On a real GPU: tests/gpu.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_vq.device.device_time import device_time_ms, median_of_hidden


class Attempts:
    """Gives these spans one after another, and the last of them for ever."""

    def __init__(self, *spans: float | None) -> None:
        self.spans = spans
        self.made = 0

    def __call__(self) -> float | None:
        self.made += 1
        return self.spans[min(self.made, len(self.spans)) - 1]


def test_it_is_the_median_of_ten_that_could_be_hidden() -> None:
    attempts = Attempts(9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
    assert median_of_hidden(attempts) == 5.5
    assert attempts.made == 10


def test_what_cannot_be_hidden_is_tried_twice_and_no_more() -> None:
    attempts = Attempts(None)
    assert median_of_hidden(attempts) is None
    assert attempts.made == 2


def test_one_failure_is_made_up_for() -> None:
    attempts = Attempts(3.0, None, 3.0)
    assert median_of_hidden(attempts) == 3.0
    assert attempts.made == 11


def test_a_second_failure_ends_it_however_many_were_hidden() -> None:
    assert median_of_hidden(Attempts(3.0, None, 3.0, 3.0, None, 3.0)) is None


class FakeGpu:
    """A queue in order: the host launches at once, the spinning kernel runs for as long as it was told."""

    HZ = 1e9

    def __init__(self) -> None:
        self.host_ms = self.free_at_ms = 0.0
        self.spins: list[int] = []

    def sleep(self, cycles: int) -> None:
        self.spins.append(cycles)
        self.run(cycles / self.HZ * 1e3)

    def run(self, ms: float) -> None:
        """A kernel of ``ms``, launched now."""
        self.free_at_ms = max(self.free_at_ms, self.host_ms) + ms

    def synchronize(self, *_: object) -> None:
        self.host_ms = max(self.host_ms, self.free_at_ms)

    def event(self, *_: object, **__: object) -> Any:
        gpu = self

        class Event:
            def record(self) -> None:
                self.at_ms = max(gpu.free_at_ms, gpu.host_ms)

            def query(self) -> bool:
                return gpu.host_ms >= self.at_ms

            def synchronize(self) -> None:
                gpu.host_ms = max(gpu.host_ms, self.at_ms)

            def elapsed_time(self, end: Any) -> float:
                return float(end.at_ms - self.at_ms)

        return Event()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    monkeypatch.setattr(torch, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "_sleep", fake.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = SimpleNamespace(clock_rate=fake.HZ / 1e3)  # kHz
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return fake


def test_the_hosts_launching_is_hidden(gpu: FakeGpu) -> None:
    def call() -> None:
        gpu.host_ms += 4.0  # of launching
        gpu.run(1.5)

    assert device_time_ms(call, latency_ms=5.0) == pytest.approx(1.5)
    assert gpu.spins == [15_000_000] * 10  # three latencies


def test_a_forward_that_waits_for_the_gpu_itself_has_none(gpu: FakeGpu) -> None:
    def call() -> None:
        gpu.run(1.5)
        gpu.synchronize()

    assert device_time_ms(call, latency_ms=5.0) is None
    assert len(gpu.spins) == 2


def test_launches_that_outlast_the_spinning_have_none(gpu: FakeGpu) -> None:
    def call() -> None:
        gpu.host_ms += 16.0
        gpu.run(1.5)

    assert device_time_ms(call, latency_ms=5.0) is None


def test_a_call_too_long_to_hide_is_not_spun_for(gpu: FakeGpu) -> None:
    assert device_time_ms(lambda: pytest.fail("it was called"), latency_ms=170.0) is None
    assert gpu.spins == []


def test_no_profiler_is_ever_attached(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: pytest.fail("a profiler stays attached to the process"))
    assert device_time_ms(gpu.synchronize, latency_ms=5.0) is None
    assert device_time_ms(gpu.synchronize, latency_ms=5_000.0) is None
