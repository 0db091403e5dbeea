"""What a pair does with the device's lock held, and what before others are made to wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from factories import make_record, make_samples
from torch import nn

from pytest_vq import register_model
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device import device as device_module
from pytest_vq.device.device import Device
from pytest_vq.errors import DeviceLostError, DeviceOutOfMemoryError
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure import bench as bench_module
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.measured import Measured
from pytest_vq.measure.reference import Reference
from pytest_vq.options import Options
from pytest_vq.schema.spec import Case, PrecisionSpec

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done, in its order; warming up and the work itself are only noted."""
    steps: list[str] = []

    @contextlib.contextmanager
    def lock(device_uuid: str) -> Iterator[None]:
        steps.append("lock")
        try:
            yield
        finally:
            steps.append("unlock")

    def build(*_: object) -> Reference:
        steps.append("build")
        return Reference(find_model("tiny"), nn.Identity(), None)

    def measure(*_: object, **__: object) -> Measured:
        steps.append("measure")
        return Measured(make_record(), make_samples([1.0]))

    for module in (bench_module, device_module):
        monkeypatch.setattr(module, "device_lock", lock)
    monkeypatch.setattr(bench_module, "warm_precision", lambda precision, _: steps.append(f"warm {precision.name}"))
    monkeypatch.setattr(Reference, "of", build)
    monkeypatch.setattr(Device, "release", lambda _: steps.append("release"))
    monkeypatch.setattr(Bench, "_measure", measure)
    return steps


@pytest.fixture
def case() -> Iterator[Case]:
    with isolated():
        register_model("tiny", input_shape=(3, 8, 8), head="0")(nn.Identity)
        yield Case(find_model("tiny"), find_scheme("fp16"), 1)


@pytest.fixture
def bench() -> Bench:
    return Bench(Options())


def test_the_source_is_built_before_others_wait_and_the_device_used_while_they_do(bench, case, steps) -> None:
    bench.measure(case)
    assert steps == ["build", "lock", "warm fp16", "measure", "release", "unlock"]


def test_a_precision_is_warmed_up_once_and_a_source_built_once(bench, case, steps) -> None:
    bench.measure(case)
    del steps[:]
    bench.measure(case)
    assert steps == ["lock", "measure", "release", "unlock"]
    del steps[:]
    bench.measure(replace(case, scheme=find_scheme("int8")))
    assert steps == ["lock", "warm int8", "measure", "release", "unlock"]


def test_an_error_of_the_warm_up_is_one_of_the_pair(bench, case, steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def warm(precision: PrecisionSpec, device: Device) -> None:
        steps.append("warm")
        raise OUT_OF_MEMORY

    monkeypatch.setattr(bench_module, "warm_precision", warm)
    with pytest.raises(DeviceOutOfMemoryError, match=r"^tiny-fp16: out of memory on "):
        bench.measure(case)
    assert steps[:3] == ["build", "lock", "warm"]
    assert steps[-2:] == ["release", "unlock"]
    with pytest.raises(DeviceOutOfMemoryError):  # it is not warm: the next pair tries again
        bench.measure(case)


def test_a_crashed_kernel_of_the_warm_up_loses_the_device(bench, case, steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def warm(precision: PrecisionSpec, device: Device) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(bench_module, "warm_precision", warm)
    monkeypatch.setattr(Device, "is_lost", True)
    with pytest.raises(DeviceLostError, match=r"^tiny-fp16: a kernel crashed"):
        bench.measure(case)
    assert steps == ["build", "lock", "release", "unlock"]


def test_a_callable_is_timed_with_the_lock_held(bench, steps) -> None:
    with pytest.raises(KeyError):
        bench.time(lambda: steps.append("call") or {}["no such key"])
    assert steps == ["lock", "call", "unlock"]
