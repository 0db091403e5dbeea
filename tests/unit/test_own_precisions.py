"""Precisions and executions of one's own: registered by a decorator, and held to what ours are held to."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from own_bench import own_bench
from small_models import RowLinear
from torch import Tensor, nn

from pytest_vq import Opaque, Prepared, register_execution, register_model, register_precision
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.device.device import open_device
from pytest_vq.errors import ExecutionError, OutputError, PrecisionError, RegistrationError, SelectionError
from pytest_vq.execution import own_executions
from pytest_vq.execution.executions import all_executions
from pytest_vq.execution.schemes import find_scheme, select_schemes
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.reference import Reference
from pytest_vq.measure.sections import memory_refusal
from pytest_vq.measure.workload import place
from pytest_vq.options import Options
from pytest_vq.precision import own_precisions
from pytest_vq.precision.convert import convert
from pytest_vq.precision.converted import Converted
from pytest_vq.precision.layers import Copier
from pytest_vq.precision.own_layers import own_layer_fault
from pytest_vq.precision.precisions import all_precisions, find_precision, precision_place
from pytest_vq.report.scheme_order import scheme_place
from pytest_vq.schema.spec import Case, Mix, PrecisionSpec, Target

CPU = Target(is_accelerator=False)


def row_layer(linear: nn.Linear, copier: Copier) -> nn.Module | str:
    return RowLinear(linear, copier) if linear.in_features > 32 else f"{linear.in_features} columns are too few"


def program(model: nn.Module, inputs: Any, device: torch.device) -> Opaque:
    """Weights rounded to 7 bits, in a program that is not ours to look into."""
    for parameter in model.parameters():
        step = parameter.abs().max() / 63
        parameter.copy_((parameter / step).round() * step)
    return Opaque(lambda images: model(images).numpy(), model_size_bytes=1000, fingerprint="seven bits")


def as_tensor(made: Opaque) -> Opaque:
    return Opaque(lambda images: torch.from_numpy(made.call(images)), made.model_size_bytes, made.fingerprint)


def build() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 128), nn.GELU(), nn.Linear(128, 32), nn.GELU())
    return nn.Sequential(body, nn.Linear(32, 96), nn.Linear(96, 10))


@pytest.fixture(autouse=True)
def own_registries() -> Iterator[None]:
    with isolated(), own_precisions.isolated(), own_executions.isolated():
        yield


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Ready to measure, one or a few samples a pair."""
    with own_bench(tmp_path, Options(budget=0.01)) as made:
        register_model("net", input_shape=(3, 8, 8), head="2")(build)
        yield made


def net(scheme: str) -> Case:
    return Case(find_model("net"), find_scheme(scheme), 2)


def at(function: Callable[..., Any], max_bits: float = 8) -> Converted:
    register_precision("mine", max_bits=max_bits, min_sqnr_db=20)(function)
    device = torch.device("cpu")
    return convert(build().eval(), find_precision("mine"), device=device, rest=torch.float16, heads=["2"])


