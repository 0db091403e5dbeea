"""The table of operators: each microsecond and each byte once, whatever else the profiler tells."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent
from torch.profiler import record_function

from pytest_vq.device import profile
from pytest_vq.device.profile import device_shares, host_shares, profile_operators, table_of
from pytest_vq.schema.estimates import Operator

CPU = torch.device("cpu")
GEMM = "void cutlass::Kernel2<cutlass_80_tensorop_f16_s16816gemm>"
ADD = "void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor>"


def on_host(name: str, *kernels: tuple[str, float], size: int = 0, **more: Any) -> SimpleNamespace:
    """An event of the host that launched ``kernels`` (name, microseconds), as torch's profiler gives it."""
    event: dict[str, Any] = {"name": name, "device_type": DeviceType.CPU, "is_legacy": False}
    event["kernels"] = [SimpleNamespace(name=kernel, duration=us) for kernel, us in kernels]
    event["self_device_time_total"] = sum(us for _, us in kernels)
    event["self_device_memory_usage"] = size
    return SimpleNamespace(**(event | more))


def on_device(name: str, us: float, *, is_user_annotation: bool = False) -> SimpleNamespace:
    """An event of the device: a kernel, a copy, the shadow of an annotation."""
    event = {"name": name, "device_type": DeviceType.CUDA, "self_device_time_total": us}
    return SimpleNamespace(**event, is_user_annotation=is_user_annotation)


def table(*events: SimpleNamespace, calls: int = 1) -> dict[str, Operator]:
    return table_of(device_shares(events), calls)


class TestOnAnAccelerator:
    def test_time_that_is_told_twice_counts_once(self) -> None:
        found = table(
            on_host("aten::linear"),
            on_host("aten::addmm", (GEMM, 40.0)),
            on_host("cudaLaunchKernel"),
            on_device(GEMM, 40.0),
            on_host("aten::add", (ADD, 2.0)),
            on_device(ADD, 2.0),
        )
        assert found == {"aten::addmm": Operator(1, 0.040, 0), "aten::add": Operator(1, 0.002, 0)}

    def test_times_are_of_one_call(self) -> None:
        events = [on_host("aten::addmm", (GEMM, 40.0)), on_device(GEMM, 40.0), on_host("aten::addmm", size=300)]
        assert table(*events * 3, calls=3) == {"aten::addmm": Operator(2, 0.040, 300)}

    def test_an_operator_may_launch_several_kernels_and_a_copy(self) -> None:
        found = table(
            on_host("bitsandbytes::int8_linear_matmul", (GEMM, 40.0), (ADD, 2.0), ("Memcpy DtoH", 1.0)),
            *(on_device(GEMM, 40.0), on_device(ADD, 2.0), on_device("Memcpy DtoH", 1.0)),
        )
        assert found == {"bitsandbytes::int8_linear_matmul": Operator(1, 0.043, 0)}

    def test_a_kernel_that_no_operator_launched_has_a_row_of_its_own(self) -> None:
        launched = [on_host("aten::add", (ADD, 2.0)), on_device(ADD, 2.0)]
        orphans = [on_host("cuLaunchKernel"), on_device("triton_poi_fused", 5.0), on_device(ADD, 3.0)]
        assert table(*launched, *orphans) == {
            "triton_poi_fused": Operator(1, 0.005, 0),
            ADD: Operator(1, 0.003, 0),
            "aten::add": Operator(1, 0.002, 0),
        }

    def test_annotations_only_span_what_is_counted(self) -> None:
        found = table(
            on_host("my block", is_user_annotation=True),
            on_host("aten::add", (ADD, 2.0)),
            on_device("my block", 90.0, is_user_annotation=True),
            on_device(ADD, 2.0),
        )
        assert found == {"aten::add": Operator(1, 0.002, 0)}

    def test_the_runtimes_own_events_are_not_given_an_operators_kernels(self) -> None:
        found = table(
            on_host("aten::add", (ADD, 2.0)),
            on_host("Activity Buffer Request", (ADD, 2.0)),
            on_host("cudaDeviceSynchronize", (ADD, 2.0)),
            on_device(ADD, 2.0),
        )
        assert found == {"aten::add": Operator(1, 0.002, 0)}

    def test_without_cupti_an_operator_lists_itself(self) -> None:
        assert table(on_host("aten::add", ("aten::add", 2.0), is_legacy=True)) == {"aten::add": Operator(1, 0.002, 0)}

    def test_who_holds_memory_is_told_though_it_takes_no_time(self) -> None:
        found = table(
            *(on_host("aten::empty", size=64), on_host("aten::view"), on_host("[memory]", size=-64)),
            *(on_host("aten::add", (ADD, 2.0)), on_device(ADD, 2.0), on_host("## a compiled region ##", size=32)),
        )
        assert found == {
            "aten::add": Operator(1, 0.002, 0),
            "aten::empty": Operator(1, 0.0, 64),
            "## a compiled region ##": Operator(1, 0.0, 32),
        }
        assert list(found) == ["aten::add", "aten::empty", "## a compiled region ##"]

    def test_torchs_own_events_are_read_so(self) -> None:
        """A convolution in a block, two of one name nested, and a kernel of nobody's, put together as torch does."""

        def event(name: str, start: int, end: int, kind: Any = DeviceType.CPU, **more: Any) -> FunctionEvent:
            return FunctionEvent(0, name, 1, start, end, use_device="cuda", device_type=kind, **more)

        operators = [
            event("block", 0, 90, is_user_annotation=True, device_memory_usage=256),  # its callees' counts in it
            event("aten::conv2d", 1, 20, device_memory_usage=256),
            event("aten::cudnn_convolution", 2, 19, device_memory_usage=256),
            event("cudaLaunchKernel", 3, 4),
            event("aten::fill_", 30, 40),
            event("aten::fill_", 31, 39),
        ]
        operators[2].append_kernel("conv", 0, 7.0)
        operators[3].append_kernel("conv", 0, 7.0)  # its number happens to be the convolution's
        operators[4].append_kernel("memset", 0, 1.0)  # torch drops this one, and keeps that of the inner event
        operators[5].append_kernel("fill", 0, 2.0)
        kernels = [("conv", 7), ("memset", 1), ("fill", 2), ("nobody", 5)]
        device = [event(name, 100, 100 + us, DeviceType.CUDA) for name, us in kernels]
        shadow = event("block", 100, 190, DeviceType.CUDA, is_user_annotation=True)
        events = EventList([*operators, shadow, *device], use_device="cuda", profile_memory=True)
        events._build_tree()
        assert table(*events) == {
            "aten::cudnn_convolution": Operator(1, 0.007, 256),
            "nobody": Operator(1, 0.005, 0),
            "aten::fill_": Operator(1, 0.002, 0),
            "memset": Operator(1, 0.001, 0),
        }

    def test_only_the_slowest_are_kept(self) -> None:
        found = table(*(on_host(f"aten::op{number}", (ADD, 1.0 + number)) for number in range(100)))
        assert len(found) == 40
        assert next(iter(found)) == "aten::op99"


