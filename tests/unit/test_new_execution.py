"""An execution that the package does not know: one entry and one function, and its schemes are measured like others.

This module holds that function: it runs the model as it is, with a global switch that must hold while it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from own_bench import own_bench
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.catalog.models import find_model
from pytest_vq.device.cpu import computes_bf16
from pytest_vq.errors import OutputError, SelectionError
from pytest_vq.execution import executions
from pytest_vq.execution.executions import find_execution, load_prepare
from pytest_vq.execution.prepared import Prepared
from pytest_vq.execution.schemes import find_scheme, reference_scheme, select_schemes
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.measured import Measured
from pytest_vq.options import Options
from pytest_vq.precision.converted import Converted, short_name
from pytest_vq.precision.fidelity import MAX_SQNR_DB
from pytest_vq.schema.spec import Case, ExecutionSpec, Target

REST = torch.bfloat16 if computes_bf16() else torch.float32
MINE = ExecutionSpec("mine", prepare=f"{__name__}:prepare")
CPU = Target(is_accelerator=False)


class World:
    """What the execution does to the world, and what the model met there."""

    def __init__(self) -> None:
        self.switch_is_on = False
        self.events: list[str] = []
        self.prepared: list[tuple[str, torch.Size, torch.dtype]] = []
        self.forwards: set[tuple[bool, bool]] = set()  # whether the model was FP32, and whether the switch was on
        self.good_calls: int | None = None  # until the model fails; None: it never does

    @contextlib.contextmanager
    def switched_on(self) -> Iterator[None]:
        assert not self.switch_is_on
        self.switch_is_on = True
        self.events.append("entered")
        try:
            yield
        finally:
            self.switch_is_on = False
            self.events.append("left")

    def call(self, converted: Converted, images: Tensor) -> object:
        self.events.append("called")
        if self.good_calls is not None:
            if self.good_calls == 0:
                raise RuntimeError("it broke")
            self.good_calls -= 1
        return converted.module(images)


world = World()


def prepare(converted: Converted, example: Tensor) -> Prepared:
    world.prepared.append((converted.method, example.shape, example.dtype))
    if example.shape[1:] != (3, 8, 8):  # the small net that an execution is warmed up with
        return Prepared(converted.module)
    return Prepared(
        lambda images: world.call(converted, images), world.switched_on, close=lambda: world.events.append("closed")
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.GELU())
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        world.forwards.add((type(self.body[1]) is nn.Linear, world.switch_is_on))
        return self.head(self.body(images))


@contextlib.contextmanager
def bench_in_a_new_world(locks: Path, budget_s: float) -> Iterator[Bench]:
    """A bench that knows the execution and the model ``tiny`` too; the device's lock lies in ``locks``."""
    global world
    world = World()
    with own_bench(locks, Options(budget=budget_s)) as bench, pytest.MonkeyPatch.context() as patch:
        patch.setattr(executions, "_EXECUTIONS", (*executions._EXECUTIONS, MINE))
        register_model("tiny", input_shape=(3, 8, 8), head="head")(Net)
        yield bench


