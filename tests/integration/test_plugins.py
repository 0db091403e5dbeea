"""Other plugins beside this one: nothing is lost, nothing is double, and none of them changes a figure."""

from __future__ import annotations

import json
from statistics import median
from textwrap import dedent

import pytest

PLAIN = """
    def test_plain():
        pass
"""

# Where the pair's own samples are kept for a comparison with what pytest-benchmark has.
KEEPING = """
    import json
    from pathlib import Path

    from pytest_vq.plugin.session import OUTCOME

    def test_precision(vq_case, vq_bench, request):
        vq_bench(vq_case)
        samples_ms = request.node.stash[OUTCOME].samples_ms
        Path(f"samples-{vq_case.id}.json").write_text(json.dumps(samples_ms))
"""


def samples_s(project: pytest.Pytester, case: str) -> list[float]:
    return [ms / 1e3 for ms in json.loads((project.path / f"samples-{case}.json").read_text())]


def benchmarks(project: pytest.Pytester, name: str) -> dict[str, dict[str, object]]:
    document = json.loads((project.path / name).read_text())
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} <= document.keys()
    return {benchmark["param"]: benchmark for benchmark in document["benchmarks"]}


class TestBenchmark:
    def test_its_json_holds_exactly_our_samples(self, project, rows) -> None:
        project.makepyfile(test_my_bench=KEEPING)
        result = project.runpytest_inprocess("--vq-precisions=fp32,fp16", "--benchmark-json=out.json")
        assert result.ret == 0
        result.stdout.fnmatch_lines(["*benchmark 'my-net': 2 tests*"])
        stored = benchmarks(project, "out.json")
        assert list(stored) == ["my-net-fp32", "my-net-fp16"]
        for row, (case, benchmark) in zip(rows(), stored.items(), strict=True):
            expected = samples_s(project, case)
            assert len(expected) == int(row["samples"])
            assert benchmark["stats"]["data"] == expected  # seconds, and to the last digit
            assert benchmark["stats"]["median"] == pytest.approx(float(row["latency_ms"]) / 1e3, rel=1e-12)
            assert benchmark["stats"]["iterations"] == 1
            assert benchmark["group"] == "my-net"
            assert benchmark["extra_info"]["precision"] == row["precision"]
            assert benchmark["extra_info"]["peak_memory_bytes"] == int(row["peak_memory_bytes"])
            assert benchmark["extra_info"]["verdict"] == row["verdict"] == "NO_BASELINE"

    def test_its_table_is_narrow(self, project) -> None:
        result = project.runpytest_inprocess("--vq-precisions=fp32")
        (head,) = [line for line in result.outlines if line.startswith("Name (time")]
        assert head.split(")", 1)[1].split() == ["Min", "Median", "IQR", "Rounds"]

    def test_its_columns_are_those_that_were_asked_for(self, project) -> None:
        result = project.runpytest_inprocess("--vq-precisions=fp32", "--benchmark-columns=mean,ops")
        (head,) = [line for line in result.outlines if line.startswith("Name (time")]
        assert head.split(")", 1)[1].split()[0] == "Mean"

    def test_its_table_of_other_tests_is_as_wide_as_ever(self, project) -> None:
        project.makepyfile(test_my_bench="def test_other(benchmark):\n    benchmark(sum, [1, 2])\n")
        result = project.runpytest_inprocess()
        (head,) = [line for line in result.outlines if line.startswith("Name (time")]
        assert "StdDev" in head

    def test_a_mark_of_ones_own_keeps_its_group_and_our_samples(self, project) -> None:
        project.makepyfile(
            test_my_bench="import pytest\n"
            + dedent(KEEPING).replace("def test", "@pytest.mark.benchmark(group='mine')\ndef test")
        )
        assert project.runpytest_inprocess("--vq-precisions=fp32", "--benchmark-json=out.json").ret == 0
        stored = benchmarks(project, "out.json")["my-net-fp32"]
        assert stored["group"] == "mine"
        assert stored["stats"]["data"] == samples_s(project, "my-net-fp32")

    def test_it_selects_ours_as_benchmarks(self, project, rows) -> None:
        project.makepyfile(test_plain=PLAIN)
        only = project.runpytest_inprocess("--vq-precisions=fp32", "--benchmark-only")
        only.assert_outcomes(passed=1, skipped=1)
        assert len(rows()) == 1
        skip = project.runpytest_inprocess("--vq-precisions=fp32", "--benchmark-skip")
        skip.assert_outcomes(passed=1, skipped=1)
        assert skip.ret == 0
        assert rows() == []

    def test_disabled_it_loses_its_table_and_nothing_else(self, project, rows) -> None:
        result = project.runpytest_inprocess("--vq-precisions=fp32", "--benchmark-disable")
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*benchmark 'my-net'*")
        assert int(rows()[0]["samples"]) >= 1

    def test_without_it_the_run_is_refused_and_other_tests_are_not(self, project) -> None:
        project.makepyfile(test_plain=PLAIN)
        result = project.runpytest_inprocess("-p", "no:benchmark")
        assert result.ret == 4
        result.stderr.fnmatch_lines(
            ["ERROR: *vq_bench puts its samples into pytest-benchmark's table, and -p no:bench*"]
        )
        assert not (project.path / "vq-results").exists()
        project.runpytest_inprocess("-p", "no:benchmark", "test_plain.py").assert_outcomes(passed=1)


