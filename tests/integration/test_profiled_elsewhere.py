"""Where a device keeps the profiler, as a GPU does, no process that measures is profiled: another one is."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
from unprofiled import UNPROFILED, stored_entries, take_said

# A CPU that keeps the profiler, as a GPU does, and one that no process can be profiled on where ``broken`` lies.
KEEPING = """

from pytest_vq.device.device import Device


@pytest.fixture(autouse=True, scope="session")
def keeping(request, unprofiled):
    profiles = request.config.pluginmanager.hasplugin("pytest_vq.plugin.profiling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "keeps_profiler", True)
        if profiles and Path("broken").exists():
            patch.setattr(torch.autograd.profiler, "profile", broken)
        yield


def broken(*args, **kwargs):
    raise RuntimeError("CUPTI is not to be had")
"""
TEST = """
    import pytest
    from conftest import say

    @pytest.mark.vq(memory_tolerance=100)  # resident memory of a net this small moves by its own size
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
        say("returned")
"""
INT8 = ("--vq-precisions=int8",)
BURDEN_MS = "10"


@pytest.fixture
def keeping(steady: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The steady project on a device that keeps the profiler."""
    monkeypatch.setenv("VQ_PROVOKE_SLOWDOWN", "")  # what a run hands on to its children is taken back
    monkeypatch.setenv("VQ_PROVOKE_ALLOCATION", "")
    conftest = steady.path / "conftest.py"
    conftest.write_text(conftest.read_text() + UNPROFILED + KEEPING)
    steady.makepyfile(test_my_bench=TEST)
    return steady


@pytest.fixture
def said(keeping: pytest.Pytester) -> Callable[[], list[str]]:
    """What processes said since this was last asked."""
    return partial(take_said, keeping.path)


def test_what_is_recorded_is_profiled_once_and_after_the_last_pair(cold_start, keeping, said) -> None:
    both = ("--vq-precisions=fp16,int8", "--vq-save")
    assert keeping.runpytest_inprocess(*both).ret == 0
    assert said() == ["measures", "returned", "returned", "profiles"]
    assert ["aten::linear" in entry["operators"] for entry in stored_entries(keeping.path)] == [True, True]
    assert keeping.runpytest_inprocess(*both).ret == 0
    assert said() == ["measures", "returned", "returned"]
    assert [len(entry["processes"]) for entry in stored_entries(keeping.path)] == [2, 2]


def test_a_failure_is_explained_by_a_process_that_is_altered_like_this_one(keeping, said) -> None:
    assert keeping.runpytest_inprocess(*INT8, "--vq-save").ret == 0
    said()
    (keeping.path / "burden_ms").write_text(BURDEN_MS)
    provoked = ("-p", "pytest_vq.plugin.provoke", "--provoke-allocation=int8=64")
    slower = keeping.runpytest_inprocess(*INT8, *provoked)
    assert slower.ret == 1
    slower.stdout.fnmatch_lines(["what changed inside, one profiled call*", "*all operators together: *"])
    assert said() == ["measures", "measures", "returned", "measures", "returned", "profiles"]
    tables = json.loads((keeping.path / "vq-results" / "explain" / "my-net-int8.json").read_text())
    assert "aten::linear" in tables["now"].keys() & tables["before"].keys()
    assert max(operator["self_bytes"] for operator in tables["now"].values()) >= 64 * 2**20


def test_what_cannot_be_profiled_is_recorded_and_fails_all_the_same(keeping, said, rows) -> None:
    (keeping.path / "broken").touch()
    saving = keeping.runpytest_inprocess(*INT8, "--vq-save")
    assert saving.ret == 0
    why = "a process that only profiles ended with exit code 1: RuntimeError: CUPTI is not to be had"
    saving.stdout.fnmatch_lines([f"WARNING: recorded without operators*: my-net-int8; {why}", "recorded 1 lines*"])
    assert "operators" not in stored_entries(keeping.path)[0]
    (keeping.path / "burden_ms").write_text(BURDEN_MS)
    slower = keeping.runpytest_inprocess(*INT8)
    assert slower.ret == 1
    slower.stdout.fnmatch_lines([f"*this cannot be told: {why}"])
    assert rows()[0]["verdict"] == "FAIL"
    assert "3 fresh" in rows()[0]["reason"]


def test_with_workers_the_process_that_reports_has_it_profiled(keeping, said) -> None:
    result = keeping.runpytest_inprocess(*INT8, "--vq-save", "-n", "1")
    assert result.ret == 0
    assert said() == ["measures", "returned", "profiles"]
    assert "aten::linear" in stored_entries(keeping.path)[0]["operators"]
