"""The steps of the check on a GPU: what they refuse, and what they hand to the shell."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_vq.catalog.models import select_models

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(TOOLS)
    yield importlib.import_module("gpu_steps")
    sys.modules.pop("gpu_steps")


def table(path: Path, **verdicts: str) -> str:
    """A ``results.csv`` of INT8 rows, a model each."""
    rows = [f"{model},int8,{verdict}" for model, verdict in verdicts.items()]
    path.write_text("\n".join(["model,precision,verdict", *rows]) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ({"a": "NO_BASELINE", "b": "INCOMPARABLE"}, {"c": ""}, True),
        ({"a": "NO_BASELINE"}, {"c": "INCONCLUSIVE"}, False),
        ({}, {}, True),
    ],
)
def test_a_run_that_compared_nothing_is_refused(
    steps: Any, tmp_path: Path, first: dict[str, str], second: dict[str, str], refused: bool
) -> None:
    tables = [table(tmp_path / "1.csv", **first), table(tmp_path / "2.csv", **second)]
    assert bool(steps.compared(*tables)) == refused


def test_a_pattern_that_no_shell_found_files_for_is_refused(steps: Any, tmp_path: Path) -> None:
    assert "nothing was measured" in steps.compared(str(tmp_path / "vq-results-5-*" / "results.csv"))


@pytest.mark.parametrize(
    ("verdicts", "refused"),
    [({"a": "FAIL"}, False), ({"a": "PASS"}, True), ({"a": "FAIL", "b": "PASS"}, True), ({}, True)],
)
def test_what_was_slowed_down_must_fail_and_nothing_else(
    steps: Any, tmp_path: Path, verdicts: dict[str, str], refused: bool
) -> None:
    assert bool(steps.caught(table(tmp_path / "6.csv", **verdicts), "int8=0.10")) == refused


def test_every_model_that_a_gpu_measures_is_in_one_group(steps: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert steps.groups() is None
    grouped = capsys.readouterr().out.split()
    models = [name for group in grouped for name in group.split(",")]
    assert sorted(models) == sorted(model.name for model in select_models("default", accelerator=True))
    assert 1 < len(grouped) < len(models)


def test_tests_for_a_gpu_lie_where_make_test_looks_for_them() -> None:
    tests = TOOLS.parent / "tests"
    marked = {path.parent.name for path in tests.rglob("test_*.py") if "mark." + "gpu" in path.read_text()}
    assert marked == {"gpu"}
    assert "pytest tests/gpu -m gpu" in (TOOLS.parent / "Makefile").read_text()
