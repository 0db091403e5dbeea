"""A run as a user sees it: ids, rows, verdicts, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest

from pytest_vq.device.environment import slug
from pytest_vq.store.samples import read_samples

CONTRACT_COLUMNS = """
    model category architecture parameters precision method device batch weights latency_ms latency_low_ms
    latency_high_ms latency_p95_ms latency_p99_ms latency_cv device_time_ms throughput_ips samples stop_reason
    launch_bound speedup speedup_low speedup_high resting_memory_bytes peak_memory_bytes model_size_bytes
    memory_reduction quantized_layers eligible_layers cosine sqnr_db top1_agreement accuracy verdict reason
    execution reference_latency_ms note
"""


# Resident memory of a net this small moves by its own size: what is tested here is time.
ANY_MEMORY = """
    import pytest

    @pytest.mark.vq(memory_tolerance=100)
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""


def test_the_shipped_model_at_every_precision(project, rows) -> None:
    result = project.runpytest_inprocess("--vq-models=vit-digits", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"*test_precision?vit-digits-{p}? PASSED*" for p in ("fp32", "fp16", "int8", "int4")])
    table = {row["precision"]: row for row in rows()}
    assert list(table) == ["fp32", "fp16", "int8", "int4"]
    assert set(table["fp32"]) >= set(CONTRACT_COLUMNS.split())
    for precision, row in table.items():
        assert float(row["latency_ms"]) > 0
        assert float(row["accuracy"]) > 0.9
        assert row["device_time_ms"] == row["launch_bound"] == ""
        assert row["verdict"] == "NO_BASELINE"
        assert (row["sqnr_db"] == "") == (precision == "fp32")
    sizes = [int(table[p]["model_size_bytes"]) for p in ("fp32", "fp16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    assert float(table["fp32"]["speedup"]) == 1
    assert float(table["fp16"]["sqnr_db"]) > float(table["int8"]["sqnr_db"]) > float(table["int4"]["sqnr_db"])
    assert table["int4"]["quantized_layers"] == table["int4"]["eligible_layers"] != "0"
    study = json.loads((project.path / "vq-results" / "study.json").read_text())
    assert study["complete"] is True
    assert study["schema_version"] == 2
    assert [r["labelled_images"] for r in study["records"]] == [1000] * 4


def test_a_model_of_ones_own_joins_the_matrix(project, rows) -> None:
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=4)
    assert [row["model"] for row in rows()] == ["my-net"] * 4
    assert {row["category"] for row in rows()} == {"local"}
    assert {row["eligible_layers"] for row in rows()} == {"2"}  # the head is not one of them
    result.stdout.fnmatch_lines(["*= pytest-vq =*", "model *", "my-net *fp32*", "*int4*NO_BASELINE", "4 NO_BASELINE"])


def test_batches_and_precisions_are_selected_and_named(project) -> None:
    result = project.runpytest_inprocess("--vq-batch=1,8", "--vq-precisions=fp32,int8", "--collect-only", "-q")
    names = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert names == [f"test_precision[my-net-{end}]" for end in ("fp32", "int8", "fp32-b8", "int8-b8")]
    assert not (project.path / "vq-results").exists()


INT8 = ("--vq-precisions=int8",)


@pytest.fixture
def recorded(steady: pytest.Pytester) -> pytest.Pytester:
    """The steady project with a baseline of INT8."""
    steady.makepyfile(test_my_bench=ANY_MEMORY)
    assert steady.runpytest_inprocess(*INT8, "--vq-save").ret == 0
    return steady


def test_an_unchanged_run_passes(recorded, rows) -> None:
    assert recorded.runpytest_inprocess(*INT8).ret == 0
    assert (rows()[0]["verdict"], rows()[0]["reason"]) == ("PASS", "")


def test_a_slowdown_is_a_failed_test_with_a_reason(recorded, rows) -> None:
    (recorded.path / "burden_ms").write_text("10")
    slower = recorded.runpytest_inprocess(*INT8, "--junitxml=junit.xml")
    assert slower.ret == 1
    slower.assert_outcomes(failed=1)
    slower.stdout.fnmatch_lines(["FAILED test_my_bench.py::test_precision?my-net-int8? - Failed: FAIL: *"])
    (row,) = rows()
    assert row["verdict"] == "FAIL"
    assert "latency (10 % quantile) 30.0 ms → 40.0 ms (+33.3 %" in row["reason"]
    assert "tolerance 10 %, 1 baseline process, 3 fresh" in row["reason"]
    failure = ElementTree.parse(recorded.path / "junit.xml").find(".//testcase/failure")
    assert failure is not None
    assert "FAIL" in failure.get("message", "")

    # What changed inside is named.
    slower.stdout.fnmatch_lines(["what changed inside, one profiled call*", "*all operators together: *"])
    tables = json.loads((recorded.path / "vq-results" / "explain" / "my-net-int8.json").read_text())
    assert "aten::linear" in tables["now"].keys() & tables["before"].keys()

    # Every sample is kept: of this process, and of the two that confirmed it.
    lines = read_samples(recorded.path / "vq-results")
    assert [set(line.samples.subject.times_ms) for line in lines] == [{40.0}] * 3
    assert len(lines[0].samples.subject.times_ms) == int(row["samples"])
    assert lines[0].samples.reference is not None
    assert set(lines[0].samples.reference.times_ms) == {20.0}


def test_a_run_that_decides_nothing_about_time_says_so_loudly(recorded, rows) -> None:
    (recorded.path / "neighbour").touch()
    result = recorded.runpytest_inprocess(*INT8)
    assert (result.ret, rows()[0]["verdict"]) == (0, "INCONCLUSIVE")
    result.stdout.fnmatch_lines(["WARNING: this run says nothing about speed: of 1 pair compared, the time of none *"])
    assert recorded.runpytest_inprocess(*INT8, "--vq-strict").ret == 1


def test_a_gate_that_only_reports_fails_no_test(recorded, rows) -> None:
    (recorded.path / "burden_ms").write_text("10")
    assert recorded.runpytest_inprocess(*INT8, "--vq-gate=report").ret == 0
    assert rows()[0]["verdict"] == "FAIL"


def test_a_gate_that_is_off_gives_no_verdict(recorded, rows) -> None:
    (recorded.path / "burden_ms").write_text("10")
    assert recorded.runpytest_inprocess(*INT8, "--vq-gate=off").ret == 0
    assert rows()[0]["verdict"] == ""


def test_a_run_that_failed_is_not_recorded(recorded) -> None:
    (stored,) = (recorded.path / "baselines").rglob("my-net.json")
    before = stored.read_bytes()
    (recorded.path / "burden_ms").write_text("10")
    saving = recorded.runpytest_inprocess(*INT8, "--vq-save")
    assert saving.ret == 1
    saving.stdout.fnmatch_lines(["nothing was recorded into the baselines*"])
    assert stored.read_bytes() == before


def test_a_quantizer_that_became_worse_fails_though_it_is_above_its_bound(recorded, rows) -> None:
    assert float(rows()[0]["sqnr_db"]) > 30
    conftest = recorded.path / "conftest.py"
    worse = """

    class Worse(Net):
        def forward(self, images):
            answer = super().forward(images)
            if type(self.body[1]) is nn.Linear:
                return answer
            noise = torch.randn(answer.shape, generator=torch.Generator().manual_seed(0)).to(answer.dtype)
            return answer + noise * answer.std() * 10 ** (-30 / 20)  # 30 dB of noise, beside some 38 of the quantizer's


    Net = Worse
    """
    conftest.write_text(conftest.read_text() + dedent(worse))
    assert recorded.runpytest_inprocess(*INT8).ret == 1
    assert rows()[0]["verdict"] == "FAIL"
    assert "SQNR against FP32 " in rows()[0]["reason"]
    assert "tolerance 1 dB" in rows()[0]["reason"]


def test_strict_fails_what_has_no_baseline(project) -> None:
    assert project.runpytest_inprocess("--vq-precisions=fp32").ret == 0
    result = project.runpytest_inprocess("--vq-precisions=fp32", "--vq-strict")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED *NO_BASELINE*"])


def test_hollow_green_is_red(project) -> None:
    assert project.runpytest_inprocess("--vq-precisions=fp32", "--vq-save").ret == 0
    result = project.runpytest_inprocess("--vq-precisions=fp16")
    assert result.ret == 1
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ERROR: *has baselines, but of 1 pair measured none could be compared*"])
    assert project.runpytest_inprocess("--vq-precisions=fp16", "--vq-gate=report").ret == 0


def give_baselines_to(name: str, project: pytest.Pytester) -> tuple[Path, Path]:
    """Let the baselines of this device be those of another, ``name``; both directories."""
    (own,) = (project.path / "baselines").glob("*/")
    other = own.rename(own.with_name(name))
    for path in other.iterdir():
        path.write_text(path.read_text().replace(f'"device":"{own.name}"', f'"device":"{name}"'))
    return own, other


def test_baselines_from_before_a_cpus_instruction_set_was_named_are_hollow(project, rows) -> None:
    assert project.runpytest_inprocess("--vq-precisions=fp32", "--vq-save").ret == 0
    directory, former = give_baselines_to(f"cpu-{slug(rows()[0]['device'])}", project)
    result = project.runpytest_inprocess("--vq-precisions=fp32")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"ERROR: {former} is from before*Record this one anew with --vq-save, as {directory.name}*"]
    )


