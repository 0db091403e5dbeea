"""The sections of a record that say what was measured, from the workload and the device it ran on."""

from __future__ import annotations

from pytest_vq.catalog.build import weights_kind
from pytest_vq.device.device import Device
from pytest_vq.device.memory import MemoryReading
from pytest_vq.device.telemetry import State
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.workload import Workload
from pytest_vq.options import Options
from pytest_vq.precision.converted import short_name
from pytest_vq.schema.figures import Identity, MemoryFigures
from pytest_vq.schema.record import Setup
from pytest_vq.schema.spec import Case


def identity_of(workload: Workload, reference: Reference, device: Device, options: Options) -> Identity:
    """What the row is of."""
    case, model = workload.case, workload.case.model
    parameters = model.parameters
    if parameters is None:  # a user's model
        parameters = sum(p.numel() for p in reference.source.parameters())
    return Identity(
        model=model.name,
        category=model.category,
        architecture=model.architecture,
        parameters=parameters,
        precision=case.precision.name,
        method=workload.converted.method,
        device=device.environment.device_name,
        batch=case.batch,
        weights=weights_kind(model, options.weights),
    )


def setup_of(case: Case, device: Device, options: Options) -> Setup:
    """What makes the row comparable with others."""
    return Setup(
        precision=case.precision.name,
        batch=case.batch,
        protocol=options.protocol,
        weights=weights_kind(case.model, options.weights),
        threads=None if device.is_accelerator else options.threads,
        tf32=False,
        execution=case.scheme.execution.name,
        rest=None if case.precision.layer is None else short_name(device.rest_dtype),
    )


def memory_of(
    workload: Workload, reading: MemoryReading, fp32_peak_bytes: int | None, device: Device, state: State
) -> MemoryFigures:
    """What the model holds; ``fp32_peak_bytes`` is what a reduction is taken from, ``state`` the device's beside it."""
    return MemoryFigures(
        resting_memory_bytes=reading.resting_bytes,
        peak_memory_bytes=reading.peak_bytes,
        activation_memory_bytes=reading.activation_bytes,
        reserved_memory_bytes=reading.reserved_bytes,
        device_memory_bytes=state.get("device_memory_bytes"),
        model_size_bytes=workload.converted.model_size_bytes,
        memory_reduction=reading.saved_of(fp32_peak_bytes, device.memory.resolution_bytes),
        workspace_bytes=reading.workspace_bytes,
    )
