from __future__ import annotations

import subprocess
import sys
from pkgutil import resolve_name

import pytest
import torch

from pytest_vq.errors import SelectionError
from pytest_vq.precision.precisions import all_precisions, find_precision


def test_the_registry_is_ordered_and_bounded():
    assert {name: spec.min_sqnr_db for name, spec in all_precisions().items()} == {
        "fp32": None,
        "fp16": 40.0,
        "int8": 18.0,
        "int4": 8.0,
    }
    assert list(all_precisions()) == ["fp32", "fp16", "int8", "int4"]


def test_importing_the_registry_loads_no_torch():
    code = "import sys, pytest_vq.precision.precisions as p; p.all_precisions(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("wrong", "near"), [("int48", "int4"), ("FP16", "fp16"), ("int", "int8"), ("f32", "fp32")])
def test_an_unknown_name_names_the_nearest(wrong, near):
    with pytest.raises(
        SelectionError, match=rf"no precision '{wrong}': did you mean .*{near}.*\? There are fp32, fp16"
    ):
        find_precision(wrong)


def test_a_name_like_none_gets_them_all():
    with pytest.raises(SelectionError, match="did you mean fp32 or fp16 or int8 or int4"):
        find_precision("zzz")


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_a_precision_that_casts_names_a_type_of_torch_and_replaces_nothing(name, dtype):
    spec = find_precision(name)
    assert getattr(torch, spec.dtype) is dtype
    assert (spec.layer, spec.check) == (None, None)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_the_layer_builder_and_the_check_of_a_precision_can_be_loaded(name):
    spec = find_precision(name)
    assert spec.dtype is None
    assert callable(resolve_name(spec.layer))
    assert callable(resolve_name(spec.check))


def test_a_precision_that_is_coarser_than_another_names_one_that_exists():
    assert {spec.name: spec.coarser_than for spec in all_precisions().values() if spec.coarser_than} == {"int4": "int8"}