class TestRegistering:
    def test_it_comes_after_ours_and_can_be_selected(self) -> None:
        register_precision("zz8", max_bits=8, min_sqnr_db=20)(row_layer)
        register_precision("aa", opaque=True, min_sqnr_db=10)(program)
        register_execution("mine")(lambda converted, inputs: Prepared(converted.module))
        assert list(all_precisions())[-2:] == ["zz8", "aa"]
        assert list(all_executions())[-1] == "mine"
        names = [scheme.name for scheme in select_schemes("zz*,aa,fp32", CPU).schemes]
        assert names == ["fp32", "zz8", "zz8+compile", "zz8+mine", "aa"]
        everything = select_schemes("all", CPU)
        assert {"zz8", "aa", "fp32+mine"} <= {scheme.name for scheme in everything.schemes}
        assert "takes" not in everything.left_out["aa+mine"]
        assert everything.left_out["aa+compile"].startswith("aa makes a program that runs by itself")

    def test_tables_have_it_after_ours_also_where_it_is_not_registered(self) -> None:
        before = scheme_place("aa")
        register_precision("zz8", max_bits=8, min_sqnr_db=20)(row_layer)
        register_precision("aa", opaque=True, min_sqnr_db=10)(program)
        assert scheme_place("aa") == before
        assert scheme_place("int4wo") < scheme_place("aa") < scheme_place("zz8")
        assert precision_place("fp32") == 0

    def test_the_function_itself_is_what_remains(self) -> None:
        assert register_precision("mine", max_bits=8, min_sqnr_db=20)(row_layer) is row_layer
        register_precision("mine", max_bits=4, min_sqnr_db=20)(row_layer)  # a conftest that was imported twice
        assert find_precision("mine").max_bits == 4

    def test_registering_loads_no_torch(self) -> None:
        code = (
            "import sys, pytest_vq\n"
            "pytest_vq.register_precision('mine', max_bits=8, min_sqnr_db=20)(lambda linear, copier: '')\n"
            "pytest_vq.register_execution('mine')(lambda converted, inputs: None)\n"
            "pytest_vq.register_model('mine', inputs=lambda batch, generator: None)(lambda: None)\n"
            "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_a_class_is_a_function_too(self) -> None:
        register_precision("mine", max_bits=8, min_sqnr_db=20)(RowLinear)
        again = type("RowLinear", (RowLinear,), {"__module__": RowLinear.__module__, "__qualname__": "RowLinear"})
        register_precision("mine", max_bits=8, min_sqnr_db=20)(again)
        assert find_precision("mine").layer is again

    @pytest.mark.parametrize("name", ["", "a+b", "a,b", "a/b", "a*", "recipe:a", ".a", "-a", "a b", "x" * 101])
    def test_unusable_names(self, name: str) -> None:
        for register in (functools.partial(register_precision, max_bits=8, min_sqnr_db=20), register_execution):
            with pytest.raises(RegistrationError, match="part of a test id and a file name"):
                register(name)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("all", "--vq-precisions all already means a group of precisions"),
            ("study", "already means a group"),
            ("best", "already means a group"),
            ("callable", "stands for a test's own code"),
            ("recipe-net", "those of recipes begin with recipe-"),
            ("int8-b8", "test ids end like this for a batch other than 1"),
            ("int8", "precision 'int8' is one of the package's"),
        ],
    )
    def test_names_that_mean_something_else(self, name: str, words: str) -> None:
        with pytest.raises(RegistrationError, match=words):
            register_precision(name, max_bits=8, min_sqnr_db=20)(row_layer)

    def test_executions_of_ours_are_taken(self) -> None:
        with pytest.raises(RegistrationError, match="execution 'compile' is one of the package's"):
            register_execution("compile")(lambda converted, inputs: None)

    def test_two_functions_cannot_share_a_name(self) -> None:
        register_precision("mine", max_bits=8, min_sqnr_db=20)(row_layer)
        with pytest.raises(RegistrationError, match=r"two precisions are registered as 'mine': .*row_layer and .*lamb"):
            register_precision("mine", max_bits=8, min_sqnr_db=20)(lambda linear, copier: "")

    @pytest.mark.parametrize("max_bits", [None, 0, 11, 32, "8", True, float("nan")])
    def test_a_layer_builder_says_how_many_bits(self, max_bits: Any) -> None:
        with pytest.raises(RegistrationError, match=r"max_bits=.*: say how many bits a weight takes at most"):
            register_precision("mine", max_bits=max_bits, min_sqnr_db=20)

    def test_an_opaque_one_cannot(self) -> None:
        with pytest.raises(RegistrationError, match="nobody can look into an opaque program"):
            register_precision("mine", opaque=True, max_bits=8, min_sqnr_db=20)

    @pytest.mark.parametrize("min_sqnr_db", [None, "20", float("inf")])
    def test_a_floor_is_a_number(self, min_sqnr_db: Any) -> None:
        with pytest.raises(RegistrationError, match="is no number of dB"):
            register_precision("mine", max_bits=8, min_sqnr_db=min_sqnr_db)

    def test_functions_that_take_something_else(self) -> None:
        with pytest.raises(RegistrationError, match=r"must take the arguments \(linear, copier\)"):
            register_precision("mine", max_bits=8, min_sqnr_db=20)(lambda linear: linear)
        with pytest.raises(RegistrationError, match=r"must take the arguments \(model, inputs, device\)"):
            register_precision("mine", opaque=True, min_sqnr_db=20)(row_layer)
        with pytest.raises(RegistrationError, match=r"must take the arguments \(converted, inputs\)"):
            register_execution("mine")(lambda converted: converted)
        with pytest.raises(RegistrationError, match="is not a function"):
            register_execution("mine")("onnx")  # type: ignore[type-var]


