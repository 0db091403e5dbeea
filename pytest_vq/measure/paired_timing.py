"""Timing one pair, or callable: its samples beside FP32's and the sentinel's, then what is measured of the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median

from pytest_vq.device.clock import Call
from pytest_vq.device.device import Device
from pytest_vq.device.device_time import METHOD, device_time_ms
from pytest_vq.execution.prepared import Request
from pytest_vq.measure.energy import LONGEST_STRETCH_S, STRETCH_S, energy_per_image_mj
from pytest_vq.measure.sampler import StopRule, sample
from pytest_vq.measure.timing import DeviceFigures, figures_of
from pytest_vq.measure.watch import Watch
from pytest_vq.measure.workload import Workload
from pytest_vq.schema.figures import TimedFigures
from pytest_vq.schema.record import PairSamples, Samples
from pytest_vq.schema.spec import CALLABLE, FP32

_SENTINEL = "sentinel"
_THROUGHPUT_S = 0.3


@dataclass(frozen=True, slots=True)
class Partners:
    """What a pair is timed beside, warm and on its device."""

    sentinel: Call
    fp32: Request | None  # None for FP32 itself, and for a callable


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is timed, and how many images one request of it answers; None for a callable."""

    name: str
    request: Request
    images: int | None


def time_pair(
    workload: Workload, partners: Partners, device: Device, rule: StopRule
) -> tuple[PairSamples, TimedFigures]:
    """Every time taken of ``workload`` and its ``partners``, in turns, and the figures of its row.

    ``sm_clock_mhz`` and ``power_mw`` are of those turns: of a device that works on all of them.
    """
    subject = _Subject(workload.case.scheme.name, workload.request, workload.case.batch)
    return _time(subject, partners, device, rule)


def time_callable(
    request: Request, partners: Partners, device: Device, rule: StopRule
) -> tuple[PairSamples, TimedFigures]:
    """The same of a callable: what is counted in images, or compared with FP32, it has none of."""
    return _time(_Subject(CALLABLE, request, None), partners, device, rule)


def _time(subject: _Subject, partners: Partners, device: Device, rule: StopRule) -> tuple[PairSamples, TimedFigures]:
    watch = Watch(device.telemetry.glance, device.clock.now_s)
    samples = _sample(subject, partners, device, rule, watch)
    measured = _measure_device(subject, partners.fp32, samples, device)
    watched = replace(measured, sm_clock_mhz=watch.median("sm_clock_mhz"), power_mw=watch.median("power_mw"))
    return samples, figures_of(samples, watched, has_speedup=subject.images is not None)


def _sample(subject: _Subject, partners: Partners, device: Device, rule: StopRule, watch: Watch) -> PairSamples:
    requests = {_SENTINEL: Request(partners.sentinel)}
    if partners.fp32 is not None:
        requests[FP32] = partners.fp32
    requests[subject.name] = subject.request
    rule = replace(rule, brief=frozenset({_SENTINEL}))
    samples: Mapping[str, Samples] = sample(requests, subject.name, device.clock, rule, watch)
    reference = None if partners.fp32 is None else samples[FP32]
    return PairSamples(device.environment.date_utc, samples[subject.name], reference, samples[_SENTINEL])


def _measure_device(subject: _Subject, fp32: Request | None, samples: PairSamples, device: Device) -> DeviceFigures:
    """Throughput; on an accelerator, from calls back to back, and with energy and device times besides."""
    images, request = subject.images, subject.request
    if not device.is_accelerator:  # a call returns when it is done: what was sampled is back to back already
        return DeviceFigures(None if images is None else images * 1e3 / fmean(samples.subject.times_ms))
    latency_ms = median(samples.subject.times_ms)
    throughput_ips = energy_mj = reference_ms = None
    with request.context():
        if images is not None:
            calls = _calls_in(_THROUGHPUT_S, latency_ms)
            throughput_ips = images * 1e3 / device.clock.time_ms(request.call, 1, calls)[0]
            energy_mj = _energy_per_image_mj(request.call, latency_ms, device, images)
        own_ms = device_time_ms(request.call, latency_ms) or None  # 0: it launched nothing
    # FP32's is only of use beside the candidate's.
    if own_ms is not None and fp32 is not None and samples.reference is not None:
        with fp32.context():
            reference_ms = device_time_ms(fp32.call, median(samples.reference.times_ms))
    return DeviceFigures(
        throughput_ips,
        device_time_ms=own_ms,
        device_time_method=None if own_ms is None else METHOD,
        reference_device_time_ms=reference_ms,
        energy_per_image_mj=energy_mj,
    )


def _energy_per_image_mj(call: Call, latency_ms: float, device: Device, batch: int) -> float | None:
    if latency_ms / 1e3 > LONGEST_STRETCH_S:
        return None
    calls = _calls_in(STRETCH_S, latency_ms)
    stretch = partial(device.clock.time_ms, call, 1, calls)
    return energy_per_image_mj(device.telemetry.energy_mj, stretch, calls * batch, device.clock.now_s)


def _calls_in(span_s: float, latency_ms: float) -> int:
    return max(1, round(span_s * 1e3 / latency_ms))
