from __future__ import annotations

import subprocess
import sys
from pkgutil import resolve_name

import pytest
import torch

from pytest_vq.errors import SelectionError
from pytest_vq.execution.executions import all_executions
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.precision.precisions import all_precisions, find_precision

STUDY = ["fp32", "fp16", "int8", "int4"]
NAMES = ["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int8dyn", "int8wo", "int4", "int4wo"]
QUANTIZING = NAMES[4:]


def test_the_registry_is_ordered_and_bounded():
    assert {name: spec.min_sqnr_db for name, spec in all_precisions().items()} == {
        "fp32": None,
        "tf32": 45.0,
        "fp16": 40.0,
        "bf16": 27.0,
        "fp8": 14.0,
        "int8": 18.0,
        "int8dyn": 15.0,
        "int8wo": 24.0,
        "int4": 8.0,
        "int4wo": 6.0,
    }
    assert list(all_precisions()) == NAMES


def test_the_studys_four_are_in_the_studys_order():
    assert [name for name in all_precisions() if name in {"fp32", "fp16", "int8", "int4"}] == STUDY
    assert find_precision("int4").method == "bitsandbytes NF4"


def test_importing_the_registry_loads_no_torch():
    code = "import sys, pytest_vq.precision.precisions as p; p.all_precisions(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("wrong", "near"), [("int48", "int4"), ("FP16", "fp16"), ("int", "int8"), ("f32", "fp32")])
def test_an_unknown_name_names_the_nearest(wrong, near):
    with pytest.raises(
        SelectionError, match=rf"no precision '{wrong}': did you mean .*{near}.*\? There are fp32, tf32"
    ):
        find_precision(wrong)


def test_a_name_like_none_gets_them_all():
    with pytest.raises(SelectionError, match=f"did you mean {' or '.join(NAMES)}"):
        find_precision("zzz")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)],
)
def test_a_precision_that_casts_names_a_type_of_torch_and_replaces_nothing(name, dtype):
    spec = find_precision(name)
    assert getattr(torch, spec.dtype) is dtype
    assert (spec.layer, spec.check) == (None, None)


@pytest.mark.parametrize("name", QUANTIZING)
def test_the_layer_builder_and_the_check_of_a_precision_can_be_loaded(name):
    spec = find_precision(name)
    assert spec.dtype is None
    assert callable(resolve_name(spec.layer))
    assert callable(resolve_name(spec.check))
    assert spec.max_bits == int(name.removeprefix("fp").removeprefix("int")[0])


@pytest.mark.parametrize("name", NAMES)
def test_what_else_a_precision_names_can_be_loaded(name):
    spec = find_precision(name)
    assert all(callable(resolve_name(path)) for path in (spec.switches, spec.refusal) if path is not None)


@pytest.mark.parametrize("name", NAMES)
def test_where_it_cannot_run_it_names_an_execution_that_exists_and_says_what_to_take(name):
    spec = find_precision(name)
    assert set(spec.not_under) <= set(all_executions())
    assert all(find_scheme(why.rpartition(" take ")[2]) for why in spec.not_under.values())


def test_llm_int8_is_neither_compiled_nor_recorded():
    assert set(find_precision("int8").not_under) == {"compile", "graph", "compile+graph"}


def test_what_waits_for_the_gpu_in_eager_calls_is_not_recorded_eagerly():
    assert {name for name in NAMES if "graph" in find_precision(name).not_under} == {"int8", "int8dyn"}
    assert "compile+graph" not in find_precision("int8dyn").not_under


def test_what_torchao_quantizes_leaves_its_rest_in_bf16_on_an_accelerator():
    wanted = {name: find_precision(name).accelerator_rest for name in QUANTIZING}
    assert wanted == dict.fromkeys(["fp8", "int8dyn", "int8wo", "int4wo"], "bfloat16") | dict.fromkeys(["int8", "int4"])


def test_a_precision_that_is_coarser_than_another_names_one_that_exists():
    assert {spec.name: spec.coarser_than for spec in all_precisions().values() if spec.coarser_than} == {
        "int4": "int8",
        "int4wo": "int8wo",
    }