class TestLayers:
    def test_it_is_measured_like_ours(self, bench: Bench) -> None:
        register_precision("row8", max_bits=8, min_sqnr_db=20, method="a scale a row")(row_layer)
        record = bench.measure(net("row8")).record
        assert str(record.id) == "net-row8-b2"
        assert record.method.startswith("a scale a row, ")
        assert (record.quantized_layers, record.eligible_layers) == (2, 3)
        assert record.coverage.left == {"1": "32 columns are too few"}
        assert 30 < record.sqnr_db < 60
        assert net("row8").min_sqnr_db == 20
        assert record.speedup > 0
        assert record.model_size_bytes < 60_000

    def test_its_model_can_be_prepared_by_an_execution_of_ones_own(self, bench: Bench) -> None:
        prepared: list[str] = []

        def prepare(converted: Converted, inputs: Tensor) -> Prepared:
            assert not torch.is_inference_mode_enabled()
            prepared.append(converted.method)
            return Prepared(lambda images: converted.module(images), close=lambda: prepared.append("closed"))

        register_precision("row8", max_bits=8, min_sqnr_db=20)(row_layer)
        register_execution("mine")(prepare)
        record = bench.measure(net("row8+mine")).record
        assert (record.precision, record.execution) == ("row8", "mine")
        assert record.prepare_s > 0
        assert prepared == [record.method, "closed"] * 2  # the first time unmeasured, so that libraries are loaded

    def test_a_recipe_may_name_it(self) -> None:
        register_precision("row8", max_bits=8, min_sqnr_db=20)(row_layer)
        mix = Mix({"0.1": find_precision("row8"), "0.3": find_precision("int8wo")}, find_precision("fp32"))
        spec = PrecisionSpec("mix", None, mix=mix)
        made = convert(build().eval(), spec, device=torch.device("cpu"), rest=torch.float32, heads=["2"])
        assert (made.coverage.quantized, made.coverage.eligible) == (2, 3)

    def test_twice_the_same_is_found_out(self, bench: Bench) -> None:
        register_precision("row8", max_bits=8, min_sqnr_db=20)(row_layer)
        register_precision("other8", max_bits=8, min_sqnr_db=20)(lambda linear, copier: row_layer(linear, copier))
        bench.measure(net("row8"))
        with pytest.raises(PrecisionError, match="net: other8 stores the same bytes as row8"):
            bench.measure(net("other8"))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_an_unquantized_model_that_claims_layers_is_found_out(self, dtype: torch.dtype) -> None:
        def layer(linear: nn.Linear, copier: Copier) -> nn.Module:
            return Copier(copier.device, dtype).model(linear)

        with pytest.raises(PrecisionError, match=r"mine: the layer 0\.1 is not .*: it holds weight, .*not quantized"):
            at(layer, max_bits=10)

    @pytest.mark.parametrize(
        ("layer", "words"),
        [
            (lambda linear, copier: linear, r"the layer 0\.1 is not what it should be: it holds weight, torch.float32"),
            (lambda linear, copier: None, r"mine: its function .*, given a layer of 192 -> 128, returned a NoneType"),
            (lambda linear, copier: 1 // 0, r"given a layer of 192 -> 128, raised ZeroDivisionError"),
            (lambda linear, copier: "not today", r"none of 3 linear layers was quantized \(0\.1: not today\)"),
            (lambda linear, copier: nn.Linear(5, 5), "returned one whose in_features is 5"),
        ],
    )
    def test_what_is_no_layer(self, layer: Callable[..., Any], words: str) -> None:
        with pytest.raises(PrecisionError, match=words):
            at(layer)

    def test_changing_the_fp32_layer_is_found_out(self) -> None:
        def layer(linear: nn.Linear, copier: Copier) -> nn.Module:
            linear.weight.data = linear.weight.data.round()
            return RowLinear(linear, copier)

        with pytest.raises(PrecisionError, match="changed that layer, which is the FP32 model's own"):
            at(layer)


class TestWhatALayerHolds:
    """Of a layer of 64 x 64 weights."""

    def fault(self, max_bits: float = 8, **tensors: object) -> str:
        layer = nn.Module()
        layer.in_features = layer.out_features = 64
        for name, value in tensors.items():
            if isinstance(value, Tensor):
                layer.register_buffer(name, value, persistent=name != "kept")
            else:
                setattr(layer, name, value)
        return own_layer_fault(layer, max_bits)

    CODES = torch.ones(64, 64, dtype=torch.int8)

    def test_codes_and_scales_pass(self) -> None:
        assert self.fault(codes=self.CODES, scales=torch.ones(64), bias=torch.ones(64)) == ""
        assert self.fault(1.6, codes=torch.ones(64, 16, dtype=torch.uint8), scales=torch.ones(64)) == ""

    def test_a_second_view_of_the_codes_costs_nothing(self) -> None:
        assert self.fault(codes=self.CODES, turned=self.CODES.t(), scales=torch.ones(64)) == ""

    @pytest.mark.parametrize("name", ["weight", "kept", "anything"])
    def test_full_weights_beside_the_codes(self, name: str) -> None:
        words = f"it holds {name}, torch.float32 [64, 64]: weights that are not quantized"
        assert self.fault(codes=self.CODES, **{name: torch.ones(64, 64)}) == words

    def test_full_weights_out_of_sight(self) -> None:
        assert "it holds hidden.0.weight, " in self.fault(codes=self.CODES, hidden=[nn.Linear(64, 64)])
        assert "it holds hidden.w, " in self.fault(codes=self.CODES, hidden={"w": torch.ones(64, 64)})

    def test_too_few_codes(self) -> None:
        assert self.fault(codes=self.CODES[:4, :4].clone()).startswith("it holds 0.0 bits a weight in integers")
        assert self.fault(nothing=None).startswith("it holds 0.0 bits")

    def test_more_than_is_promised(self) -> None:
        codes = torch.ones(256, 256, dtype=torch.int8)
        layer = nn.Module()
        layer.in_features = layer.out_features = 256
        layer.register_buffer("codes", codes)
        assert own_layer_fault(layer, 8) == ""
        assert own_layer_fault(layer, 4).startswith("it stores 8.0 bits a weight, where 4 are meant and at most 6 pass")


class TestOpaque:
    def test_it_is_measured_with_what_it_states(self, bench: Bench) -> None:
        seen: list[Any] = []

        def stated(model: nn.Module, inputs: Tensor, device: torch.device) -> Opaque:
            seen[:] = [inputs.shape, inputs.dtype, device.type, torch.is_inference_mode_enabled()]
            return as_tensor(program(model, inputs, device))

        register_precision("seven", opaque=True, min_sqnr_db=20, method="seven bits")(stated)
        record = bench.measure(net("seven")).record
        assert seen == [(2, 3, 8, 8), torch.float32, "cpu", False]
        assert record.method == "seven bits, not inspectable"
        assert (record.quantized_layers, record.eligible_layers, dict(record.coverage.left)) == (None, None, {})
        assert record.model_size_bytes == 1000
        assert 15 < record.sqnr_db < 60
        assert record.peak_memory_bytes is not None
        assert bench.measure(net("fp32")).record.sqnr_db is None  # the model that it changed was a copy

    def test_two_with_one_fingerprint_are_found_out(self, bench: Bench) -> None:
        register_precision("one", opaque=True, min_sqnr_db=20)(lambda m, i, d: as_tensor(program(m, i, d)))
        register_precision("two", opaque=True, min_sqnr_db=20)(lambda *all_: as_tensor(program(*all_)))
        bench.measure(net("one"))
        with pytest.raises(PrecisionError, match="net: two stores the same bytes as one"):
            bench.measure(net("two"))

    def test_what_it_answers_is_checked(self, bench: Bench) -> None:
        register_precision("array", opaque=True, min_sqnr_db=20)(program)
        words = r"net-array-b2: its program returned a ndarray; Opaque\.call must return a torch\.Tensor, or what"
        with pytest.raises(OutputError, match=words):
            bench.measure(net("array"))

    def test_a_tensor_is_taken_where_the_model_returns_something_else(self, bench: Bench) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = build()

            def forward(self, images: Tensor) -> dict[str, Tensor]:
                return {"logits": self.net(images)}

        register_model("wrapped", input_shape=(3, 8, 8), output=lambda answer: answer["logits"])(Wrapped)
        register_precision("inner", opaque=True, min_sqnr_db=20)(
            lambda model, inputs, device: Opaque(lambda images: model(images)["logits"], 10, "inner")
        )
        case = Case(find_model("wrapped"), find_scheme("inner"), 2)
        assert bench.measure(case).record.sqnr_db > 100

    def test_on_an_accelerator_its_memory_is_not_told(self) -> None:
        register_precision("mine", opaque=True, min_sqnr_db=20)(lambda *all_: as_tensor(program(*all_)))
        register_model("net", input_shape=(3, 8, 8), head="2")(build)
        cpu, case = open_device(gpu=False, threads=1), net("mine")
        workload = place(case, Reference.of(case.model, "random"), cpu)
        assert memory_refusal(workload, cpu) == ""
        gpu = dataclasses.replace(cpu, torch_device=torch.device("cuda"))
        assert memory_refusal(workload, gpu).startswith("no memory: what an opaque program takes on the device")

    @pytest.mark.parametrize(
        ("made", "words"),
        [
            (lambda *_: None, r"returned a NoneType; it must return pytest_vq.Opaque\("),
            (lambda *_: 1 // 0, "raised ZeroDivisionError"),
            (lambda *_: Opaque("session", 10, "a"), "Opaque.call is a str, and cannot be called"),
            (lambda *_: Opaque(print, 0, "a"), "Opaque.model_size_bytes is 0; state the bytes"),
            (lambda *_: Opaque(print, 10.5, "a"), "Opaque.model_size_bytes is 10.5"),
            (lambda *_: Opaque(print, 10, ""), "Opaque.fingerprint is ''; give a digest"),
        ],
    )
    def test_what_is_no_program(self, bench: Bench, made: Callable[..., Any], words: str) -> None:
        register_precision("mine", opaque=True, min_sqnr_db=20)(made)
        with pytest.raises(PrecisionError, match=f"^mine: its function .*{words}"):
            bench.measure(net("mine"))


class TestExecutions:
    @pytest.mark.parametrize(
        ("prepare", "words"),
        [
            (lambda converted, inputs: converted.module, r"returned Sequential; it must return pytest_vq.Prepared\("),
            (lambda converted, inputs: Prepared("session"), "returned a Prepared whose call cannot be called"),
            (lambda converted, inputs: 1 // 0, "mine could not be prepared: ZeroDivisionError"),
        ],
    )
    def test_what_is_not_prepared(self, bench: Bench, prepare: Callable[..., Any], words: str) -> None:
        register_execution("mine")(prepare)
        with pytest.raises(ExecutionError, match=rf"^net-fp32\+mine-b2: .*{words}"):
            bench.measure(net("fp32+mine"))

    def test_an_unknown_one_names_the_nearest(self) -> None:
        register_execution("mine")(lambda converted, inputs: Prepared(converted.module))
        with pytest.raises(SelectionError, match=r"no execution 'mime': did you mean mine"):
            find_scheme("fp32+mime")
