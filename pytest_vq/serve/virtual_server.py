"""A server in virtual time: requests at given times, the batcher's own policy, and services of given lengths.

What a real server would need hours and a quiet machine for, this does in moments, the same on every machine: the
calibration of the tail's test, and the tests of all that judges a server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vq.serve.batching import BatchingPolicy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VirtualRun:
    """What happened to each request; arrays in the order of arrival, in seconds."""

    arrival_s: NDArray[np.float64]
    start_s: NDArray[np.float64]  # NaN for one that was refused
    finish_s: NDArray[np.float64]
    batch_sizes: tuple[int, ...]

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From arrival to answer; infinite for a request that was refused."""
        import numpy as np

        return np.where(np.isnan(self.finish_s), np.inf, (self.finish_s - self.arrival_s) * 1e3)

    @property
    def refused(self) -> int:
        """How many were refused because the queue was full."""
        import numpy as np

        return int(np.isnan(self.finish_s).sum())


def poisson_arrivals(rate_qps: float, requests: int, rng: Any) -> NDArray[np.float64]:
    """Times, in seconds, of ``requests`` that come independently of each other, ``rate_qps`` a second."""
    import numpy as np

    return np.cumsum(rng.exponential(1 / rate_qps, size=requests))


def serve_virtually(
    arrivals_s: Sequence[float] | NDArray[np.float64], policy: BatchingPolicy, service_s: Callable[[int, int], float]
) -> VirtualRun:
    """Serve requests that come at ``arrivals_s``, sorted, on one device.

    ``service_s`` is given a batch's size and its number, from 0 on, and returns how long it takes.
    """
    import numpy as np

    arrivals = np.asarray(arrivals_s, dtype=float)
    times: list[float] = arrivals.tolist()
    start, finish = np.full(len(times), np.nan), np.full(len(times), np.nan)
    sizes: list[int] = []
    waiting: deque[int] = deque()  # requests by number, oldest first
    coming, free_s = 0, 0.0
    while waiting or coming < len(times):
        if not waiting:
            waiting.append(coming)
            coming += 1
        # Whoever comes before the batch starts is in the queue by then, and may make it full.
        while True:
            start_s = max(free_s, _due_s(policy, waiting, times))
            if coming == len(times) or times[coming] > start_s:
                break
            if policy.admits(len(waiting)):
                waiting.append(coming)
            coming += 1
        size = policy.batch_of(len(waiting))
        batch = [waiting.popleft() for _ in range(size)]
        free_s = start_s + service_s(size, len(sizes))
        start[batch], finish[batch] = start_s, free_s
        sizes.append(size)
    return VirtualRun(arrivals, start, finish, tuple(sizes))


def _due_s(policy: BatchingPolicy, waiting: deque[int], times: list[float]) -> float:
    """When the device, idle, would start; a batch is full only from the arrival of its last request on."""
    due_s = policy.due_s(len(waiting), times[waiting[0]])
    full = len(waiting) >= policy.max_batch_size
    return max(due_s, times[waiting[policy.max_batch_size - 1]]) if full else due_s
