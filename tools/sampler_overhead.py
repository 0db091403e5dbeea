"""What the sampler costs beside a bare loop of the same timed calls: ``make overhead``.

The workload spins for a fixed time by the clock, so that both loops do the same work and only what lies between the
calls differs: blocks, the stop rule, the interval of the median. Both run in turns; the median ratio is printed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from pytest_vq.device.clock import HostClock
from pytest_vq.execution.prepared import Request
from pytest_vq.measure.sampler import StopRule, quiet_collector, sample

CALL_MS = (0.2, 1.0, 5.0, 30.0)
ROUNDS = 5
BUDGET_S = 4.0  # the default on a CPU


def spinning(duration_ms: float) -> tuple[Callable[[], None], list[int]]:
    """A call that takes ``duration_ms``, and the count of how often it was made."""
    count = [0]

    def call() -> None:
        count[0] += 1
        until = time.perf_counter_ns() + int(duration_ms * 1e6)
        while time.perf_counter_ns() < until:
            pass

    return call, count


def added(duration_ms: float) -> float:
    """The sampler's time over that of a bare loop of as many calls, minus one."""
    clock = HostClock()
    call, count = spinning(duration_ms)
    started = time.perf_counter()
    # A target that is never met: the stop rule is asked all the way, as on a noisy machine.
    sample({"call": Request(call)}, "call", clock, StopRule(budget_s=BUDGET_S, target=-1.0))
    sampled_s, calls = time.perf_counter() - started, count[0]
    started = time.perf_counter()
    with quiet_collector():
        clock.time_ms(call, calls)
    return sampled_s / (time.perf_counter() - started) - 1


def main() -> None:
    """Print a line for each length of call."""
    for duration_ms in CALL_MS:
        ratios = [added(duration_ms) for _ in range(ROUNDS)]
        sys.stdout.write(
            f"calls of {duration_ms:4.1f} ms: the sampler adds {statistics.median(ratios):+.2%} "
            f"({min(ratios):+.2%} … {max(ratios):+.2%}, {ROUNDS} rounds)\n"
        )


if __name__ == "__main__":
    main()