def test_a_machine_of_another_kind_has_no_baseline_and_is_told_the_nearest(project, rows) -> None:
    assert project.runpytest_inprocess("--vq-precisions=fp32", "--vq-save").ret == 0
    (directory,) = (project.path / "baselines").glob("*/")
    _, other = give_baselines_to(f"{directory.name}-other", project)
    assert project.runpytest_inprocess("--vq-precisions=fp32").ret == 0
    assert rows()[0]["verdict"] == "NO_BASELINE"
    assert f"the nearest device that has baselines is {other.name}, another machine" in rows()[0]["reason"]


def test_another_protocol_is_incomparable(project, rows) -> None:
    only = ("--vq-precisions=fp32",)
    assert project.runpytest_inprocess(*only, "--vq-save").ret == 0
    result = project.runpytest_inprocess(*only, "--vq-threads=2")
    assert result.ret == 1  # nothing could be compared
    assert rows()[0]["verdict"] == "INCOMPARABLE"
    assert "threads" in rows()[0]["reason"]


def test_fidelity_below_the_marker_fails_without_a_baseline(project, rows) -> None:
    project.makepyfile(
        test_my_bench="""
        import pytest

        @pytest.mark.vq(min_sqnr_db=90)
        def test_precision(vq_case, vq_bench):
            vq_bench(vq_case)

        @pytest.mark.xfail(reason="known to be off", strict=True)
        @pytest.mark.vq(min_sqnr_db=90)
        def test_known(vq_case, vq_bench):
            vq_bench(vq_case)
        """
    )
    result = project.runpytest_inprocess("--vq-precisions=fp16")
    assert result.ret == 1
    result.assert_outcomes(failed=1, xfailed=1)
    assert [row["verdict"] for row in rows()] == ["FAIL", "FAIL"]
    assert "90" in rows()[0]["reason"]


