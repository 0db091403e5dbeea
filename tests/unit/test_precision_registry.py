from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.precision.precisions import all_precisions, find_precision, load_handler, select_precisions


def test_the_registry_is_ordered_and_bounded():
    assert {name: spec.min_sqnr_db for name, spec in all_precisions().items()} == {
        "fp32": None,
        "fp16": 40.0,
        "int8": 18.0,
        "int4": 8.0,
    }
    assert list(all_precisions()) == ["fp32", "fp16", "int8", "int4"]


def test_importing_the_registry_loads_no_torch():
    code = (
        "import sys, pytest_vq.precision.precisions as p; p.select_precisions('all'); sys.exit('torch' in sys.modules)"
    )
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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", ["fp32", "fp16", "int8", "int4"]),
        (" int4 , fp32,", ["fp32", "int4"]),
        ("int8,int8", ["int8"]),
        ("int4,all", ["fp32", "fp16", "int8", "int4"]),
    ],
)
def test_select(text, names):
    assert [spec.name for spec in select_precisions(text)] == names


@pytest.mark.parametrize("text", ["", " , ", "int8,int9"])
def test_select_refuses(text):
    with pytest.raises(SelectionError):
        select_precisions(text)


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4"])
def test_every_handler_can_be_loaded(name):
    assert callable(load_handler(find_precision(name)))
