"""A pair made ready on the device: converted, prepared to run, and the images of its timed request."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pytest_vq.catalog.build import example_inputs
from pytest_vq.device.device import Device
from pytest_vq.execution.executions import load_prepare
from pytest_vq.execution.prepared import Alteration, Prepared, Request, unaltered
from pytest_vq.measure.reference import Reference, forward
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.spec import Case, PrecisionSpec


@dataclass(frozen=True, slots=True)
class Workload:
    """One pair on the device."""

    case: Case
    converted: Converted
    prepared: Prepared
    images: Tensor  # of the timed request, on the device, in the type the model is fed

    @property
    def request(self) -> Request:
        """The request that is timed and whose memory is measured."""
        return self.prepared.request(self.images)

    def answer(self, images: Tensor) -> Tensor:
        """What it answers to ``images`` (float32, on the CPU), on the device. Raises as `reference.forward` does."""
        fed = images.to(self.images.device, self.converted.dtype)
        return forward(self.prepared.request(fed), fed, self.case.id)


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
    converted = convert(
        reference.source, scheme.precision, device=device.torch_device, rest=device.rest_dtype, heads=model.heads
    )
    images = example_inputs(model, case.batch).to(device.torch_device, converted.dtype)
    prepared = load_prepare(scheme.execution)(converted, images)
    workload = Workload(case, converted, alter(scheme, prepared), images)
    device.synchronize()
    return workload


def reference_request(fp32: Case, reference: Reference, device: Device, alter: Alteration) -> Request:
    """A warm request to the FP32 model that ``fp32`` names, to be timed beside another scheme's.

    It runs eagerly, so nothing has to be closed.
    """
    if device.is_accelerator:
        request = place(fp32, reference, device, alter).request
        request()
        return request
    # Already where it must be: no copy of a model that may be a giant.
    return alter(fp32.scheme, Prepared(reference.source)).request(example_inputs(fp32.model, fp32.batch))


def warm_precision(precision: PrecisionSpec, device: Device) -> None:
    """Use a precision once on a small net: libraries load code and take workspaces at their first call.

    Done before any memory is marked, or that would count as the first candidate's. The device is waited for as in
    ``place``.
    """
    small = nn.Sequential(nn.Conv2d(3, 64, 8, 8), nn.Flatten(2), nn.Linear(64, 64), nn.LayerNorm(64)).eval()
    images = torch.randn(1, 3, 64, 64)
    device.synchronize()
    converted = convert(small, precision, device=device.torch_device, rest=device.rest_dtype, heads=())
    images = images.to(device.torch_device, converted.dtype)
    device.synchronize()
    converted.module(images)
