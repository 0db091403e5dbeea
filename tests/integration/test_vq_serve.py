"""``vq_serve`` as a user meets it: a pair under real load, in processes of its own, and whatever a test does wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
from warm_start import PYTEST

from pytest_vq.cli.main import main
from pytest_vq.device.telemetry import HostTelemetry
from pytest_vq.plugin import provoke
from pytest_vq.processes.command import clean_environment
from pytest_vq.serve import load, searching, serving_plans, serving_runs

ROOT = Path(__file__).parents[2]

# Where load is put on it nobody else's work may decide: whether the machine was busy is a question for other tests.
UNDISTURBED = """
    from pytest_vq.device.telemetry import HostTelemetry

    HostTelemetry.disturbance = lambda self, before, after: None
"""
# Ten seconds are a bound that is kept whatever else this machine does, and a rate that it carries easily.
KEPT = "latency_bound_ms=10_000, target_qps=2000"
# While it is looked over it is quick, which spares the time of that.
SLOW_TO_ANSWER = """
    import threading

    def spend(quantized):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.04)
"""
TEST = """
    import pytest

    @pytest.mark.vq_serving({terms})
    def test_it(vq_case, vq_serve):
        vq_serve(vq_case{arguments})
"""
NODE = "test_traffic.py::test_it[my-net-fp32]"
FP32 = "--vq-precisions=fp32"


@pytest.fixture
def serving(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The project with no test yet, on a machine that nothing disturbs; what is sent at once takes no three seconds."""
    (project.path / "test_my_bench.py").unlink()
    add_to_conftest(project, UNDISTURBED)
    monkeypatch.setattr(HostTelemetry, "disturbance", HostTelemetry.disturbance)  # the project's conftest alters it
    monkeypatch.setattr(serving_plans, "_OFFLINE_S", 0.0)  # twenty batches, that is
    return project


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process is judged, not five: for a test of something else."""
    monkeypatch.setattr(serving_runs, "PROCESSES", 1)


def add_to_conftest(project: pytest.Pytester, text: str) -> None:
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "\n\n" + dedent(text))


def with_test(project: pytest.Pytester, terms: str, arguments: str = "") -> None:
    """Let there be one test, of a pair under ``terms``."""
    project.makepyfile(test_traffic=TEST.format(terms=terms, arguments=arguments))


def evidence(study: Callable[[], dict]) -> dict:
    """What ``study.json`` has of the only row's load."""
    (row,) = study()["records"]
    return row["load"]


class TestEverything:
    def test_a_row_has_its_figures_and_evidence_and_is_kept(self, serving, rows, study) -> None:
        serving.makepyfile(
            test_traffic=f"""
            import pytest

            @pytest.mark.vq_serving({KEPT})
            def test_it(vq_case, vq_serve):
                record = vq_serve(vq_case, scenario="Server", fallback=True)
                assert (record.scenario, record.target_qps, record.load_processes) == ("Server", 2000, 5)
                assert (record.violation_rate, record.late_requests, record.unanswered_requests) == (0, 0, 0)
                assert 0 < record.latency_ms < record.p995_ms < 10_000
                assert record.max_qps_low is None  # nothing was searched
            """
        )
        words = ("test_traffic.py", "--vq-precisions=int8", "--vq-budget=1.5", "--vq-resume")
        result = serving.runpytest_inprocess(*words, "--junitxml=junit.xml", "--vq-save")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["*my-net-int8-serving*PASS", "served (Server, batches up to 8, *", "recorded 5 *"])
        (row,) = rows()
        assert (row["precision"], row["batch"], row["verdict"], row["samples"]) == ("int8", "1", "PASS", "3000")
        assert row["method"].startswith("bitsandbytes")
        assert float(row["violation_high"]) < 0.005
        assert 0 < float(row["utilisation"]) < 0.8
        assert 1 <= float(row["mean_batch_size"]) <= 8
        assert float(row["sqnr_db"]) > 20  # its answers were judged before the load
        assert 0 < float(row["fallback_p995_ms"]) < 10_000
        assert int(row["fallback_memory_bytes"]) > 4 * 256 * 3 * 16 * 16  # FP32's weights, and their copies
        assert (row["speedup"], row["peak_memory_bytes"], row["max_qps_high"]) == ("", "", "")
        told = evidence(study)
        assert told["outcomes"] == {"ok": 3000}
        assert [timed["batch"] for timed in told["batch_times"]] == [1, 2, 4, 8]
        assert sum(int(size) * count for size, count in told["batch_sizes"].items()) == 3000
        kept = (serving.path / "vq-results" / "samples.jsonl").read_text().splitlines()
        assert [len(json.loads(line)["samples"]["subject"]["blocks_ms"][0]) for line in kept] == [600] * 5
        properties = ElementTree.parse(serving.path / "junit.xml").iter("property")
        assert {"vq.p995_ms", "vq.target_qps", "vq.violation_rate"} <= {entry.get("name") for entry in properties}

        again = serving.runpytest_inprocess(*words)
        again.assert_outcomes(passed=1)
        again.stdout.fnmatch_lines(["resumed the run of *: 1 pair under load kept, none measured"])
        assert rows() == [row]

    @pytest.mark.usefixtures("one_process")
    def test_a_missed_bound_fails_and_says_so_everywhere(self, serving, study, monkeypatch) -> None:
        monkeypatch.setattr(load, "find_spec", lambda name: None)  # as where LoadGen has no wheel
        monkeypatch.setattr(serving_runs, "_ALONE", 5)
        add_to_conftest(serving, SLOW_TO_ANSWER)
        # Half of the requests may be late, and half of those to be sent: a busy machine sends that many in time.
        with_test(serving, "latency_bound_ms=30, target_qps=200, percentile=50")
        result = serving.runpytest_inprocess(NODE, FP32, "--vq-budget=2.5", "--junitxml=junit.xml")
        result.assert_outcomes(failed=1)
        reason = "violation rate at 200 queries/s: 100 of 100 requests late (100 %"
        result.stdout.fnmatch_lines(
            [f"FAIL: {reason}*", f"FAIL my-net-fp32-serving: {reason}*", "FAILED test_traffic.py::*"]
        )
        failure = ElementTree.parse(serving.path / "junit.xml").find(".//failure")
        assert failure is not None
        assert reason in str(failure.get("message"))
        (row,) = study()["records"]
        assert (row["verdict"], row["late_requests"]) == ("FAIL", 100)
        assert reason in row["reason"]
        assert row["load"]["terms"]["load_engine"] == "builtin"