class TestXdist:
    def test_rows_of_all_workers_reach_the_controllers_files(self, project, rows, study) -> None:
        project.makepyfile(test_my_bench=KEEPING, test_plain=PLAIN)
        models = dedent(
            """
            @pytest_vq.register_model("other-net", input_shape=(3, 16, 16))
            def build_other():
                return nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.GELU(), nn.Linear(64, 10))
            """
        )
        # In a conftest that only collection finds: the controller, which collects nothing, never sees this model.
        deep = project.mkdir("deep")
        (deep / "conftest.py").write_text("from torch import nn\n\nimport pytest_vq\n\n" + models)
        (deep / "test_deep.py").write_text("def test_precision(vq_case, vq_bench):\n    vq_bench(vq_case)\n")
        result = project.runpytest_inprocess(
            "-n2",
            "--vq-precisions=fp32,fp16",
            "--vq-models=other-net",
            "--junitxml=junit.xml",
            "--vq-save",
            "deep",
            ".",
        )
        assert result.ret == 0, result.outlines
        measured = {f"{row['model']}-{row['precision']}" for row in rows()}
        assert measured == {"other-net-fp32", "other-net-fp16"}
        assert study()["complete"] is True
        assert len(study()["records"]) == len(rows())
        result.stdout.fnmatch_lines(["other-net *fp32*", "*fp16*", "recorded * lines in 1 files*"])
        # Of the two tests of each pair the later one, which keeps its samples.
        stored = benchmarks(project, "vq-results/benchmark.json")
        assert stored.keys() == measured
        for case, benchmark in stored.items():
            assert benchmark["stats"]["data"] == samples_s(project, case)
            assert benchmark["stats"]["median"] == pytest.approx(median(samples_s(project, case)))
            assert benchmark["group"] == "other-net"

    def test_wrong_usage_is_still_wrong_usage(self, project) -> None:
        # No torch: the workers are up in a second.
        (project.path / "conftest.py").unlink()
        unknown = project.runpytest_inprocess("-n2", "--vq-models=vit-digit")
        assert unknown.ret == 4
        unknown.stderr.fnmatch_lines(["ERROR: no model matches 'vit-digit'; the nearest are vit-digits*"])
        project.makepyfile(
            test_my_bench="""
            import pytest

            @pytest.mark.vq(latency=0.1)
            def test_precision(vq_case, vq_bench):
                vq_bench(vq_case)
            """
        )
        marker = project.runpytest_inprocess("-n2", "--vq-models=vit-digits")
        assert marker.ret == 4
        marker.stderr.fnmatch_lines(["ERROR: *mark.vq has unknown keyword 'latency'*"])
        assert not (project.path / "vq-results").exists()

    def test_a_worker_that_dies_takes_no_other_pair_with_it(self, project, rows, study) -> None:
        project.makepyfile(
            test_my_bench="""
            import os

            def test_precision(vq_case, vq_bench):
                if vq_case.precision.name == "fp16":
                    os._exit(1)
                vq_bench(vq_case)
            """
        )
        result = project.runpytest_inprocess("-n1", "--vq-precisions=fp32,fp16")
        assert result.ret == 1
        assert [row["precision"] for row in rows()] == ["fp32"]
        (failure,) = study()["failures"]
        assert (failure["id"], failure["error"]) == ("my-net-fp16", "WorkerCrashed")
        result.stdout.fnmatch_lines(["ERROR my-net-fp16: WorkerCrashed: *"])


