"""One model on one device, with inputs to choose on and others to check on: builds mixes of it and measures them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch
from torch import Tensor

from pytest_vq.catalog.build import example_inputs
from pytest_vq.catalog.inputs import ModelInputs, change_tensors
from pytest_vq.device.device import Device, guarded, open_device
from pytest_vq.device.lock import device_lock
from pytest_vq.device.memory import freeze_live_objects
from pytest_vq.errors import SelectionError
from pytest_vq.execution.executions import find_execution
from pytest_vq.execution.prepared import Request, unaltered
from pytest_vq.execution.schemes import reference_scheme
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.sampler import StopRule, sample
from pytest_vq.measure.timing import MedianInterval, paired_speedup
from pytest_vq.measure.warming import warm_precision
from pytest_vq.measure.workload import Workload, convert_on, place, reference_request
from pytest_vq.options import Options
from pytest_vq.precision.fidelity import check_output, find_right, measure_fidelity
from pytest_vq.schema.figures import present
from pytest_vq.schema.recipe import Wish
from pytest_vq.schema.spec import EAGER, Case, Mix, ModelSpec, PrecisionSpec, Scheme

MIX = "mix"  # what messages call a precision that is no recipe yet
_IMAGES = 8  # to choose on, and as many to check on, where none are labelled
_PROBED = 128  # of labelled images, at most, on which a single layer's noise is measured
_SUBJECT, _OTHER = "subject", "other"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of n images (FP32, on the CPU), what FP32 answers to them, and their labels where they have some."""

    images: ModelInputs
    answer: Tensor
    labels: Tensor | None

    @property
    def signal(self) -> float:
        """The power of FP32's answer: the sum of its squares."""
        return float(self.answer.double().square().sum())

    def first(self, count: int) -> Inputs:
        """The first of them."""
        images = change_tensors(self.images, lambda tensor: tensor[:count])
        return Inputs(images, self.answer[:count], None if self.labels is None else self.labels[:count])

    def right(self, answer: Tensor) -> float | None:
        """The fraction of ``answer`` that is right; None without labels."""
        return None if self.labels is None else float(find_right(answer, self.labels).double().mean())

    def top1(self, answer: Tensor) -> float | None:
        """Accuracy of ``answer`` over FP32's; None without labels."""
        own, fp32 = self.right(answer), self.right(self.answer)
        if own is None or fp32 is None:
            return None
        if fp32 == 0:
            raise SelectionError("--min-top1 is a share of FP32's accuracy, and FP32 has none of these images right")
        return own / fp32


@dataclass(frozen=True, slots=True)
class Answered:
    """How a mix answers some inputs, and the bytes it is stored in."""

    noise: float  # power of the difference from FP32's answer
    sqnr_db: float
    top1: float | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Paired:
    """Two things timed in turns: the other's time over the subject's (above 1 the subject is faster), and medians."""

    speedup: MedianInterval
    subject_ms: float
    other_ms: float


@dataclass(slots=True)
class Workshop:
    """Made by ``opened``; all of it is done with the device locked."""

    model: ModelSpec
    reference: Reference
    device: Device
    wish: Wish
    budget_s: float
    calibration: Inputs
    held_out: Inputs
    _fp32: Request | None = None
    _warm: set[str] = field(default_factory=set)

    @property
    def probed(self) -> Inputs:
        """What a single layer's noise is measured on: part of what is chosen on."""
        return self.calibration.first(_PROBED)

    @contextmanager
    def placed(self, mix: Mix, execution: str = EAGER) -> Iterator[Workload]:
        """The model at ``mix``, ready to run; closed at the end. Raises PrecisionError where it cannot be had."""
        spec = PrecisionSpec(MIX, min_sqnr_db=None, mix=mix)
        for part in spec.parts:
            if part.name not in self._warm:
                warm_precision(part, self.device)
                self._warm.add(part.name)
        scheme = Scheme(spec, find_execution(execution))
        workload = place(Case(self.model, scheme, self.wish.batch), self.reference, self.device)
        try:
            yield workload
        finally:
            workload.prepared.close()

    def size_bytes(self, mix: Mix) -> int:
        """The bytes that the model is stored in at ``mix``."""
        spec = PrecisionSpec(MIX, min_sqnr_db=None, mix=mix)
        example = self.reference.example(self.wish.batch)
        return convert_on(self.device, self.reference.source, spec, self.model.heads, example).model_size_bytes

    def answered(self, workload: Workload, inputs: Inputs) -> Answered:
        """How ``workload`` answers ``inputs``. Raises OutputError where nothing can be compared."""
        answer = workload.answer(inputs.images)
        check_output(answer, self.model.name, like=inputs.answer)
        own = answer.detach().to("cpu", torch.float64)
        noise = float((own - inputs.answer.double()).square().sum())
        sqnr_db = present(measure_fidelity(inputs.answer, answer).sqnr_db)
        return Answered(noise, sqnr_db, inputs.top1(own), workload.converted.model_size_bytes)

    def time_beside_fp32(self, workload: Workload) -> Paired:
        """``workload`` timed in turns with FP32."""
        if self._fp32 is None:
            case = Case(self.model, reference_scheme(), self.wish.batch)
            self._fp32 = reference_request(case, self.reference, self.device, unaltered)
        return self.time_beside(self._fp32, workload)

    def time_beside(self, other: Request, workload: Workload, budgets: int = 1) -> Paired:
        """``workload`` timed in turns with ``other``, for so many times the seconds of a build."""
        requests = {_OTHER: other, _SUBJECT: workload.request}
        for request in requests.values():  # preparing the one may have made the other forget what it compiled
            request()
        sampled = sample(requests, _SUBJECT, self.device.clock, StopRule(budgets * self.budget_s))
        ratio = paired_speedup(sampled[_OTHER], sampled[_SUBJECT])
        return Paired(ratio, median(sampled[_SUBJECT].times_ms), median(sampled[_OTHER].times_ms))


@contextmanager
def opened(model: ModelSpec, wish: Wish, options: Options) -> Iterator[Workshop]:
    """A workshop for ``model``, with the device to itself."""
    device = open_device(options.gpu, options.threads)
    with guarded(device, model.name):
        reference = Reference.of(model, options.weights)
    with device_lock(device.environment.device_uuid):
        try:
            with guarded(device, model.name), torch.inference_mode():
                calibration, held_out = _split(reference)
                freeze_live_objects()  # each of many samplings collects garbage first
                yield Workshop(model, reference, device, wish, options.budget_s, calibration, held_out)
        finally:
            gc.unfreeze()
            device.release()


def _split(reference: Reference) -> tuple[Inputs, Inputs]:
    """Inputs to choose on and inputs to check on, which have none in common: labelled ones where there are any."""
    inputs, labels = example_inputs(reference.model, 2 * _IMAGES), None
    if reference.labelled is not None:
        inputs, labels = reference.labelled
    halves = []
    for start in (0, 1):
        own = change_tensors(inputs, partial(_every_second, start=start))
        halves.append(Inputs(own, reference.answer_to(own), None if labels is None else labels[start::2]))
    return halves[0], halves[1]


def _every_second(tensor: Tensor, start: int) -> Tensor:
    """Every second row, and not the first half: files may be sorted."""
    return tensor[start::2].contiguous()
