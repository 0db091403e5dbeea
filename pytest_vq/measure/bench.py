"""One pair from its spec to its record: built, checked, its memory measured, then timed against FP32.

And any callable on the same device (see ``callables``).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from pytest_vq.device.clock import Call
from pytest_vq.device.device import Device, guarded, open_device
from pytest_vq.device.lock import device_lock
from pytest_vq.device.memory import MemoryReading, freeze_live_objects
from pytest_vq.device.peak import peak_stacks
from pytest_vq.device.profile import profile_operators
from pytest_vq.execution.prepared import Alteration, unaltered
from pytest_vq.execution.schemes import reference_scheme
from pytest_vq.measure.callables import measure_callable, noting_the_test, profile_callable, time_call
from pytest_vq.measure.measured import Measured
from pytest_vq.measure.paired_timing import Partners, time_pair
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.sampler import StopRule
from pytest_vq.measure.sections import identity_of, memory_of, memory_refusal, setup_of
from pytest_vq.measure.sentinel import sentinel
from pytest_vq.measure.warming import is_users, warm_execution, warm_own, warm_precision
from pytest_vq.measure.workload import Workload, place, reference_request
from pytest_vq.options import Options
from pytest_vq.precision.convert import SameBytesGuard
from pytest_vq.schema.cases import CallableCase
from pytest_vq.schema.figures import Effort, TimedFigures, Timing
from pytest_vq.schema.outcome import Profile
from pytest_vq.schema.record import PairSamples, Record
from pytest_vq.schema.spec import Case, ModelSpec

Result = TypeVar("Result")


class Bench:
    """Measures pairs and callables on one device, one after another, leaving nothing behind on it.

    ``alter`` may change what is prepared to run (see ``execution.prepared``), the FP32 partner's too.
    """

    def __init__(self, options: Options, alter: Alteration = unaltered) -> None:
        self._options = options
        self._alter = alter
        self._device: Device | None = None
        self._reference: Reference | None = None
        self._fp32_peak_bytes: dict[tuple[str, int], int | None] = {}
        self._same_bytes = SameBytesGuard()
        self._warm: set[str] = set()  # precisions and executions
        self._sentinel_call: Call | None = None

    @property
    def device(self) -> Device:
        """The device, opened at first use."""
        if self._device is None:
            self._device = open_device(self._options.gpu, self._options.threads)
        return self._device

    def release(self) -> None:
        """Let go of the model that is kept for the next precision, and of the device's memory."""
        self._reference = self._sentinel_call = None
        gc.unfreeze()
        if self._device is not None:
            self._device.release()

    def measure(self, case: Case | CallableCase, *, profiled: bool = False) -> Measured:
        """Measure ``case`` and, where it is to be ``profiled``, see afterwards what it spent its time in.

        The latter is no good where the device keeps the profiler. Raises a ``VqError`` that names the pair; the next
        pair is unharmed by it. What a callable raises is raised as it is.
        """
        if isinstance(case, CallableCase):
            measured, effort = self._called(case, partial(self._measure_callable, case, profiled))
        else:
            measured, effort = self._with_device_locked(case, partial(self._measure, profiled=profiled))
        return replace(measured, record=replace(measured.record, effort=effort))

    def profile(self, case: Case | CallableCase) -> Profile:
        """What one warm request of ``case`` spends its time in, largest first, and who holds its memory at the peak.

        Where the device keeps the profiler, this process measures no more.
        """
        if isinstance(case, CallableCase):
            return self._called(case, partial(profile_callable, case, self.device))[0]
        return self._with_device_locked(case, self._profile)[0]

    def time(self, call: Call) -> Timing:
        """Time any callable by the same clock, warm-up, stop rule and memory reset as the pairs."""
        device = self.device
        with device_lock(device.environment.device_uuid), guarded(device, "gpu_timer"):
            return time_call(call, device, self._stop_rule())

    def _with_device_locked(self, case: Case, work: Callable[[Case, Reference], Result]) -> tuple[Result, Effort]:
        """Do ``work`` with the device to itself; the FP32 source is built before others are made to wait.

        All that launches kernels or takes memory there is done with the lock held: warming the precision up, ``work``,
        and giving the memory back, which would count as a neighbour's. Without it, this process only waits for what
        it launched itself (see ``Device.is_lost``).
        """
        device, what, is_built = self.device, case.id, self._is_built(case.model)
        started_s = device.clock.now_s()
        with guarded(device, what):
            reference = self._reference_of(case.model)
        build_s = None if is_built else device.clock.now_s() - started_s
        with device.held() as held, guarded(device, what), torch.inference_mode():
            self._warm_up(case, reference)
            result = work(case, reference)
        return result, Effort(build_s, held.seconds)

    def _measure_callable(self, case: CallableCase, profiled: bool) -> Measured:
        partners = Partners(self._keep_sentinel(), None)
        return measure_callable(case, partners, self.device, self._options, profiled=profiled)

    def _called(self, case: CallableCase, work: Callable[[], Result]) -> tuple[Result, Effort]:
        """Do ``work`` with the device to itself; the grad mode is left alone, for the code is the test's own."""
        device = self.device
        with device.held() as held, noting_the_test(case), guarded(device, case.id):
            freeze_live_objects()
            result = work()
        return result, Effort(device_held_s=held.seconds)

    def _warm_up(self, case: Case, reference: Reference) -> None:
        scheme = case.scheme
        if {scheme.precision.name, scheme.execution.name} <= self._warm:
            return
        if scheme.precision.name not in self._warm:
            warm_precision(scheme.precision, self.device)
        if scheme.execution.name not in self._warm:
            warm_execution(scheme, self.device)
        if is_users(scheme):
            warm_own(case, reference, self.device)
        self._warm |= {scheme.precision.name, scheme.execution.name}
        freeze_live_objects()

    def _reference_of(self, model: ModelSpec) -> Reference:
        if self._reference is None or not self._is_built(model):
            self._reference = None  # before the next is built: two giants may not fit
            freeze_live_objects()
            self._reference = Reference.of(model, self._options.weights)
        return self._reference

    def _is_built(self, model: ModelSpec) -> bool:
        return self._reference is not None and self._reference.model == model

    def _stop_rule(self) -> StopRule:
        return StopRule.of(self._options.protocol, self._options.budget_s)

    def _profile(self, case: Case, reference: Reference) -> Profile:
        device = self.device.torch_device
        with self._placed(case, reference) as workload:
            request = workload.request
            request()
            stacks = peak_stacks(request, device) if self.device.is_accelerator else []
            return Profile(case.id, profile_operators(request, device), tuple(stacks))

    @contextmanager
    def _placed(self, case: Case, reference: Reference) -> Iterator[Workload]:
        """The workload of ``case``, closed at the end whatever happens."""
        workload = place(case, reference, self.device, self._alter)
        try:
            yield workload
        finally:
            workload.prepared.close()

    def _measure(self, case: Case, reference: Reference, profiled: bool) -> Measured:
        reference.answer(case.batch)  # before the mark: its forward must not count as the candidate's
        self._keep_sentinel()  # before it too: what the sentinel holds on the device is then subtracted
        fp32_peak_bytes = None if case.scheme.is_reference else self._reference_peak_bytes(case, reference)
        self.device.memory.mark()
        with self._placed(case, reference) as workload:
            self._same_bytes.check(case.model.name, case.precision, workload.converted.fingerprint)
            return self._measure_placed(workload, reference, fp32_peak_bytes, profiled)

    def _measure_placed(
        self, workload: Workload, reference: Reference, fp32_peak_bytes: int | None, profiled: bool
    ) -> Measured:
        case, device = workload.case, self.device
        judged = reference.judge(case, workload.answer(reference.images(case.batch)))
        if reference.labelled:  # so far it answered other images than the request whose memory is meant
            workload.request()
        memory, note = self._measure_memory(workload)
        if case.scheme.is_reference:
            fp32_peak_bytes = self._fp32_peak_bytes[case.model.name, case.batch] = memory.peak_bytes
        before = device.telemetry.read()
        samples, timing = self._time_pair(workload, reference)
        after = device.telemetry.read()
        record = Record(
            identity=identity_of(workload, reference, device, self._options),
            timing=timing,
            memory=memory_of(workload, memory, fp32_peak_bytes, device, before),
            coverage=workload.converted.coverage,
            fidelity=judged.fidelity,
            setup=setup_of(case, device, self._options),
            preparation=workload.preparation,  # after all calls: a recompilation while they were timed counts
            disturbance=device.telemetry.disturbance(before, after),
            telemetry={"before": before, "after": after},
            right_answers=judged.right_answers,
            note="; ".join(filter(None, (judged.note, note))) or None,
        )
        operators = profile_operators(workload.request, device.torch_device) if profiled else None
        return Measured(record, samples, operators)

    def _measure_memory(self, workload: Workload) -> tuple[MemoryReading, str | None]:
        """The memory of the request; none, and a note, where what is read would not be what the model needs."""
        why_not = memory_refusal(workload, self.device)
        if why_not:
            return MemoryReading(None, None, None), why_not
        return self.device.memory.measure(workload.request, workload.prepared.recorded), None

    def _reference_peak_bytes(self, case: Case, reference: Reference) -> int | None:
        """FP32's peak, for ``memory_reduction``: taken once, alone on the device, whatever the order of the tests."""
        key = (case.model.name, case.batch)
        if key not in self._fp32_peak_bytes:
            self.device.memory.mark()
            with self._placed(_fp32_of(case), reference) as fp32:
                request = fp32.request
                request()
                self._fp32_peak_bytes[key] = self.device.memory.measure(request).peak_bytes
        return self._fp32_peak_bytes[key]

    def _keep_sentinel(self) -> Call:
        """The sentinel, built at first use and kept for every pair."""
        if self._sentinel_call is None:
            self._sentinel_call = sentinel(self.device.torch_device)
        return self._sentinel_call

    def _time_pair(self, workload: Workload, reference: Reference) -> tuple[PairSamples, TimedFigures]:
        case, device, fp32 = workload.case, self.device, None
        if not case.scheme.is_reference:
            fp32 = reference_request(_fp32_of(case), reference, device, self._alter)
        partners = Partners(self._keep_sentinel(), fp32)
        return time_pair(workload, partners, device, self._stop_rule())


def _fp32_of(case: Case) -> Case:
    return replace(case, scheme=reference_scheme())