def test_randomly_shuffles_tests_and_leaves_pairs_in_catalog_order(project, rows) -> None:
    project.makeini("[pytest]\nvq_budget = 0.1\n")
    conftest = project.path / "conftest.py"
    build = conftest.read_text().partition("@pytest_vq")[2]
    conftest.write_text(
        conftest.read_text() + "\n\n@pytest_vq" + build.replace("my-net", "b-net").replace("build", "b")
    )
    project.makepyfile(test_plain="import pytest\n\n@pytest.mark.parametrize('i', range(20))\ndef test(i):\n    pass\n")
    result = project.runpytest_inprocess("--vq-precisions=fp32,fp16,int8", "--randomly-seed=1", "-v")
    assert result.ret == 0
    expected = [f"{model}-{precision}" for model in ("my-net", "b-net") for precision in ("fp32", "fp16", "int8")]
    assert [f"{row['model']}-{row['precision']}" for row in rows()] == expected
    numbers = [int(line.partition("test[")[2].partition("]")[0]) for line in result.outlines if "::test[" in line]
    assert sorted(numbers) == list(range(20)) != numbers  # the others were shuffled


def test_a_run_of_ones_own_shows_no_warnings_of_torchs(project) -> None:
    result = project.runpytest_subprocess("--vq-precisions=fp32,int8", "--vq-budget=0.1")
    result.assert_outcomes(passed=2, warnings=0)


def test_under_coverage(project, rows) -> None:
    result = project.runpytest_inprocess("--vq-precisions=fp32", "--cov=.", "--cov-report=term")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*coverage: platform*", "conftest.py *", "TOTAL *"])
    assert len(rows()) == 1


def test_a_hanging_forward_is_failed_by_timeout_and_the_next_pair_is_measured(project, rows, study) -> None:
    conftest = project.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + dedent(
            """

            @pytest_vq.register_model("next-net", input_shape=(3, 16, 16), head="head")
            def build_next(kind=Net):
                return kind()


            class Hanging(Net):
                def forward(self, images):
                    time.sleep(600)


            Net = Hanging  # what my-net is built of


            def pytest_collection_modifyitems(items):
                import pytest

                for item in items:
                    if "my-net" in item.name:
                        item.add_marker(pytest.mark.timeout(2, method="signal"))
            """
        )
    )
    result = project.runpytest_inprocess("--vq-precisions=fp32")
    result.assert_outcomes(failed=1, passed=1)
    assert [row["model"] for row in rows()] == ["next-net"]
    (failure,) = study()["failures"]
    assert failure["id"] == "my-net-fp32"
    assert "Timeout" in failure["message"]
    assert study()["complete"] is True
    result.stdout.fnmatch_lines(["?2/2? next-net-fp32 *"])
    result.stdout.fnmatch_lines(["ERROR my-net-fp32: *Timeout*", "FAILED *my-net-fp32*Timeout*"])
