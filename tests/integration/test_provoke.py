"""Changes made on purpose, through the real gate: what ``pytest-vq selftest`` and a GPU check rely on."""

from __future__ import annotations

import json

TOLERANT = """
    import pytest

    @pytest.mark.vq(latency_tolerance=1.0, speedup_tolerance=1.0, memory_tolerance={memory})
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""
PROVOKE = ("-p", "pytest_vq.plugin.provoke")


def test_a_provoked_slowdown_fails_only_the_precision_it_is_for(project, rows, monkeypatch) -> None:
    monkeypatch.setattr("pytest_vq.device.telemetry.HostTelemetry._MAX_WAITING", 1.0)
    monkeypatch.setenv("VQ_PROVOKE_SLOWDOWN", "")  # what the run below hands on is taken back
    monkeypatch.setenv("VQ_PROVOKE_ALLOCATION", "")
    project.makepyfile(test_my_bench=TOLERANT.format(memory=100))
    only = ("--vq-precisions=fp16,int8", "--vq-budget=2")
    assert project.runpytest_inprocess(*only, "--vq-save").ret == 0
    result = project.runpytest_inprocess(*only, *PROVOKE, "--provoke-slowdown=int8=9")
    assert result.ret == 1
    assert {row["precision"]: row["verdict"] == "FAIL" for row in rows()} == {"fp16": False, "int8": True}
    assert "3 fresh" in rows()[1]["reason"]  # confirmed in processes that were slowed down too


def test_a_provoked_allocation_fails_and_names_its_operator(project, rows, monkeypatch) -> None:
    monkeypatch.setenv("VQ_PROVOKE_SLOWDOWN", "")
    monkeypatch.setenv("VQ_PROVOKE_ALLOCATION", "")
    project.makepyfile(test_my_bench=TOLERANT.format(memory=0.5))
    only = ("--vq-precisions=fp16",)
    assert project.runpytest_inprocess(*only, "--vq-save").ret == 0
    result = project.runpytest_inprocess(*only, *PROVOKE, "--provoke-allocation=fp16=256")
    assert result.ret == 1
    assert "peak memory" in rows()[0]["reason"]
    tables = json.loads((project.path / "vq-results" / "explain" / "my-net-fp16.json").read_text())
    assert max(tables["now"], key=lambda name: tables["now"][name]["self_bytes"]) in "\n".join(result.outlines)


def test_what_cannot_be_read_is_refused(project) -> None:
    result = project.runpytest_inprocess(*PROVOKE, "--provoke-slowdown=int8")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--provoke-slowdown: 'int8' is not like int8=0.10*"])
