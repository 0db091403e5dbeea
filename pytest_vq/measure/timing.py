"""From samples to the figures of a row. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_vq.measure.interval import median_interval
from pytest_vq.schema.figures import TimedFigures
from pytest_vq.schema.record import PairSamples, Samples

MIN_FOR_P95, _MIN_FOR_P99 = 60, 300  # below these a tail quantile is one sample's luck
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
# Calls longer than the sentinel's cannot dodge a neighbour's bursts as well: what they meet at their 10 % quantile, its
# shorter ones meet at a higher one. Of 10, 25 and 50 %, tried on a shared CPU, this one did well both calm and busy.
SENTINEL_QUANTILE = 0.25
_LAUNCH_BOUND = 1.1  # latency / device time above which precision cannot show


@dataclass(frozen=True, slots=True)
class MedianInterval:
    """A median with its 95 % interval; no interval below 6 values."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> MedianInterval:
        """The median of ``values``, in their unit."""
        low, high = median_interval(values) or (None, None)
        return cls(float(np.median(values)), low, high)


def paired_speedup(reference: Samples, candidate: Samples) -> MedianInterval:
    """The median ratio of adjacent blocks, reference time / candidate time: above 1 the candidate is faster.

    Adjacent blocks met the same machine, so its drift cancels in each ratio; over 70 recorded processes on a shared CPU
    this was steadier between processes than the ratio of the two medians.
    """
    blocks = zip(reference.block_medians_ms, candidate.block_medians_ms, strict=True)
    return MedianInterval.of([r / c for r, c in blocks])


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What was measured of the device beside the samples; None where it was not, or cannot be."""

    throughput_ips: float | None
    device_time_ms: float | None = None
    device_time_method: str | None = None
    reference_device_time_ms: float | None = None  # FP32's, in the same process
    energy_per_image_mj: float | None = None
    sm_clock_mhz: float | None = None
    power_mw: float | None = None

    def speedup(self, of_reference: bool) -> float | None:
        """FP32's device time over this one's; 1 for FP32 itself, where it has one."""
        if self.device_time_ms is None:
            return None
        if of_reference:
            return 1.0
        return None if self.reference_device_time_ms is None else self.reference_device_time_ms / self.device_time_ms


def figures_of(pair: PairSamples, device: DeviceFigures, *, has_speedup: bool = True) -> TimedFigures:
    """The timed figures of a row, from what one process sampled.

    The speedup of the reference itself is 1; a callable has none.
    """
    times = np.asarray(pair.subject.times_ms)
    latency = MedianInterval.of(pair.subject.times_ms)
    is_reference = has_speedup and pair.reference is None
    speedup = paired_speedup(pair.reference, pair.subject) if pair.reference else None
    if is_reference:
        speedup = MedianInterval(1.0, 1.0, 1.0)
    spread_ms = _MAD_TO_SIGMA * float(np.median(np.abs(times - latency.value)))
    return TimedFigures(
        latency_ms=latency.value,
        latency_low_ms=latency.low,
        latency_high_ms=latency.high,
        latency_q10_ms=float(np.quantile(times, 0.10)),
        latency_p95_ms=float(np.quantile(times, 0.95)) if times.size >= MIN_FOR_P95 else None,
        latency_p99_ms=float(np.quantile(times, 0.99)) if times.size >= _MIN_FOR_P99 else None,
        latency_cv=spread_ms / latency.value,
        device_time_ms=device.device_time_ms,
        throughput_ips=device.throughput_ips,
        samples=times.size,
        stop_reason=pair.subject.stop_reason,
        launch_bound=_launch_bound(latency.value, device.device_time_ms),
        speedup=speedup.value if speedup else None,
        speedup_low=speedup.low if speedup else None,
        speedup_high=speedup.high if speedup else None,
        sentinel_ms=float(np.quantile(pair.sentinel.times_ms, SENTINEL_QUANTILE)) if pair.sentinel else None,
        reference_latency_ms=float(np.median(pair.reference.times_ms)) if pair.reference else None,
        sentinel_median_ms=float(np.median(pair.sentinel.times_ms)) if pair.sentinel else None,
        device_time_method=device.device_time_method,
        device_speedup=device.speedup(of_reference=is_reference),
        energy_per_image_mj=device.energy_per_image_mj,
        sm_clock_mhz=device.sm_clock_mhz,
        power_mw=device.power_mw,
    )


def _launch_bound(latency_ms: float, device_time_ms: float | None) -> bool | None:
    return None if device_time_ms is None else latency_ms > _LAUNCH_BOUND * device_time_ms
