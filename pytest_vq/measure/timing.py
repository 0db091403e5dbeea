"""From samples to the figures of a row. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_vq.measure.interval import median_interval
from pytest_vq.measure.sampler import Sampled
from pytest_vq.schema.record import Samples

_MIN_FOR_P95, _MIN_FOR_P99 = 60, 300  # below these a tail quantile is one sample's luck
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
# Calls longer than the sentinel's cannot dodge a neighbour's bursts as well: what they meet at their 10 % quantile, its
# shorter ones meet at a higher one. Of 10, 25 and 50 %, tried on a shared CPU, this one did well both calm and busy.
SENTINEL_QUANTILE = 0.25
_LAUNCH_BOUND = 1.1  # latency / device time above which precision cannot show


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with its 95 % interval; no interval below 6 values."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The median of ``values``, in their unit."""
        low, high = median_interval(values) or (None, None)
        return cls(float(np.median(values)), low, high)


def paired_speedup(sampled: Sampled, reference: str, candidate: str) -> Estimate:
    """The median ratio of adjacent blocks, reference time / candidate time: above 1 the candidate is faster.

    Adjacent blocks met the same machine, so its drift cancels in each ratio; over 70 recorded processes on a shared CPU
    this was steadier between processes than the ratio of the two medians.
    """
    references, candidates = sampled.block_medians_ms[reference], sampled.block_medians_ms[candidate]
    return Estimate.of([r / c for r, c in zip(references, candidates, strict=True)])


@dataclass(frozen=True, slots=True)
class PairTimes:
    """Everything that timing one pair gave. ``speedup`` is None for the reference itself."""

    samples: Samples
    sentinel: Samples
    speedup: Estimate | None
    throughput_ips: float
    device_time_ms: float | None

    def columns(self) -> dict[str, Any]:
        """The columns of a row that come from timing."""
        latency = Estimate.of(self.samples.times_ms)
        speedup = self.speedup or Estimate(1.0, 1.0, 1.0)
        times = np.asarray(self.samples.times_ms)
        device = self.device_time_ms
        spread = _MAD_TO_SIGMA * float(np.median(np.abs(times - latency.value)))
        return {
            "latency_ms": latency.value,
            "latency_low_ms": latency.low,
            "latency_high_ms": latency.high,
            "latency_q10_ms": _quantile(self.samples, 0.10),
            "latency_p95_ms": _quantile(self.samples, 0.95) if times.size >= _MIN_FOR_P95 else None,
            "latency_p99_ms": _quantile(self.samples, 0.99) if times.size >= _MIN_FOR_P99 else None,
            "latency_cv": spread / latency.value,
            "device_time_ms": device,
            "throughput_ips": self.throughput_ips,
            "samples": times.size,
            "stop_reason": self.samples.stop_reason,
            "launch_bound": None if device is None else latency.value > _LAUNCH_BOUND * device,
            "speedup": speedup.value,
            "speedup_low": speedup.low,
            "speedup_high": speedup.high,
            "sentinel_ms": _quantile(self.sentinel, SENTINEL_QUANTILE),
        }


def _quantile(samples: Samples, probability: float) -> float:
    return float(np.quantile(samples.times_ms, probability))
