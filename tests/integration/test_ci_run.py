"""A real run as GitHub's runner starts it: summary, annotations and JUnit's XML, all of the numbers of study.json."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
from one_number import assert_exact

from pytest_vq.schema.record import COLUMNS

# Resident memory of a net this small moves by its own size: what is tested here is time.
ANY_MEMORY = """
    import pytest

    @pytest.mark.vq(memory_tolerance=100)
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""
# Its error and its description may hold anything.
BROKEN = """

    @pytest_vq.register_model("broken-net", input_shape=(3, 16, 16))
    def build_broken():
        raise ValueError("no |file|\\n::error::all is lost \\x1b[31m @org/team <!-- pytest-vq -->")
"""
FP32_AND_INT8 = ("--vq-precisions=fp32,int8",)


@pytest.fixture
def on_github(steady: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The steady project with a baseline, on a runner; the file of the job's summary."""
    steady.makepyfile(test_my_bench=ANY_MEMORY)
    assert steady.runpytest_inprocess("--vq-precisions=fp32,int8", "--vq-save").ret == 0
    summary = steady.path / "summary.md"
    monkeypatch.setenv("CI", "true")  # pytest then prints an error's message in full, line by line
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(steady.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


def stored(project: pytest.Pytester) -> dict[str, dict[str, object]]:
    study = json.loads((project.path / "vq-results" / "study.json").read_text())
    return {row["precision"]: row for row in study["records"]}


def properties(project: pytest.Pytester) -> dict[str, dict[str, str]]:
    """The properties of each test, by its precision."""
    found = {}
    for case in ElementTree.parse(project.path / "junit.xml").iter("testcase"):
        told = {str(p.get("name")): str(p.get("value")) for p in case.iter("property")}
        if told:
            found[told["vq.precision"]] = told
    return found


def assert_equal(told: dict[str, str], row: dict[str, object]) -> None:
    """Every figure of the XML is the study's, and every cell of the study that is not empty is there."""
    cells = {name: row[name] for name in COLUMNS}
    assert_exact({name.removeprefix("vq."): text for name, text in told.items()}, cells)
    assert {"vq.latency_ms", "vq.samples", "vq.peak_memory_bytes", "vq.verdict"} <= told.keys()


def test_a_regression_is_shown_where_people_look(on_github: Path, steady: pytest.Pytester) -> None:
    (steady.path / "burden_ms").write_text("10")
    conftest = steady.path / "conftest.py"
    conftest.write_text(conftest.read_text() + dedent(BROKEN))
    result = steady.runpytest_subprocess(*FP32_AND_INT8, "--junitxml=junit.xml")
    assert result.ret == 1
    rows = stored(steady)
    assert [row["verdict"] for row in rows.values()] == ["PASS", "FAIL"]

    text = on_github.read_text()
    assert text.startswith("\n## pytest-vq: 1 FAIL, 1 PASS, 2 not measured\n")  # once: no other process wrote
    assert text.count("## pytest-vq") == 1
    assert "| my-net-int8 | FAIL | latency (10 % quantile) 30.0 ms → 40.0 ms" in text
    assert "\x1b" not in text
    assert "<!--" not in text

    commands = [line for line in result.outlines if line.startswith("::")]
    assert [command.partition(" ")[0] for command in commands] == ["::error"] * 3
    assert commands[0].startswith(
        "::error file=test_my_bench.py,line=3,title=FAIL my-net-int8::latency (10 %25 quantile)"
    )
    assert all("title=not measured%3A broken-net-" in command for command in commands[1:])

    told = properties(steady)  # the XML parses, whatever the error holds
    assert told.keys() == rows.keys()
    for precision, row in rows.items():
        assert_equal(told[precision], row)


def test_workers_properties_reach_the_xml(on_github: Path, steady: pytest.Pytester) -> None:
    result = steady.runpytest_subprocess(*FP32_AND_INT8, "-n", "2", "--junitxml=junit.xml")
    assert result.ret == 0
    rows, told = stored(steady), properties(steady)
    assert told.keys() == rows.keys() == {"fp32", "int8"}
    for precision, row in rows.items():
        assert_equal(told[precision], row)
    assert on_github.read_text().count("## pytest-vq") == 1


def test_a_summary_that_cannot_be_written_fails_nothing(on_github: Path, steady: pytest.Pytester) -> None:
    on_github.mkdir()
    result = steady.runpytest_inprocess(*FP32_AND_INT8)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"no summary in GITHUB_STEP_SUMMARY: cannot write {on_github}: Is a directory"])
