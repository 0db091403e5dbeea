"""A pair made ready on the device: converted, prepared, and the images of its timed request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from fake_clock import FakeClock
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.catalog.build import example_inputs
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device.cpu import computes_bf16
from pytest_vq.device.device import Device, open_device
from pytest_vq.errors import ExecutionError, MissingExtraError, OutputError
from pytest_vq.execution.prepared import GraphCounts, Prepared, unaltered
from pytest_vq.execution.schemes import find_scheme, reference_scheme
from pytest_vq.measure import workload as workload_module
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.warming import warm_execution, warm_precision
from pytest_vq.measure.workload import Workload, place, reference_request
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.precisions import find_precision
from pytest_vq.schema.figures import Preparation
from pytest_vq.schema.spec import Case, ExecutionSpec, PrecisionSpec, Scheme

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
    assert (workload.inputs.shape, workload.inputs.dtype) == ((3, 3, 8, 8), DTYPES[name])
    assert torch.equal(workload.inputs, example_inputs(reference.model, 3).to(DTYPES[name]))
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


class World:
    """An execution and a precision that are not ours: what they do, and whether the precision's switch is on."""

    SWITCHED = PrecisionSpec("fp32s", None, dtype="float32", switches=f"{__name__}:switched_on")
    MINE = ExecutionSpec("mine", prepare=f"{__name__}:prepare")

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[str] = []
        self.is_on = False
        self.batch: int | None = None
        self.given: list[Tensor] = []
        self.trouble: Exception | None = None
        self.call_trouble: Exception | None = None

    def note(self, event: str) -> None:
        self.events.append(f"{event}, {'on' if self.is_on else 'off'}")

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        self.note("entered")
        yield
        self.note("left")

    def prepare(self, converted: Converted, example: Tensor) -> Prepared:
        self.note("prepared")
        self.clock.now_ms += 30_000
        if self.trouble is not None:
            raise self.trouble
        output = torch.empty(0)

        def call(images: Tensor) -> object:
            self.note("called")
            self.clock.now_ms += 500
            self.given.append(images.clone())
            if self.call_trouble is not None:
                raise self.call_trouble
            answer: Tensor = converted.module(images)
            return output.resize_(answer.shape).copy_(answer)  # always the same tensor, as a CUDA graph's is

        return Prepared(
            call,
            self.context,
            close=lambda: self.note("closed"),
            batch=self.batch,
            cache="cold",
            counts=lambda: GraphCounts(len(self.given), 0, len(self.given) - 1),
        )


world = World()


def prepare(converted: Converted, example: Tensor) -> Prepared:
    return world.prepare(converted, example)


@contextlib.contextmanager
def switched_on() -> Iterator[None]:
    assert not world.is_on
    world.is_on = True
    try:
        yield
    finally:
        world.is_on = False


@pytest.fixture
def own(reference: Reference, device: Device) -> Iterator[Callable[..., Workload]]:
    """Places a pair of the precision and the execution that are not ours, in a new world."""
    global world
    world = World()
    timed = replace(device, clock=world.clock)

    def place_own(precision: PrecisionSpec = World.SWITCHED, batch: int = 1) -> Workload:
        return place(Case(reference.model, Scheme(precision, World.MINE), batch), reference, timed)

    with torch.inference_mode():
        yield place_own


OURS = find_precision("fp32")


