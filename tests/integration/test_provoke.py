"""Changes made on purpose, through the real gate: what ``pytest-vq selftest`` and a GPU check rely on."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

MARKED = """
    import pytest

    @pytest.mark.vq(memory_tolerance={memory})
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""
PROVOKE = ("-p", "pytest_vq.plugin.provoke")

# A provoked slowdown spins by the clock: on a steady machine that clock is the machine's own.
SPINNING = """

from types import SimpleNamespace

from pytest_vq.plugin import provoke


def perf_counter():
    global now_ms
    now_ms += 0.01
    return now_ms / 1e3


@pytest.fixture(autouse=True, scope="session")
def spinning(steady):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provoke, "time", SimpleNamespace(perf_counter=perf_counter))
        yield
"""


@pytest.fixture(autouse=True)
def nothing_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_PROVOKE_SLOWDOWN", "")  # what a run hands on to its children is taken back
    monkeypatch.setenv("VQ_PROVOKE_ALLOCATION", "")


def test_a_provoked_slowdown_fails_only_the_precision_it_is_for(steady, rows) -> None:
    conftest = steady.path / "conftest.py"
    conftest.write_text(conftest.read_text() + dedent(SPINNING))
    steady.makepyfile(test_my_bench=MARKED.format(memory=100))
    only = ("--vq-precisions=fp16,int8",)
    assert steady.runpytest_inprocess(*only, "--vq-save").ret == 0
    result = steady.runpytest_inprocess(*only, *PROVOKE, "--provoke-slowdown=int8=0.5")
    assert result.ret == 1
    assert {row["precision"]: row["verdict"] for row in rows()} == {"fp16": "PASS", "int8": "FAIL"}
    assert "3 fresh" in rows()[1]["reason"]  # confirmed in processes that were slowed down too


def test_a_provoked_allocation_fails_and_names_its_operator(steady, rows) -> None:
    steady.makepyfile(test_my_bench=MARKED.format(memory=0.5))
    only = ("--vq-precisions=fp16",)
    assert steady.runpytest_inprocess(*only, "--vq-save").ret == 0
    result = steady.runpytest_inprocess(*only, *PROVOKE, "--provoke-allocation=fp16=64")
    assert result.ret == 1
    assert "peak memory" in rows()[0]["reason"]
    tables = json.loads((steady.path / "vq-results" / "explain" / "my-net-fp16.json").read_text())
    assert max(tables["now"], key=lambda name: tables["now"][name]["self_bytes"]) in "\n".join(result.outlines)


def test_what_cannot_be_read_is_refused(project) -> None:
    result = project.runpytest_inprocess(*PROVOKE, "--provoke-slowdown=int8")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--provoke-slowdown: 'int8' is not like int8=0.10*"])
