"""What is loaded at first use, used before anything is measured: it is no part of any one candidate's cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pytest_vq.device.device import Device
from pytest_vq.execution.executions import load_prepare
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.workload import convert_on, place, switches_of
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.precisions import find_precision
from pytest_vq.schema.spec import EAGER, FP32, Case, PrecisionSpec, Scheme


def warm_precision(precision: PrecisionSpec, device: Device) -> None:
    """Use a precision once on a small net: libraries load code and take workspaces at their first call.

    Done before any memory is marked, or that would count as the first candidate's. The device is waited for as in
    ``place``. A user's precision is left out: it may well be for no model but the user's (see ``warm_own``).
    """
    for part in _ours(precision):
        converted, images = _small_net(part, device)
        with switches_of(part)():
            converted.module(images)


def warm_execution(scheme: Scheme, device: Device) -> None:
    """Prepare a small net of the scheme's precision and call it once, as ``warm_precision`` does.

    So that neither memory nor ``prepare_s`` of the first candidate has what a compiler loads and tries out once.
    """
    if scheme.execution.name == EAGER or scheme.execution.is_local:
        return
    precision = next(iter(reversed(_ours(scheme.precision))), find_precision(FP32))  # of a recipe, a layer's
    converted, images = _small_net(precision, device)
    with switches_of(precision)():
        prepared = load_prepare(scheme.execution)(converted, images)
        try:
            prepared.request(images)()
        finally:
            prepared.close()
    device.synchronize()


def is_users(scheme: Scheme) -> bool:
    """True where a user's function has a part in ``scheme``."""
    return scheme.execution.is_local or any(part.is_local for part in scheme.precision.parts)


def warm_own(case: Case, reference: Reference, device: Device) -> None:
    """Make ``case`` ready, call it once, and drop it again: what a user's function loads is loaded by then."""
    workload = place(case, reference, device)
    try:
        workload.request()
    finally:
        workload.prepared.close()
    device.synchronize()


def _ours(precision: PrecisionSpec) -> list[PrecisionSpec]:
    return [part for part in precision.parts if not part.is_local]


def _small_net(precision: PrecisionSpec, device: Device) -> tuple[Converted, Tensor]:
    # Rows of 1,024: torchao's 4-bit tiles are as wide, and narrower ones take more bits than they may.
    small = nn.Sequential(nn.Conv2d(3, 64, 2, 2), nn.Flatten(2), nn.Linear(1024, 64), nn.LayerNorm(64)).eval()
    images = torch.randn(1, 3, 64, 64)
    device.synchronize()
    converted = convert_on(device, small, precision, (), images)
    images = images.to(device.torch_device, converted.dtype)
    device.synchronize()
    return converted, images