class TestSwitches:
    """A precision's switches hold while its model is prepared and called, and at no other time."""

    def test_they_are_on_inside_and_around_the_executions_own_context(self, own: Callable[..., Workload]) -> None:
        workload = own()
        assert world.events == ["prepared, on", "entered, on", "called, on", "left, on"]
        assert not world.is_on
        world.events.clear()
        workload.request()
        workload.answer(torch.randn(1, 3, 8, 8))
        assert world.events == ["entered, on", "called, on", "left, on"] * 2
        assert not world.is_on

    def test_each_block_enters_them_and_the_call_alone_does_not(self, own: Callable[..., Workload]) -> None:
        request = own().request
        world.events.clear()
        with request.context():
            request.call()
            request.call()
        assert world.events == ["entered, on", "called, on", "called, on", "left, on"]

    def test_of_eager_execution_too(self, reference: Reference, device: Device) -> None:
        global world
        world = World()
        reference.source[0].register_forward_hook(lambda *_: world.note("forward"))
        eager = find_scheme("fp32").execution
        workload = place(Case(reference.model, Scheme(World.SWITCHED, eager)), reference, device)
        assert world.events == []
        workload.request()
        assert world.events == ["forward, on"]

    def test_the_fp32_partner_runs_without(
        self, own: Callable[..., Workload], reference: Reference, device: Device
    ) -> None:
        own()
        reference.source.register_forward_hook(lambda *_: world.note("fp32"))
        reference_request(Case(reference.model, reference_scheme()), reference, device, unaltered)()
        assert world.events[-1] == "fp32, off"

    def test_a_precision_without_any_has_the_executions_context_alone(self, own: Callable[..., Workload]) -> None:
        own(OURS)
        assert world.events == ["prepared, off", "entered, off", "called, off", "left, off"]

    def test_they_are_on_while_a_precision_is_warmed_up(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        global world
        world = World()
        forward = nn.Sequential.forward

        def noted(net: nn.Sequential, images: Tensor) -> Tensor:
            world.note("forward")
            return forward(net, images)

        monkeypatch.setattr(nn.Sequential, "forward", noted)
        warm_precision(World.SWITCHED, device)
        assert world.events == ["forward, on"]


class TestPreparing:
    def test_it_takes_until_the_first_answer(self, own: Callable[..., Workload]) -> None:
        workload = own(batch=2)
        assert workload.prepare_s == 30.5
        assert torch.equal(world.given[0], workload.inputs)
        assert workload.preparation == Preparation("mine", 30.5, "cold", graphs=1, graph_breaks=0, recompiles=0)

    def test_what_is_compiled_later_is_counted_too(self, own: Callable[..., Workload]) -> None:
        workload = own()
        workload.request()
        assert (workload.preparation.graphs, workload.preparation.recompiles) == (2, 1)

    def test_eager_execution_is_not_prepared(self, reference: Reference, device: Device) -> None:
        workload = place(case_of(reference, "fp16"), reference, device)
        assert workload.prepare_s is None
        assert workload.preparation == Preparation("eager")

    @pytest.mark.parametrize(
        ("trouble", "says"),
        [
            (ExecutionError("it breaks (here). Do this"), r"^tiny-fp32\+mine-b2: it breaks \(here\)\. Do this$"),
            (KeyError("layer"), r"^tiny-fp32\+mine-b2: mine could not be prepared: KeyError: 'layer'$"),
        ],
    )
    def test_what_fails_names_the_pair(self, own: Callable[..., Workload], trouble: Exception, says: str) -> None:
        world.trouble = trouble
        with pytest.raises(ExecutionError, match=says):
            own(OURS, batch=2)

    @pytest.mark.parametrize(
        "trouble", [MissingExtraError("install it"), RuntimeError("CUDA error: device-side assert triggered")]
    )
    def test_what_is_none_of_its_doing_stays_what_it_is(self, own: Callable[..., Workload], trouble: Exception) -> None:
        world.trouble = trouble
        with pytest.raises(type(trouble)) as caught:
            own()
        assert caught.value is trouble

    def test_a_first_answer_that_fails_closes_it(self, own: Callable[..., Workload]) -> None:
        world.call_trouble = RuntimeError("it broke")
        with pytest.raises(OutputError, match=r"^tiny-fp32s\+mine: its forward failed on .*it broke"):
            own()
        assert world.events[-1] == "closed, off"

    def test_what_its_context_says_while_it_is_timed_names_the_pair(self, own: Callable[..., Workload]) -> None:
        request = own().request
        world.call_trouble = ExecutionError("compiled too often")
        with pytest.raises(ExecutionError, match=r"^tiny-fp32s\+mine: compiled too often$"):
            request()


class TestFixedBatch:
    """A program made for a number of images is judged by that many at a time: it is the one that is timed."""

    def test_images_come_by_that_many_and_the_last_ones_are_filled_up(
        self, own: Callable[..., Workload], reference: Reference
    ) -> None:
        world.batch = 4
        workload = own(OURS, batch=4)
        world.given.clear()
        images = torch.randn(10, 3, 8, 8)
        answer = workload.answer(images)
        assert [len(given) for given in world.given] == [4, 4, 4]
        assert torch.equal(torch.cat(world.given)[:10], images)
        assert torch.equal(world.given[-1][2:], images[-1:].expand(2, 3, 8, 8))
        torch.testing.assert_close(answer, reference.source(images))

    def test_fewer_images_than_that_are_filled_up_too(self, own: Callable[..., Workload], reference: Reference) -> None:
        world.batch = 4
        workload = own(OURS, batch=4)
        images = torch.randn(1, 3, 8, 8)
        assert workload.answer(images).shape == (1, 10)
        torch.testing.assert_close(workload.answer(images), reference.source(images))

    def test_an_answer_is_a_copy_that_the_next_call_does_not_change(self, own: Callable[..., Workload]) -> None:
        world.batch = 1
        workload = own(OURS)
        answer = workload.answer(torch.randn(1, 3, 8, 8))
        before = answer.clone()
        workload.answer(torch.randn(1, 3, 8, 8))
        assert torch.equal(answer, before)

    def test_what_takes_any_number_gets_them_all(self, own: Callable[..., Workload]) -> None:
        workload = own(OURS)
        world.given.clear()
        assert workload.answer(torch.randn(10, 3, 8, 8)).shape == (10, 10)
        assert [len(given) for given in world.given] == [10]


class TestWarmingUp:
    def test_a_small_net_is_prepared_called_and_given_back(self, own: Callable[..., Workload], device: Device) -> None:
        warm_execution(Scheme(World.SWITCHED, World.MINE), device)
        assert world.events == ["prepared, on", "entered, on", "called, on", "left, on", "closed, on"]
        assert world.given[0].shape == (1, 3, 64, 64)
        assert not world.is_on

    def test_it_is_given_back_also_if_it_fails(self, own: Callable[..., Workload], device: Device) -> None:
        world.call_trouble = RuntimeError("it broke")
        with pytest.raises(RuntimeError, match="it broke"):
            warm_execution(Scheme(OURS, World.MINE), device)
        assert world.events[-1] == "closed, off"

    def test_eager_execution_needs_none(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workload_module, "convert", lambda *_, **__: pytest.fail("nothing to warm up"))
        warm_execution(find_scheme("int8"), device)
