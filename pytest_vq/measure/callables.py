"""One callable from a test to its record: any code, timed beside the sentinel alone, and its memory measured.

There is no model, and no FP32 to compare with: what takes one is empty in the record.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

from pytest_vq.device.clock import Call
from pytest_vq.device.device import Device
from pytest_vq.device.memory import MemoryReading
from pytest_vq.device.peak import peak_stacks
from pytest_vq.device.profile import profile_operators
from pytest_vq.errors import MeasurementError, VqError
from pytest_vq.execution.prepared import Request
from pytest_vq.measure.measured import Measured
from pytest_vq.measure.paired_timing import Partners, time_callable
from pytest_vq.measure.sampler import StopRule, sample
from pytest_vq.measure.sections import memory_held, setup_of
from pytest_vq.measure.timing import MedianInterval
from pytest_vq.options import Options
from pytest_vq.schema.cases import CallableCase
from pytest_vq.schema.figures import Coverage, Fidelity, Identity, Preparation, Timing
from pytest_vq.schema.outcome import Profile
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CALLABLE


def measure_callable(
    case: CallableCase, partners: Partners, device: Device, options: Options, *, profiled: bool
) -> Measured:
    """The record of ``case``; where it is to be ``profiled``, what it spent its time in afterwards.

    It is called first without being measured: libraries load code at their first call, which is no part of any other.
    """
    _call_first(case)
    memory = _measure_memory(case, device)
    before = device.telemetry.read()
    rule = StopRule.of(options.protocol, options.budget_s)
    samples, timing = time_callable(Request(case.call), partners, device, rule)
    after = device.telemetry.read()
    record = Record(
        identity=_identity(case, device),
        timing=timing,
        memory=memory_held(memory, before),
        coverage=Coverage(eligible=None, quantized=None),
        fidelity=Fidelity(),
        setup=setup_of(case, device, options),
        preparation=Preparation(execution=None),
        disturbance=device.telemetry.disturbance(before, after),
        telemetry={"before": before, "after": after},
    )
    return Measured(record, samples, profile_operators(case.call, device.torch_device) if profiled else None)


def time_call(call: Call, device: Device, rule: StopRule) -> Timing:
    """The time and memory of ``call`` alone, with nothing beside it: no record is made of it."""
    device.memory.mark()
    call()
    memory = device.memory.measure(call)
    samples = sample({"call": Request(call)}, "call", device.clock, rule)["call"]
    latency = MedianInterval.of(samples.times_ms)
    peak_bytes, why = memory.peak_bytes, samples.stop_reason
    return Timing(latency.value, latency.low, latency.high, samples.times_ms, peak_bytes, why)


def profile_callable(case: CallableCase, device: Device) -> Profile:
    """What one warm call of ``case`` spends its time in, and who holds an accelerator's memory at the peak."""
    _call_first(case)
    stacks = peak_stacks(case.call, device.torch_device) if device.is_accelerator else []
    return Profile(case.id, profile_operators(case.call, device.torch_device), tuple(stacks))


@contextlib.contextmanager
def noting_the_test(case: CallableCase) -> Iterator[None]:
    """Let an error of the callable's own say which test it is of; its class stays what the test may expect."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, VqError):
            error.add_note(f"raised while vq_gate called {case.method} again and again, for {case.id}")
        raise


def _call_first(case: CallableCase) -> None:
    """Call it once. Raises ``MeasurementError`` where that only made something that would do the work later."""
    answer = case.call()
    if inspect.isawaitable(answer) or inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        if inspect.iscoroutine(answer):
            answer.close()  # or Python warns that it was never awaited
        raise MeasurementError(
            f"{case.id}: {case.method} returns a {type(answer).__name__}, and does its work only when that is awaited "
            "or iterated over: give vq_gate a function that does so"
        )


def _measure_memory(case: CallableCase, device: Device) -> MemoryReading:
    """What one call takes beyond what was there before: its arguments are, and are not counted."""
    device.memory.mark()
    case.call()  # an accelerator's workspaces were given back: that they are taken again is no part of the figure
    return device.memory.measure(case.call)


def _identity(case: CallableCase, device: Device) -> Identity:
    return Identity(
        model=case.test_id,
        category=CALLABLE,
        architecture=None,
        parameters=None,
        precision=CALLABLE,
        method=case.method,
        device=device.environment.device_name,
        batch=None,
        weights=None,
    )
