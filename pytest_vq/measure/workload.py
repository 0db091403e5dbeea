"""A pair made ready on the device: converted, prepared to run, and the inputs of its timed request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from pytest_vq.catalog.inputs import (
    ModelInputs,
    batch_of,
    move_inputs,
    named_tensors,
    pad_inputs,
    rows_at_once,
    split_inputs,
)
from pytest_vq.catalog.output import taken_output
from pytest_vq.device.device import Device, is_device_trouble
from pytest_vq.errors import ExecutionError, OutputError, VqError, first_line
from pytest_vq.execution.executions import load_prepare
from pytest_vq.execution.prepared import Alteration, Context, Prepared, Request, unaltered
from pytest_vq.measure.reference import Reference, forward
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.opaque import convert_opaque
from pytest_vq.schema.figures import Preparation
from pytest_vq.schema.spec import EAGER, Case, PrecisionSpec


@dataclass(frozen=True, slots=True)
class Workload:
    """One pair on the device."""

    case: Case
    converted: Converted
    prepared: Prepared
    inputs: ModelInputs  # of the timed request, on the device, in the type the model is fed
    prepare_s: float | None = None  # None for eager execution

    @property
    def request(self) -> Request:
        """The request that is timed and whose memory is measured."""
        return self.prepared.request(self.inputs)

    @property
    def preparation(self) -> Preparation:
        """How it was made ready to run; what was compiled is counted up to now."""
        prepared, counts = self.prepared, self.prepared.counts() if self.prepared.counts else None
        return Preparation(
            execution=self.case.scheme.execution.name,
            prepare_s=self.prepare_s,
            prepare_cache=prepared.cache,
            graphs=counts.graphs if counts else None,
            graph_breaks=counts.graph_breaks if counts else None,
            recompiles=counts.recompiles if counts else None,
        )

    def answer(self, inputs: ModelInputs) -> Tensor:
        """What it answers to ``inputs`` (FP32, on the CPU), on the device. Raises as `reference.forward` does.

        What was made for a number of images gets them by that many, so that it is the timed program that is judged.
        Others get them by parts where they are more than a request's and too many to be fed at once.
        """
        batch = self.prepared.batch
        parts = split_inputs(inputs, batch or max(self.case.batch, rows_at_once(inputs)))
        if batch is None and len(parts) == 1:
            return self._answer_part(parts[0])
        # Copied, because the next call may change them.
        answers = [self._answer_part(part if batch is None else pad_inputs(part, batch)).clone() for part in parts]
        return torch.cat(answers)[: batch_of(inputs)]

    def _answer_part(self, part: ModelInputs) -> Tensor:
        fed = move_inputs(part, next(named_tensors(self.inputs))[1].device, self.converted.dtype)
        return forward(self.prepared.request(fed), fed, self.case.id, taking(self.case))


def taking(case: Case) -> Callable[[object], Tensor]:
    """What takes the tensor to be compared out of what ``case`` answers."""
    of_model = partial(taken_output, case.model)
    if case.precision.program is None:
        return of_model

    def of_program(answer: object) -> Tensor:
        # A program may return what the model does or, as those of other libraries do, that tensor.
        if isinstance(answer, Tensor):
            return answer
        try:
            return of_model(answer)
        except OutputError as error:
            kind = type(answer).__name__
            what = f"its program returned a {kind}; Opaque.call must return a torch.Tensor, or what the model does"
            raise OutputError(what) from error

    return of_program


def place(case: Case, reference: Reference, device: Device, alter: Alteration = unaltered) -> Workload:
    """The workload of ``case`` on ``device``, converted from the FP32 source of ``reference``.

    The device is waited for before the conversion and before the first forward, for bitsandbytes' sake: a call of it
    that finds a CUDA error, even one that an earlier kernel left behind, writes a line to stderr and ends the process.
    Waiting lets torch raise that error. An error of bitsandbytes' own kernels still ends the process; under xdist that
    is a crashed worker, reported with the name of its test.
    """
    model, scheme = case.model, case.scheme
    device.synchronize()
    if device.is_accelerator:
        reference.pin()
    example = reference.example(case.batch)
    converted = convert_on(device, reference.source, scheme.precision, model.heads, example)
    inputs = move_inputs(example, device.torch_device, converted.dtype)
    prepared, prepare_s = _prepare(case, converted, inputs, device)
    workload = Workload(case, converted, alter(scheme, prepared), inputs, prepare_s)
    device.synchronize()
    return workload


def convert_on(
    device: Device, source: nn.Module, precision: PrecisionSpec, heads: Sequence[str], example: ModelInputs
) -> Converted:
    """``source`` at ``precision`` on ``device``, verified; or the user's program of it, made for inputs as ``example``.

    Raises PrecisionError as ``convert`` and ``convert_opaque`` do.
    """
    if precision.program is not None:
        return convert_opaque(source, precision, device.torch_device, example)
    return convert(source, precision, device=device.torch_device, rest=device.rest_for(precision), heads=heads)


def _prepare(case: Case, converted: Converted, inputs: ModelInputs, device: Device) -> tuple[Prepared, float | None]:
    """What the execution prepared, and the seconds to its first answer: none for eager execution, which has no cost.

    The precision's switches hold meanwhile, and in the context of what is prepared, so that a program is called as it
    was compiled or recorded.
    """
    prepare, switches = load_prepare(case.scheme.execution), switches_of(case.precision)
    if case.scheme.execution.name == EAGER:
        prepared = _switched(case, switches, prepare(converted, inputs))
        # A program may be made for the request's number of images.
        return (prepared if case.precision.program is None else replace(prepared, batch=case.batch)), None
    device.synchronize()
    started_s = device.clock.now_s()
    with _naming(case), naming_failures(case.scheme.execution.name), switches():
        prepared = _switched(case, switches, prepare(converted, inputs))
    try:
        forward(prepared.request(inputs), inputs, case.id, taking(case))
        device.synchronize()
    except BaseException:
        prepared.close()
        raise
    return prepared, device.clock.now_s() - started_s


def switches_of(precision: PrecisionSpec) -> Context:
    """The global switches that hold while a model of ``precision`` is called; none for most."""
    if precision.switches is None:
        return nullcontext
    switches: Context = resolve_name(precision.switches)
    return switches


def _switched(case: Case, switches: Context, prepared: Prepared) -> Prepared:
    """``prepared``, in whose context the ``switches`` hold too, and whose errors name the pair."""
    own = prepared.context
    if switches is nullcontext and own is nullcontext:
        return prepared

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with _naming(case), switches(), own():
            yield

    return replace(prepared, context=context)


@contextlib.contextmanager
def naming_failures(what: str) -> Iterator[None]:
    """Turn what goes wrong while ``what`` is made ready to run into an ``ExecutionError``, unless it is the device's.

    An error of ours is left as it is: it says what happened.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, VqError) or is_device_trouble(error):
            raise
        failure = f"{what} could not be prepared: {type(error).__name__}: {first_line(error)}"
        raise ExecutionError(failure) from error


@contextlib.contextmanager
def _naming(case: Case) -> Iterator[None]:
    """Have each ``ExecutionError`` say which pair it is about."""
    try:
        yield
    except ExecutionError as error:
        raise ExecutionError(f"{case.id}: {error}") from error.__cause__


def reference_request(fp32: Case, reference: Reference, device: Device, alter: Alteration) -> Request:
    """A warm request to the FP32 model that ``fp32`` names, to be timed beside another scheme's.

    It runs eagerly, so nothing has to be closed.
    """
    if device.is_accelerator:
        request = place(fp32, reference, device, alter).request
        request()
        return request
    # Already where it must be: no copy of a model that may be a giant.
    return alter(fp32.scheme, Prepared(reference.source)).request(reference.example(fp32.batch))
