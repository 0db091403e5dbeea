"""The sections of a record that say what was measured, from the workload and the device it ran on."""

from __future__ import annotations

from dataclasses import replace

from pytest_vq.catalog.build import weights_kind
from pytest_vq.device.device import Device
from pytest_vq.device.memory import MemoryReading
from pytest_vq.device.telemetry import State
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.workload import Workload
from pytest_vq.options import Options
from pytest_vq.precision.converted import short_name
from pytest_vq.precision.precisions import TF32_SWITCHES
from pytest_vq.schema.cases import AnyCase, CallableCase, ServingCase
from pytest_vq.schema.figures import Identity, MemoryFigures
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import CALLABLE


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


def setup_of(case: AnyCase, device: Device, options: Options) -> Setup:
    """What makes the row comparable with others: known before it is measured."""
    if isinstance(case, ServingCase):
        return replace(setup_of(case.case, device, options), protocol="load", serving=case.terms)
    threads = None if device.is_accelerator else options.threads
    if isinstance(case, CallableCase):
        return Setup(CALLABLE, case.case_id.batch, options.protocol, weights=None, threads=threads, tf32=False)
    return Setup(
        precision=case.precision.name,
        batch=case.batch,
        protocol=options.protocol,
        weights=weights_kind(case.model, options.weights),
        threads=threads,
        tf32=case.precision.switches == TF32_SWITCHES,
        execution=case.scheme.execution.name,
        rest=short_name(device.rest_for(case.precision)) if case.precision.replaces_layers else None,
        recipe=None if case.precision.mix is None else case.precision.mix.sha256,
    )


def memory_of(
    workload: Workload, reading: MemoryReading, fp32_peak_bytes: int | None, device: Device, state: State
) -> MemoryFigures:
    """What the model holds; ``fp32_peak_bytes`` is what a reduction is taken from, ``state`` the device's beside it."""
    return replace(
        memory_held(reading, state),
        model_size_bytes=workload.converted.model_size_bytes,
        memory_reduction=reading.saved_of(fp32_peak_bytes, device.memory.resolution_bytes),
        graph_pool_bytes=workload.prepared.pool_bytes or None,
    )


def memory_refusal(workload: Workload, device: Device) -> str:
    """Why nothing can be said of a workload's memory on ``device``; empty where something can.

    On a CPU a compiler's memory and a model's are both the process's. MobileViT-XXS, compiled, was found to rest in 66
    MiB where it was the first, in 24 after two others, and in 8 uncompiled: resident memory tells what was compiled
    before, not what a model needs. On an accelerator a compiler holds none of the device's; but a program of another
    library takes its own there, beside torch's allocator, which is what is read.
    """
    if workload.prepared.counts is not None and not device.is_accelerator:
        return "no memory: on a CPU what the compiler keeps cannot be told from what the model needs"
    if workload.case.precision.program is not None and device.is_accelerator:
        return "no memory: what an opaque program takes on the device is not all taken through torch"
    return ""


def memory_held(reading: MemoryReading, state: State) -> MemoryFigures:
    """What ``reading`` tells of memory, whatever it was taken of."""
    return MemoryFigures(
        resting_memory_bytes=reading.resting_bytes,
        peak_memory_bytes=reading.peak_bytes,
        activation_memory_bytes=reading.activation_bytes,
        reserved_memory_bytes=reading.reserved_bytes,
        device_memory_bytes=state.get("device_memory_bytes"),
        model_size_bytes=None,
        memory_reduction=None,
        workspace_bytes=reading.workspace_bytes,
    )