class TestSelection:
    @pytest.fixture
    def two(self, serving: pytest.Pytester) -> pytest.Pytester:
        """The project with a test of a pair under load, and another test."""
        with_test(serving, KEPT)
        serving.makepyfile(test_other="def test_other(): pass")
        return serving

    @pytest.mark.parametrize("words", [(), (".",)], ids=" ".join)
    def test_what_is_not_named_is_left_out(self, two, words) -> None:
        result = two.runpytest_inprocess(FP32, *words)
        result.assert_outcomes(passed=1, deselected=1)
        result.stdout.fnmatch_lines(["pytest-vq: 1 serving benchmark left out: --vq-serving, *"])

    @pytest.mark.parametrize("words", [("--vq-serving",), ("test_traffic.py", "."), (NODE,)], ids=" ".join)
    def test_what_is_asked_for_is_selected(self, two, words) -> None:
        result = two.runpytest_inprocess(FP32, "--collect-only", "-q", *words)
        result.stdout.fnmatch_lines([NODE.replace("[", "[[]")])

    @pytest.mark.parametrize(
        ("words", "modules"),
        [
            (("bench",), {"bench/test_precision.py"}),
            (("bench", "--vq-serving"), {"bench/test_precision.py", "bench/test_serving.py"}),
            (("bench/test_serving.py",), {"bench/test_serving.py"}),
        ],
        ids=["unnamed", "by the option", "by its file"],
    )
    def test_our_own_suite_serves_where_it_is_asked_to(self, words, modules, warm_start, tmp_path) -> None:
        told = tmp_path / "told"
        with told.open("wb") as file:
            command = [*PYTEST, *words, "--collect-only", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
            assert warm_start.start(command, ROOT, clean_environment(), [file.fileno()] * 2) == 0
        assert {line.partition("::")[0] for line in told.read_text().splitlines() if "::" in line} == modules

    @pytest.mark.usefixtures("cold_start")
    def test_workers_have_it_measured_by_processes_as_the_package_starts_them(self, serving, rows) -> None:
        with_test(serving, "latency_bound_ms=1e-6")  # alone it is late: no rate is tried
        result = serving.runpytest_inprocess("test_traffic.py", FP32, "-n2")
        result.assert_outcomes(passed=1)
        (row,) = rows()
        assert (row["verdict"], row["max_qps_low"], row["load_processes"]) == ("NO_BASELINE", "0.0", "0")
        assert float(row["offline_qps"]) > 0

    def test_what_is_registered_or_made_worse_here_is_so_there(self, serving, rows, monkeypatch) -> None:
        for name in provoke._PROVOCATIONS:
            monkeypatch.setenv(provoke._variable(name), "")  # what a run hands on to its children is taken back
        monkeypatch.setattr(serving_runs, "_ALONE", 5)
        add_to_conftest(
            serving,
            """
            @pytest_vq.register_precision("ours", opaque=True, min_sqnr_db=20)
            def program(model, inputs, device):
                return pytest_vq.Opaque(model.eval(), model_size_bytes=1, fingerprint="ours")
            """,
        )
        with_test(serving, "latency_bound_ms=1e-6, max_batch_size=2")
        words = ("-p", "pytest_vq.plugin.provoke", "--provoke-slowdown=ours=200", "--vq-precisions=ours")
        serving.runpytest_inprocess("test_traffic.py", *words).assert_outcomes(passed=1)
        (row,) = rows()
        assert (row["model"], row["precision"]) == ("my-net", "ours")
        assert float(row["latency_ms"]) > 5  # of a forward that takes a tenth of a millisecond


class TestRate:
    @pytest.mark.usefixtures("one_process")
    def test_it_is_searched_stored_tested_and_searched_again(self, serving, rows, study, monkeypatch, capsys) -> None:
        monkeypatch.chdir(serving.path)
        monkeypatch.setattr(searching, "_CLOSE", 2.0)  # one rate is tried
        monkeypatch.setattr(serving_runs, "_PROBE_S", 0.0)
        monkeypatch.setattr(serving_runs, "_PROBE_LEAST", 100)
        add_to_conftest(serving, "def spend(quantized):\n    time.sleep(0.001)\n")
        with_test(serving, "latency_bound_ms=10_000, max_batch_size=1")
        words = ("test_traffic.py", FP32, "--vq-budget=4", "--vq-gate=report")

        first = serving.runpytest_inprocess(*words, "--vq-save")
        first.stdout.fnmatch_lines(["*NO_BASELINE", "recorded 1 lines in 1 files *"])
        (searched,) = rows()
        assert 0 < float(searched["target_qps"]) < float(searched["max_qps_low"]) < float(searched["max_qps_high"])
        assert len(evidence(study)["probes"]) == 1

        assert serving.runpytest_inprocess(*words).ret == 0
        (tested,) = rows()
        assert (tested["target_qps"], tested["max_qps_low"]) == (searched["target_qps"], "")
        assert evidence(study)["probes"] == {}

        assert serving.runpytest_inprocess(*words, "--vq-search").ret == 0
        (again,) = rows()
        assert float(again["max_qps_low"]) > 0
        assert len(evidence(study)["probes"]) == 1
        assert again["verdict"] == "INCOMPARABLE"

        capsys.readouterr()
        assert main(["baselines", "list"]) == 0
        assert "served (Server, batches up to 1, 99.5 % within 10000 ms)" in capsys.readouterr().out
        assert main(["baselines", "show", "my-net"]) == 0
        assert capsys.readouterr().out.count("  CPU-") == 2  # the process, and the anchor's


@pytest.mark.usefixtures("one_process")
def test_scenarios_without_a_rate(serving, study) -> None:
    serving.makepyfile(
        test_traffic="""
        import pytest

        pytestmark = pytest.mark.vq_serving(latency_bound_ms=10_000)

        def test_single(vq_case, vq_serve):
            vq_serve(vq_case, scenario="SingleStream")

        @pytest.mark.vq_serving(samples_per_query=4)
        def test_multi(vq_case, vq_serve):
            vq_serve(vq_case, scenario="MultiStream")

        def test_offline(vq_case, vq_serve):
            vq_serve(vq_case, scenario="Offline")
        """
    )
    result = serving.runpytest_inprocess("test_traffic.py", FP32, "--vq-budget=1")
    result.assert_outcomes(passed=3)
    single, multi, offline = study()["records"]
    assert [row["scenario"] for row in (single, multi, offline)] == ["SingleStream", "MultiStream", "Offline"]
    assert [row["target_qps"] for row in (single, multi, offline)] == [None] * 3
    assert single["load"]["outcomes"] == {"ok": single["samples"]}
    assert multi["load"]["outcomes"] == {"ok": 4 * multi["samples"]}
    assert single["violation_rate"] == multi["violation_rate"] == 0
    assert (offline["verdict"], offline["violation_rate"]) == ("NO_BASELINE", None)
    # All come at once, one after the other: the first to come may be executed before the rest is there.
    sizes = {int(size): number for size, number in offline["load"]["batch_sizes"].items()}
    assert sum(size * number for size, number in sizes.items()) == offline["samples"]
    assert max(sizes) == 8
    assert max(sizes, key=lambda size: size * sizes[size]) == 8
    assert offline["offline_qps"] > 0


class TestMisuse:
    @pytest.mark.parametrize(
        ("test", "told"),
        [
            (
                "@pytest.mark.vq_serving(latency_bound=10)\ndef test_it(vq_case, vq_serve): pass",
                "*test_it[[]my-net-fp32]: mark.vq_serving has unknown keyword 'latency_bound'; it takes *",
            ),
            (
                "@pytest.mark.vq_serving(percentile=100)\ndef test_it(vq_case, vq_serve): pass",
                "*test_it[[]my-net-fp32]: mark.vq_serving: percentile=100: it lies between 0 and 100",
            ),
            (
                "@pytest.mark.vq_serving(max_batch_size=2.5)\ndef test_it(vq_case, vq_serve): pass",
                "*test_it[[]my-net-fp32]: mark.vq_serving(max_batch_size=2.5) is not a whole number",
            ),
            (
                "@pytest.mark.vq_serving(target_qps=float('inf'))\ndef test_it(vq_case, vq_serve): pass",
                "*test_it[[]my-net-fp32]: mark.vq_serving(target_qps=inf) is not a finite number",
            ),
            (
                "def test_it(vq_case, vq_bench, vq_serve): pass",
                "*test_it[[]my-net-fp32]: it uses vq_bench and vq_serve: a test has one row and one verdict",
            ),
        ],
        ids=["an unknown keyword", "no percentile", "half a request", "no rate", "two rows"],
    )
    def test_what_cannot_be_is_refused_before_anything_runs(self, serving, test: str, told: str) -> None:
        serving.makepyfile(test_traffic=f"import pytest\n{test}")
        result = serving.runpytest_inprocess("test_traffic.py", FP32)
        assert result.ret == 4
        result.stderr.fnmatch_lines([told])

    def test_what_a_test_asks_wrongly_fails_it_alone(self, serving) -> None:
        serving.makepyfile(
            test_traffic="""
            from dataclasses import replace

            import pytest

            def test_scenario(vq_case, vq_serve):
                vq_serve(vq_case, scenario="Bulk")

            @pytest.mark.vq_serving(target_qps=5)
            def test_rate(vq_case, vq_serve):
                vq_serve(vq_case, scenario="Offline")

            def test_another(vq_case, vq_serve):
                vq_serve(replace(vq_case, batch=8))

            def test_twice(vq_case, vq_serve):
                with pytest.raises(pytest.fail.Exception):
                    vq_serve(vq_case, scenario="Bulk")
                vq_serve(vq_case)

            def test_late(request, vq_case):
                request.getfixturevalue("vq_serve")(vq_case)
            """
        )
        result = serving.runpytest_inprocess("test_traffic.py", FP32)
        result.assert_outcomes(failed=5)
        where = "*Error: test_traffic.py::test_{}[[]my-net-fp32]: {}*"
        told = [
            ("scenario", "there is no scenario 'Bulk', only SingleStream, MultiStream, Server, Offline"),
            ("rate", "target_qps=5: the scenario Server takes a rate above 0, others none"),
            ("another", "vq_serve serves its test's own pair: pass it the argument vq_case"),
            ("twice", "vq_serve was used twice"),
            ("late", "what is measured is counted before the first test runs"),
        ]
        result.stdout.fnmatch_lines([where.format(*pair) for pair in told])

    @pytest.mark.usefixtures("one_process")
    def test_a_model_that_does_not_answer_costs_its_own_row_alone(self, serving, rows, study) -> None:
        add_to_conftest(
            serving,
            """
            import threading


            class Odd(Net):
                asked = 0

                def forward(self, images):
                    self.asked += threading.current_thread() is not threading.main_thread()
                    if self.asked > 30:  # under load, once what warms it up is over
                        raise ValueError("no such picture")
                    return super().forward(images)


            class NotFinite(Net):
                def forward(self, images):
                    return super().forward(images) * float("nan")


            @pytest_vq.register_model("unbuilt", input_shape=(3, 16, 16))
            def unbuilt():
                raise OSError("no weights here")


            pytest_vq.register_model("not-finite", input_shape=(3, 16, 16))(NotFinite)
            pytest_vq.register_model("odd", input_shape=(3, 16, 16))(Odd)
            """,
        )
        with_test(serving, KEPT)
        serving.makepyfile(test_kernel="def test_after(vq_gate): vq_gate(len, ())")
        result = serving.runpytest_inprocess("--vq-serving", FP32, "--vq-models=unbuilt,not-finite,odd")
        result.assert_outcomes(failed=3, passed=1)
        assert [row["model"] for row in rows()] == ["test_kernel.py::test_after"]
        said = {failure["id"]: failure["message"] for failure in study()["failures"]}
        assert study()["failures"][0]["error"] == "BuildError"
        assert "OSError: no weights here" in said["unbuilt-fp32-serving"]
        assert "finite" in said["not-finite-fp32-serving"].removeprefix("not-finite")
        assert "requests were answered: no median (OutputError: odd-fp32" in said["odd-fp32-serving"]
        assert "ValueError: no such picture" in said["odd-fp32-serving"]