def test_repeats_in_fresh_processes_are_recorded(cold_start, project) -> None:
    result = project.runpytest_inprocess("--vq-precisions=fp32", "--vq-runs=2", "--vq-save")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["recorded 2 lines in 1 files*"])
    entry = json.loads(next((project.path / "baselines").rglob("my-net.json")).read_text())["entries"][0]
    assert len(entry["processes"]) == 2
    assert (project.path / "vq-results" / "run-2" / "pytest.log").exists()


def test_any_callable_can_be_timed(project) -> None:
    project.makepyfile(
        test_my_op="""
        import time

        def test_my_op(gpu_timer):
            timing = gpu_timer(time.sleep, 0.002)
            assert 2 <= timing.latency_ms < 10
            assert len(timing.samples_ms) >= 6
            assert timing.latency_low_ms <= timing.latency_ms <= timing.latency_high_ms
            assert timing.peak_memory_bytes is not None
            assert timing.stop_reason in {"interval", "budget"}
        """
    )
    project.runpytest_inprocess("test_my_op.py").assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["ini", "command line"])
def test_the_command_line_wins_over_the_ini(project, rows, mode: str) -> None:
    project.makeini("[pytest]\naddopts = -p no:randomly\nvq_budget = 0.3\nvq_precisions = fp16\n")
    given = ["--vq-precisions=int8"] if mode == "command line" else []
    assert project.runpytest_inprocess(*given).ret == 0
    assert [row["precision"] for row in rows()] == ["int8" if given else "fp16"]