class TestOnACpu:
    @pytest.fixture
    def net(self) -> nn.Module:
        return nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 256)).eval().requires_grad_(False)

    def test_calls_are_counted_of_one_and_times_are_plausible(self, net: nn.Module) -> None:
        images, made = torch.randn(64, 256), []
        net(images)

        def call() -> None:
            made.append(time.perf_counter())
            net(images)

        started = time.perf_counter()
        found = profile_operators(call, CPU)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        assert 1 <= len(made) <= 20
        assert found["aten::addmm"].calls == 2
        assert found["aten::gelu"].calls == 1
        assert found["aten::addmm"].self_bytes == 2 * 64 * 256 * 4
        assert 0 < sum(operator.self_ms for operator in found.values()) * len(made) <= elapsed_ms
        assert list(found) == sorted(found, key=lambda name: -found[name].self_ms)
        assert all(operator.self_ms > 0 or operator.self_bytes for operator in found.values())

    def test_what_is_freed_outside_of_operators_is_none(self) -> None:
        assert "[memory]" not in profile_operators(lambda: torch.ones(1000), CPU)

    def test_the_time_of_python_stands_in_the_annotation_around_it(self) -> None:
        def call() -> None:
            with record_function("my block"):
                time.sleep(0.01)
                torch.ones(1)

        found = profile_operators(call, CPU)
        assert next(iter(found)) == "my block"
        assert found["my block"].self_ms >= 10
        assert found["my block"].calls == 1

    def test_events_of_one_name_make_one_row(self) -> None:
        with torch.profiler.profile() as profiler:
            with record_function("aten::ones"):
                time.sleep(0.001)
            torch.ones(1)
        assert table_of(host_shares(profiler.events()), 1)["aten::ones"].calls == 2


@pytest.mark.parametrize(("device", "calls"), [("cpu", 20), ("cuda", 3)])
def test_a_few_calls_are_enough(monkeypatch: pytest.MonkeyPatch, device: str, calls: int) -> None:
    asked: list[Any] = []

    class Profiler:
        def __init__(self, **given: Any) -> None:
            asked.append(given["activities"])

        def __enter__(self) -> Profiler:
            return self

        def __exit__(self, *error: object) -> None:
            asked.append("left")

        def events(self) -> list[SimpleNamespace]:
            return [on_host("aten::add", (ADD, 2.0), self_cpu_time_total=1.0, self_cpu_memory_usage=0)] * calls

    made: list[int] = []
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: asked.append("synchronized"))
    monkeypatch.setattr(profile.time, "monotonic", lambda: 0.0)  # as if calls took no time
    found = profile_operators(lambda: made.append(1), torch.device(device))
    assert len(made) == calls
    assert found["aten::add"].calls == 1
    names = [str(activity).rpartition(".")[2] for activity in asked[0]]
    # All that was launched is done before the profiler is left.
    assert (names, asked[1:]) == (["CPU"], ["left"]) if device == "cpu" else (["CPU", "CUDA"], ["synchronized", "left"])
