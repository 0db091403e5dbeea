"""Which schemes a text means: a precision, or a precision and an execution joined by ``+``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.execution.executions import all_executions, find_execution, load_prepare
from pytest_vq.execution.schemes import all_schemes, find_scheme, reference_scheme, select_schemes

PRECISIONS = ["fp32", "fp16", "int8", "int4"]


def test_importing_the_schemes_loads_no_torch():
    code = (
        "import sys, pytest_vq.execution.schemes as s; s.select_schemes('all'); s.find_scheme('int8+eager'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_eager_schemes_are_called_by_their_precision_alone():
    assert [name for name in all_schemes() if "+" not in name] == PRECISIONS
    assert [scheme.name for scheme in all_schemes().values()] == list(all_schemes())
    assert next(iter(all_executions())) == "eager"


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision_alone_is_run_eagerly(name):
    scheme = find_scheme(name)
    assert (scheme.name, scheme.precision.name, scheme.execution.name) == (name, name, "eager")


@pytest.mark.parametrize("name", PRECISIONS)
def test_naming_eager_execution_changes_nothing(name):
    assert find_scheme(f"{name}+eager") == find_scheme(name)
    assert find_scheme(f"{name}+eager").name == name


def test_the_reference_is_eager_fp32():
    assert reference_scheme() == find_scheme("fp32")
    assert [name for name, scheme in all_schemes().items() if scheme.is_reference] == ["fp32"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (",".join(PRECISIONS), PRECISIONS),
        (" int4 , fp32,", ["fp32", "int4"]),
        ("int8,int8", ["int8"]),
        ("int8+eager", ["int8"]),
        ("int8+eager,int8", ["int8"]),
        ("all", list(all_schemes())),
        ("int4,all", list(all_schemes())),
    ],
)
def test_select(text, names):
    assert [scheme.name for scheme in select_schemes(text)] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no precision in ''.*fp32, fp16, int8, int4.*or all"),
        (" , ", r"no precision in ' , '"),
        ("int8,int9", r"no precision 'int9': did you mean .*int8"),
        ("int9+eager", r"no precision 'int9': did you mean .*int8"),
        ("fp32,int8+eagre", r"no execution 'eagre': did you mean eager\?"),
    ],
)
def test_select_refuses(text, message):
    with pytest.raises(SelectionError, match=message):
        select_schemes(text)


@pytest.mark.parametrize(("wrong", "near"), [("int48", "int4"), ("FP16", "fp16"), ("int", "int8"), ("f32", "fp32")])
def test_an_unknown_precision_names_the_nearest(wrong, near):
    with pytest.raises(
        SelectionError, match=rf"no precision '{wrong}': did you mean .*{near}.*\? There are fp32, fp16"
    ):
        find_scheme(wrong)


@pytest.mark.parametrize("wrong", ["eagre", "EAGER", "int8", "eager+eager"])
def test_an_unknown_execution_names_the_nearest(wrong):
    for find, name in ((find_execution, wrong), (find_scheme, f"int8+{wrong}")):
        with pytest.raises(SelectionError) as raised:
            find(name)
        assert str(raised.value).startswith(f"no execution {wrong!r}: did you mean eager")


@pytest.mark.parametrize("name", list(all_executions()))
def test_what_prepares_an_execution_can_be_loaded(name):
    assert callable(load_prepare(find_execution(name)))
