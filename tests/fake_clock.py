"""A clock whose time only passes when a workload is called: the sampler can be tested to the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class FakeClock:
    """Each workload is a generator of milliseconds; calling it takes that long on this clock."""

    shortest_ms = 0.5

    def __init__(self) -> None:
        self.now_ms = 0.0

    def now_s(self) -> float:
        return self.now_ms / 1e3

    def time_ms(self, call: Callable[[], object], intervals: int, calls_per_interval: int = 1) -> list[float]:
        times = []
        for _ in range(intervals):
            before = self.now_ms
            for _ in range(calls_per_interval):
                call()
            times.append((self.now_ms - before) / calls_per_interval)
        return times

    def workload(self, durations_ms: Iterator[float]) -> Callable[[], None]:
        def call() -> None:
            self.now_ms += next(durations_ms)

        return call
