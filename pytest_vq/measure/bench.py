"""One pair from its spec to its record: built, checked, its memory measured, then timed against FP32."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median
from typing import Any, TypeVar

import torch
from torch import nn

from pytest_vq.catalog.build import example_inputs, weights_kind
from pytest_vq.device.clock import Call
from pytest_vq.device.device import Device, guarded, open_device
from pytest_vq.device.device_time import device_time_ms
from pytest_vq.device.lock import device_lock
from pytest_vq.device.memory import set_living_aside
from pytest_vq.device.peak import peak_stacks
from pytest_vq.device.profile import profile_operators
from pytest_vq.measure.reference import Reference, forward
from pytest_vq.measure.sampler import Sampled, StopRule, sample
from pytest_vq.measure.sentinel import sentinel
from pytest_vq.measure.timing import Estimate, PairTimes, paired_speedup
from pytest_vq.options import Options
from pytest_vq.precision.convert import Converted, SameBytesGuard, convert
from pytest_vq.precision.precisions import find_precision
from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.record import Record, Setup, Timing
from pytest_vq.schema.spec import FP32, Case, ModelSpec, PrecisionSpec

Result = TypeVar("Result")
Profile = tuple[Mapping[str, Operator], list[str]]
_SENTINEL = "sentinel"
_THROUGHPUT_S = 0.3


@dataclass(frozen=True, slots=True)
class Measured:
    """A record without a verdict, the samples behind its latency (ms) and, where asked for, its operators."""

    record: Record
    samples_ms: tuple[float, ...]
    operators: Mapping[str, Operator] = field(default_factory=dict)


class Bench:
    """Measures pairs on one device, one after another, leaving nothing behind on it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._device: Device | None = None
        self._reference: Reference | None = None
        self._fp32_peak_bytes: dict[tuple[str, int], int | None] = {}
        self._same_bytes = SameBytesGuard()
        self._warm_schemes: set[str] = set()

    @property
    def device(self) -> Device:
        """The device, opened at first use."""
        if self._device is None:
            self._device = open_device(self._options.gpu, self._options.threads)
        return self._device

    def release(self) -> None:
        """Let go of the model that is kept for the next precision, and of the device's memory."""
        self._reference = None
        gc.unfreeze()
        if self._device is not None:
            self._device.release()

    def measure(self, case: Case, *, profiled: bool = False) -> Measured:
        """Measure ``case``. Raises a ``VqError`` that names the pair; the next pair is unharmed by it."""
        return self._alone(case, partial(self._measure, profiled=profiled))

    def profile(self, case: Case) -> Profile:
        """What one warm request of ``case`` spends its time in, largest first, and who holds its memory at the peak."""
        return self._alone(case, self._profile)

    def _alone(self, case: Case, work: Callable[[Case, Reference], Result]) -> Result:
        """Do ``work`` with the device to itself; the FP32 source is built before others are made to wait."""
        device = self.device
        with guarded(device, case.id):
            self._warm_scheme(case.precision)
            reference = self._reference_of(case.model)
        try:
            with device_lock(device.environment.device_uuid), guarded(device, case.id), torch.inference_mode():
                return work(case, reference)
        finally:
            device.release()

    def _profile(self, case: Case, reference: Reference) -> Profile:
        device, request = self.device.torch_device, self._warm_request(case, reference)
        return profile_operators(request, device), peak_stacks(request, device) if self.device.is_accelerator else []

    def time(self, call: Call) -> Timing:
        """Time any callable by the same clock, warm-up, stop rule and memory reset as the pairs."""
        device = self.device
        with device_lock(device.environment.device_uuid), guarded(device, "gpu_timer"):
            device.memory.mark()
            call()
            memory = device.memory.measure(call)
            samples = sample({"call": call}, "call", device.clock, self._stop_rule()).samples["call"]
        latency = Estimate.of(samples.times_ms)
        peak_bytes, why = memory.peak_bytes, samples.stop_reason
        return Timing(latency.value, latency.low, latency.high, samples.times_ms, peak_bytes, why)

    def _stop_rule(self) -> StopRule:
        budget_s = self._options.budget_s
        return StopRule.study(budget_s) if self._options.protocol == "study" else StopRule(budget_s=budget_s)

    def _reference_of(self, model: ModelSpec) -> Reference:
        if self._reference is None or self._reference.model != model:
            self._reference = None  # before the next is built: two giants may not fit
            set_living_aside()
            self._reference = Reference.of(model, self._options.weights)
        return self._reference

    def _measure(self, case: Case, reference: Reference, profiled: bool) -> Measured:
        reference.answer(case.batch)  # before the mark: its forward must not count as the candidate's
        fp32_peak_bytes = None if case.is_reference else self._reference_peak_bytes(case, reference)
        self.device.memory.mark()
        converted, request = self._place(case, reference)
        self._same_bytes.check(case.model.name, case.precision.name, converted.fingerprint)
        answers = self._answers(case, reference, converted)
        if reference.labelled:  # so far it answered other images than the request whose memory is meant
            request()
        memory = self.device.memory.measure(request)
        if case.is_reference:
            fp32_peak_bytes = self._fp32_peak_bytes[case.model.name, case.batch] = memory.peak_bytes
        before = self.device.telemetry.read()
        times = self._time(case, reference, request)
        after = self.device.telemetry.read()
        record = Record(
            **self._identity(case, reference, converted),
            **times.columns(),
            **answers,
            **memory.columns(fp32_peak_bytes, self.device.memory.resolution_bytes),
            device_memory_bytes=before.get("device_memory_bytes"),
            disturbance=self.device.telemetry.disturbance(before, after),
            telemetry={"before": before, "after": after},
        )
        operators = profile_operators(request, self.device.torch_device) if profiled else {}
        return Measured(record, times.samples.times_ms, operators)

    def _warm_scheme(self, scheme: PrecisionSpec) -> None:
        """Use a scheme once on a small layer: libraries load code and take workspaces at their first call.

        Done before any memory is marked, or that would count as the first candidate's.
        """
        if scheme.name in self._warm_schemes:
            return
        small = nn.Sequential(nn.Conv2d(3, 64, 8, 8), nn.Flatten(2), nn.Linear(64, 64), nn.LayerNorm(64)).eval()
        converted = convert(small, scheme, device=self.device.torch_device, heads=())
        converted.module(torch.randn(1, 3, 64, 64).to(self.device.torch_device, converted.dtype))
        self._warm_schemes.add(scheme.name)
        set_living_aside()

    def _place(self, case: Case, reference: Reference) -> tuple[Converted, Call]:
        """The model of ``case`` on the device, and a request to it."""
        device = self.device.torch_device
        converted = convert(reference.source, case.precision, device=device, heads=case.model.heads)
        images = example_inputs(case.model, case.batch).to(device, converted.dtype)
        return converted, partial(converted.module, images)

    def _warm_request(self, case: Case, reference: Reference) -> Call:
        _, request = self._place(case, reference)
        request()
        return request

    def _reference_peak_bytes(self, case: Case, reference: Reference) -> int | None:
        """FP32's peak, for ``memory_reduction``: taken once, alone on the device, whatever the order of the tests."""
        key = (case.model.name, case.batch)
        if key not in self._fp32_peak_bytes:
            self.device.memory.mark()
            request = self._warm_request(_fp32_of(case), reference)
            self._fp32_peak_bytes[key] = self.device.memory.measure(request).peak_bytes
        return self._fp32_peak_bytes[key]

    def _answers(self, case: Case, reference: Reference, converted: Converted) -> dict[str, Any]:
        """The columns that say how well it answers. Raises where an answer cannot be used."""
        images = reference.images(case.batch).to(self.device.torch_device, converted.dtype)
        return reference.columns(case, forward(converted.module, images, case.id))

    def _time(self, case: Case, reference: Reference, request: Call) -> PairTimes:
        device, name = self.device, case.precision.name
        workloads: dict[str, Call] = {_SENTINEL: sentinel(device.torch_device)}
        if not case.is_reference:
            workloads[FP32] = self._fp32_request(case, reference)
        workloads[name] = request
        sampled = sample(workloads, name, device.clock, self._stop_rule(), brief=frozenset({_SENTINEL}))
        latency_ms = median(sampled.samples[name].times_ms)
        return PairTimes(
            samples=sampled.samples[name],
            sentinel=sampled.samples[_SENTINEL],
            speedup=None if case.is_reference else paired_speedup(sampled, FP32, name),
            throughput_ips=self._throughput_ips(case, request, sampled),
            device_time_ms=device_time_ms(request, latency_ms) if device.is_accelerator else None,
        )

    def _fp32_request(self, case: Case, reference: Reference) -> Call:
        if self.device.is_accelerator:
            return self._warm_request(_fp32_of(case), reference)
        return partial(reference.source, example_inputs(case.model, case.batch))  # already where it must be: no copy

    def _throughput_ips(self, case: Case, request: Call, sampled: Sampled) -> float:
        """Images per second, calls back to back; on a CPU, where a call returns when done, that is what was sampled."""
        times_ms = sampled.samples[case.precision.name].times_ms
        if not self.device.is_accelerator:
            return case.batch * 1e3 / fmean(times_ms)
        calls = max(1, round(_THROUGHPUT_S * 1e3 / median(times_ms)))
        return case.batch * 1e3 / self.device.clock.time_ms(request, 1, calls)[0]

    def _identity(self, case: Case, reference: Reference, converted: Converted) -> dict[str, Any]:
        """The columns that say what this row is of."""
        model, weights = case.model, weights_kind(case.model, self._options.weights)
        return {
            "model": model.name,
            "category": model.category,
            "architecture": model.architecture,
            "parameters": model.parameters or sum(p.numel() for p in reference.source.parameters()),
            "precision": case.precision.name,
            "method": converted.method,
            "device": self.device.environment.device_name,
            "batch": case.batch,
            "weights": weights,
            "model_size_bytes": converted.model_size_bytes,
            "quantized_layers": converted.coverage.quantized,
            "eligible_layers": converted.coverage.eligible,
            "coverage": converted.coverage,
            "setup": Setup(
                precision=case.precision.name,
                batch=case.batch,
                protocol=self._options.protocol,
                weights=weights,
                threads=None if self.device.is_accelerator else self._options.threads,
                tf32=False,
            ),
        }


def _fp32_of(case: Case) -> Case:
    return Case(case.model, find_precision(FP32), case.batch)
