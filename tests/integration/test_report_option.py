"""``--vq-report``: the report of a run at its end, as ``pytest-vq report`` writes it afterwards."""

from __future__ import annotations

import sys

import pytest

from pytest_vq.cli.main import main


def test_the_report_lies_beside_the_results_and_its_path_is_printed(steady) -> None:
    result = steady.runpytest_subprocess("--vq-report", "--vq-precisions=fp32,int8", "--vq-runs=2")
    assert result.ret == 0
    folder = steady.path / "vq-results" / "report"
    result.stdout.fnmatch_lines([f"report: {folder}/report.html"])
    assert "| my-net | fp32 | 20.0 ms |" in (folder / "report.md").read_text()
    # The other process of the two only measures.
    assert not (steady.path / "vq-results" / "run-2" / "report").exists()
    again = steady.path / "again"
    assert main(["report", str(steady.path / "vq-results"), "--output", str(again)]) == 0
    assert (again / "report.md").read_bytes() == (folder / "report.md").read_bytes()


def test_nothing_is_measured_where_it_could_not_be_written(steady, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    result = steady.runpytest_inprocess("--vq-report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*(vl_convert): pip install 'pytest-vq?report?'"])
    assert not (steady.path / "vq-results").exists()


def test_a_run_that_measured_nothing_has_none(steady) -> None:
    steady.makepyfile(test_my_bench="def test_precision(vq_case, vq_bench):\n    raise ValueError('no')\n")
    result = steady.runpytest_inprocess("--vq-report", "--vq-precisions=fp32")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["no report: nothing was measured"])
