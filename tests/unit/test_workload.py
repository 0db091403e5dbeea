"""A pair made ready on the device: converted, prepared, and the images of its timed request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.catalog.build import example_inputs
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device.cpu import computes_bf16
from pytest_vq.device.device import Device, open_device
from pytest_vq.errors import OutputError
from pytest_vq.execution.prepared import Prepared, unaltered
from pytest_vq.execution.schemes import find_scheme, reference_scheme
from pytest_vq.measure import workload as workload_module
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.workload import place, reference_request, warm_precision
from pytest_vq.precision.precisions import find_precision
from pytest_vq.schema.spec import Case, Scheme

REST = torch.bfloat16 if computes_bf16() else torch.float32
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "int8": REST, "int4": REST}


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Linear(64, 10))


@pytest.fixture
def reference() -> Iterator[Reference]:
    with isolated():
        register_model("tiny", input_shape=(3, 8, 8), head="2")(build)
        yield Reference.of(find_model("tiny"), "random")


@pytest.fixture
def device() -> Device:
    return open_device(gpu=False, threads=1)


def case_of(reference: Reference, scheme: str, batch: int = 1) -> Case:
    return Case(reference.model, find_scheme(scheme), batch)


@pytest.mark.parametrize("name", list(DTYPES))
@torch.inference_mode()
def test_a_pair_is_converted_and_gets_images_of_its_type(reference: Reference, device: Device, name: str) -> None:
    case = case_of(reference, name, batch=3)
    workload = place(case, reference, device)
    assert workload.case is case
    assert (workload.images.shape, workload.images.dtype) == ((3, 3, 8, 8), DTYPES[name])
    assert torch.equal(workload.images, example_inputs(reference.model, 3).to(DTYPES[name]))
    assert workload.converted.coverage.eligible == 1
    assert type(workload.converted.module[2]) is nn.Linear
    assert workload.request().shape == (3, 10)


@torch.inference_mode()
def test_other_images_are_answered_in_the_type_that_the_model_is_fed(reference: Reference, device: Device) -> None:
    workload = place(case_of(reference, "fp16"), reference, device)
    answer = workload.answer(torch.randn(5, 3, 8, 8))
    assert (answer.shape, answer.dtype) == ((5, 10), torch.float16)


@torch.inference_mode()
def test_the_request_answers_the_images_of_the_workload(reference: Reference, device: Device) -> None:
    workload = place(case_of(reference, "fp32", batch=2), reference, device)
    assert torch.equal(workload.request(), reference.answer(2))
    assert torch.equal(workload.answer(reference.images(2)), reference.answer(2))


def test_the_source_is_left_as_it_is(reference: Reference, device: Device) -> None:
    before = [parameter.clone() for parameter in reference.source.parameters()]
    workload = place(case_of(reference, "fp32"), reference, device)
    for parameter in workload.converted.module.parameters():
        parameter.data.zero_()
    assert all(map(torch.equal, before, reference.source.parameters()))


def test_what_is_prepared_can_be_altered_by_its_scheme(reference: Reference, device: Device) -> None:
    schemes = []

    def alter(scheme: Scheme, prepared: Prepared) -> Prepared:
        schemes.append(scheme.name)
        return replace(prepared, call=lambda images: prepared.call(images) * 2, pool_bytes=5)

    plain = place(case_of(reference, "fp32"), reference, device)
    altered = place(case_of(reference, "fp32"), reference, device, alter)
    with torch.inference_mode():
        assert torch.equal(altered.request(), plain.request() * 2)
    assert altered.prepared.pool_bytes == 5
    assert schemes == ["fp32"]


def test_a_forward_that_fails_is_the_models_fault_and_names_the_pair(reference: Reference, device: Device) -> None:
    def alter(_: Scheme, prepared: Prepared) -> Prepared:
        def call(images: Tensor) -> object:
            raise KeyError("layer")

        return replace(prepared, call=call)

    workload = place(case_of(reference, "fp16", batch=2), reference, device, alter)
    with pytest.raises(
        OutputError, match=r"^tiny-fp16-b2: its forward failed on \[4, 3, 8, 8\] torch\.float16 on cpu: "
    ):
        workload.answer(torch.randn(4, 3, 8, 8))


def test_on_a_cpu_the_fp32_partner_is_the_source_itself(reference: Reference, device: Device) -> None:
    calls = []
    reference.source.register_forward_hook(lambda *_: calls.append(1))
    fp32 = Case(reference.model, reference_scheme(), batch=2)
    request = reference_request(fp32, reference, device, unaltered)
    assert calls == []
    with torch.inference_mode():
        assert torch.equal(request(), reference.answer(2))
    assert len(calls) == 2


def test_the_fp32_partner_is_altered_too(reference: Reference, device: Device) -> None:
    def alter(scheme: Scheme, prepared: Prepared) -> Prepared:
        return replace(prepared, call=lambda _: scheme.name)

    fp32 = Case(reference.model, reference_scheme())
    assert reference_request(fp32, reference, device, alter)() == "fp32"


class TestOrder:
    """bitsandbytes ends the process where it finds an error that an earlier kernel left behind: it is waited for."""

    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What is done on the device, in its order."""
        steps: list[str] = []

        def noted(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def note_and_call(*args: Any, **kwargs: Any) -> Any:
                steps.append(step)
                return function(*args, **kwargs)

            return note_and_call

        monkeypatch.setattr(Device, "synchronize", noted("wait", Device.synchronize))
        monkeypatch.setattr(workload_module, "convert", noted("convert", workload_module.convert))
        monkeypatch.setattr(workload_module, "load_prepare", noted("prepare", workload_module.load_prepare))
        monkeypatch.setattr(nn.Sequential, "forward", noted("forward", nn.Sequential.forward))
        return steps

    @torch.inference_mode()
    def test_of_a_pair(self, reference: Reference, device: Device, steps: list[str]) -> None:
        def alter(_: Scheme, prepared: Prepared) -> Prepared:
            steps.append("alter")
            return prepared

        place(case_of(reference, "int8"), reference, device, alter).request()
        assert steps == ["wait", "convert", "prepare", "alter", "wait", "forward"]

    @torch.inference_mode()
    def test_of_a_warm_up(self, device: Device, steps: list[str]) -> None:
        warm_precision(find_precision("int8"), device)
        assert steps == ["wait", "convert", "wait", "forward"]

    @torch.inference_mode()
    def test_an_earlier_error_is_raised_before_anything_is_converted(
        self, reference: Reference, device: Device, steps: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def synchronize(_: Device) -> None:
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(Device, "synchronize", synchronize)
        with pytest.raises(RuntimeError, match="device-side assert"):
            place(case_of(reference, "int8"), reference, device)
        with pytest.raises(RuntimeError, match="device-side assert"):
            warm_precision(find_precision("int8"), device)
        assert steps == []


@pytest.mark.parametrize("name", list(DTYPES))
def test_every_precision_can_be_warmed_up(device: Device, name: str) -> None:
    with torch.inference_mode():
        warm_precision(find_precision(name), device)
