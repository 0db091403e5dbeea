"""Which schemes a text means: a precision, or a precision and an execution joined by ``+``."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.execution import schemes
from pytest_vq.execution.executions import all_executions, find_execution, load_prepare
from pytest_vq.execution.schemes import all_schemes, find_scheme, reference_scheme, refusal, select_schemes
from pytest_vq.precision.precisions import all_precisions
from pytest_vq.schema.spec import Target

STUDY = ["fp32", "fp16", "int8", "int4"]
PRECISIONS = list(all_precisions())
CPU = Target(is_accelerator=False)
H100 = Target(is_accelerator=True, compute_capability=(9, 0))
T4 = Target(is_accelerator=True, compute_capability=(7, 5))


def names_of(text: str, target: Target = CPU) -> list[str]:
    return [scheme.name for scheme in select_schemes(text, target).schemes]


def test_importing_the_schemes_loads_no_torch():
    code = (
        "import sys, pytest_vq.execution.schemes as s; from pytest_vq.schema.spec import Target; "
        "s.select_schemes('all', Target(False)); s.find_scheme('int8+eager'); sys.exit('torch' in sys.modules)"
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
        (",".join(STUDY), STUDY),
        ("study", STUDY),
        (" int4 , fp32,", ["fp32", "int4"]),
        ("int8,int8", ["int8"]),
        ("int8+eager", ["int8"]),
        ("int8+eager,int8", ["int8"]),
        ("int4,study", STUDY),
        ("int?", ["int8", "int4"]),
        ("fp*+compile", ["fp32+compile", "fp16+compile"]),
    ],
)
def test_select(text, names):
    assert names_of(text) == names


def test_all_is_what_the_device_can_run_and_names_the_rest():
    for target in (CPU, T4, H100):
        selected = select_schemes("all", target)
        names = [scheme.name for scheme in selected.schemes]
        assert sorted([*names, *selected.left_out]) == sorted(all_schemes())
        assert all(selected.left_out.values())
        assert set(STUDY) <= set(names)
        for scheme in selected.schemes:
            assert refusal(scheme, target) == ""


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("tf32", CPU, "needs an NVIDIA GPU"),
        ("fp8", CPU, "needs an NVIDIA GPU"),
        ("fp8", T4, "compute capability 8.9 or later, and this one has 7.5"),
        ("int4wo", CPU, "needs an NVIDIA GPU"),
        ("fp16+graph", CPU, "CUDA graph"),
        ("bf16+compile+graph", CPU, "CUDA graph"),
        ("int8+compile", CPU, "outlier"),
        ("int8+graph", H100, "outlier"),
    ],
)
def test_what_a_device_cannot_run_is_refused_by_name_and_left_out_of_globs(name, target, reason):
    with pytest.raises(SelectionError, match=rf"^{re.escape(name)} cannot run here: .*{reason}"):
        select_schemes(f"fp32,{name}", target)
    glob = f"[{name[0]}]{name[1:]}"
    selected = select_schemes(f"fp32,{glob}", target)
    assert [scheme.name for scheme in selected.schemes] == ["fp32"]
    assert reason in selected.left_out[name]
    with pytest.raises(SelectionError, match=r"^nothing in .* can run here: .*" + reason):
        select_schemes(glob, target)


def test_a_card_that_is_not_asked_yet_may_run_everything_its_kind_can():
    unknown = select_schemes("all", Target(is_accelerator=True))
    assert names_of("all", H100) == [scheme.name for scheme in unknown.schemes]


@pytest.mark.parametrize("target", [CPU, H100])
def test_the_best_are_few_and_all_of_them_can_run(target):
    best = select_schemes("best", target)
    names = [scheme.name for scheme in best.schemes]
    assert names[0] == "fp32"
    assert 4 < len(names) + len(best.left_out) < 9
    assert all("triton" in reason for reason in best.left_out.values())  # which a CPU's torch does without


def test_on_a_cpu_without_bf16_it_is_not_among_the_best(monkeypatch):
    for has, expected in ((True, ["bf16", "bf16+compile"]), (False, [])):
        monkeypatch.setattr(schemes, "computes_bf16", lambda has=has: has)
        assert [name for name in names_of("best") if name.startswith("bf16")] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no precision in ''.*fp32, .*fp16, .*\+compile.*or study, best, all"),
        (" , ", r"no precision in ' , '"),
        ("int8,int9", r"no precision 'int9': did you mean .*int8"),
        ("int9+eager", r"no precision 'int9': did you mean .*int8"),
        ("fp32,int8+eagre", r"no execution 'eagre': did you mean eager"),
        ("int8,*+grph", r"no scheme matches '\*\+grph'; the nearest are "),
    ],
)
def test_select_refuses(text, message):
    with pytest.raises(SelectionError, match=message):
        select_schemes(text, CPU)


@pytest.mark.parametrize(("wrong", "near"), [("int48", "int4"), ("FP16", "fp16"), ("int", "int8"), ("f32", "fp32")])
def test_an_unknown_precision_names_the_nearest(wrong, near):
    with pytest.raises(SelectionError, match=rf"no precision '{wrong}': did you mean .*{near}.*\? There are fp32, "):
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