def tiny(scheme: str, batch: int = 1) -> Case:
    return Case(find_model("tiny"), find_scheme(scheme), batch)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Ready to measure, one or a few samples a pair."""
    with bench_in_a_new_world(tmp_path, budget_s=0.01) as made:
        yield made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, World]:
    """One pair, really measured on the CPU for a fifth of a second, and the world it was measured in."""
    with bench_in_a_new_world(tmp_path_factory.mktemp("locks"), budget_s=0.2) as made:
        return made.measure(tiny("int8+mine", batch=2)), world


@pytest.fixture
def measured(run: tuple[Measured, World]) -> Measured:
    return run[0]


@pytest.fixture
def seen(run: tuple[Measured, World]) -> World:
    return run[1]


class TestSelecting:
    @pytest.fixture(autouse=True)
    def mine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # This stands for a line in that module; what users register is tried in test_own_precisions.
        monkeypatch.setattr(executions, "_EXECUTIONS", (*executions._EXECUTIONS, MINE))

    def test_it_is_named_after_the_precision(self) -> None:
        scheme = find_scheme("int8+mine")
        assert (scheme.name, scheme.precision.name, scheme.execution) == ("int8+mine", "int8", MINE)
        assert find_execution("mine") is MINE
        assert load_prepare(MINE) is prepare

    def test_eager_comes_first_in_each_precision(self) -> None:
        names = [scheme.name for scheme in select_schemes("int8+mine,fp16,fp16+mine,int8", CPU).schemes]
        assert names == ["fp16", "fp16+mine", "int8", "int8+mine"]
        assert {"fp32+mine", "int4+mine"} <= {scheme.name for scheme in select_schemes("all", CPU).schemes}

    def test_fp32_run_so_is_not_the_reference(self) -> None:
        assert not find_scheme("fp32+mine").is_reference
        assert reference_scheme().name == "fp32"

    def test_an_unknown_one_names_the_nearest(self) -> None:
        with pytest.raises(SelectionError, match=r"no execution 'mime': did you mean mine or .*\? There are eager"):
            find_scheme("int8+mime")


class TestMeasuring:
    def test_the_row_says_how_it_was_run(self, measured: Measured) -> None:
        record = measured.record
        assert str(record.id) == "tiny-int8+mine-b2"
        assert (record.precision, record.execution) == ("int8", "mine")
        assert (record.setup.precision, record.setup.execution, record.setup.scheme) == ("int8", "mine", "int8+mine")
        assert not record.setup.is_reference
        assert (record.eligible_layers, record.quantized_layers) == (1, 1)
        assert record.method == f"bitsandbytes LLM.int8, {short_name(REST)} rest"

    def test_it_is_compared_with_eager_fp32(self, measured: Measured) -> None:
        assert 20 < measured.record.sqnr_db < 60
        assert measured.record.speedup > 0
        assert len(measured.samples.reference.blocks_ms) == len(measured.samples.subject.blocks_ms)

    def test_it_is_given_the_converted_model_and_the_images_of_the_request(self, seen: World) -> None:
        method = f"bitsandbytes LLM.int8, {short_name(REST)} rest"
        assert seen.prepared == [(method, (1, 3, 64, 64), REST), (method, (2, 3, 8, 8), REST)]  # after a small net

    def test_the_row_says_how_long_that_took(self, measured: Measured) -> None:
        assert 0 < measured.record.prepare_s < 60
        assert (measured.record.prepare_cache, measured.record.graphs) == (None, None)  # nothing was compiled

    def test_an_execution_is_warmed_up_once(self, bench: Bench) -> None:
        for scheme in ("int8+mine", "fp32+mine", "int8+mine"):
            bench.measure(tiny(scheme))
        assert [shape[-1] for _, shape, _ in world.prepared] == [64, 8, 8, 8]

    def test_the_model_runs_in_its_context_and_fp32_beside_it_does_not(self, seen: World) -> None:
        assert seen.forwards == {(False, True), (True, False)}

    def test_it_is_closed_once_when_all_is_measured(self, seen: World) -> None:
        assert seen.events.count("entered") == seen.events.count("left") > 3
        assert seen.events.count("closed") == 1
        assert seen.events[-1] == "closed"

    def test_fp32_run_so_is_compared_with_eager_fp32(self, bench: Bench) -> None:
        record = bench.measure(tiny("fp32+mine")).record
        assert (record.precision, record.execution) == ("fp32", "mine")
        assert record.sqnr_db > 100
        assert record.sqnr_db <= MAX_SQNR_DB
        assert record.coverage.quantized == 0

    def test_two_executions_of_a_precision_are_two_rows(self, bench: Bench) -> None:
        rows = [bench.measure(tiny(name)).record for name in ("int8", "int8+mine")]
        assert [str(row.id) for row in rows] == ["tiny-int8", "tiny-int8+mine"]
        assert rows[0].sqnr_db == rows[1].sqnr_db


class TestErrors:
    # The first call ends preparing, the second is for fidelity, the third for memory, the fourth is the first timed.
    @pytest.mark.parametrize(
        ("good_calls", "error"), [(0, OutputError), (1, OutputError), (2, RuntimeError), (3, RuntimeError)]
    )
    def test_it_is_closed_also_after_an_error(self, bench: Bench, good_calls: int, error: type[Exception]) -> None:
        world.good_calls = good_calls
        with pytest.raises(error, match="it broke"):
            bench.measure(tiny("int8+mine"))
        assert world.events[-3:] == ["called", "left", "closed"]
        assert not world.switch_is_on

    def test_the_next_pair_is_unharmed(self, bench: Bench) -> None:
        world.good_calls = 3
        with pytest.raises(RuntimeError, match="it broke"):
            bench.measure(tiny("int8+mine"))
        world.good_calls = None
        assert bench.measure(tiny("int8+mine")).record.sqnr_db > 20
        assert world.events.count("closed") == 2
