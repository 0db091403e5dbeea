"""``vq_gate`` as a user meets it: any callable, gated against its own baseline, and whatever a test does wrong."""

from __future__ import annotations

import json
from textwrap import dedent
from xml.etree import ElementTree

import pytest

from pytest_vq.cli.main import main
from pytest_vq.files import file_name

# On the steady machine what a call takes is what it adds to the clock; "burden_ms" and "hunger_mib" make it worse.
KERNELS = """
    from pathlib import Path

    import conftest
    import pytest
    import torch

    left, right = torch.ones(64, 64), torch.ones(64, 64)

    def matmul(left, right=None):
        conftest.spend(quantized=True)
        hunger = Path("hunger_mib")
        held = torch.ones(int(hunger.read_text()) * 2**20, dtype=torch.uint8) if hunger.exists() else None
        return left @ right, held

    @pytest.mark.parametrize("size", ["64/64", "[a-b]"])
    def test_matmul(vq_gate, size):
        timing = vq_gate(matmul, left, right=right)
        assert timing.latency_ms < 35  # what a test asserts itself
        assert timing.latency_low_ms <= timing.latency_ms <= timing.latency_high_ms
        assert timing.peak_memory_bytes is not None
        assert set(timing.samples_ms) == {timing.latency_ms}
"""
ONE = "test_kernels.py::test_matmul[64/64]"
OTHER = "test_kernels.py::test_matmul[[a-b]]"


@pytest.fixture
def kernels(steady: pytest.Pytester) -> pytest.Pytester:
    """The steady project with two tests of one callable, and no other."""
    (steady.path / "test_my_bench.py").unlink()
    steady.makepyfile(test_kernels=KERNELS)
    return steady


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The baselines of those two tests, by path, once they were recorded: time stands still, so once is enough."""
    return {}


@pytest.fixture
def recorded(kernels: pytest.Pytester, files: dict[str, bytes]) -> pytest.Pytester:
    """The project with its baselines."""
    root = kernels.path
    if not files:
        assert kernels.runpytest_inprocess("--vq-save").ret == 0
        files |= {str(p.relative_to(root)): p.read_bytes() for p in (root / "baselines").rglob("*.json")}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return kernels


def with_tests(project: pytest.Pytester, text: str) -> None:
    """Let a module of these tests be all there is."""
    for path in project.path.glob("test_*.py"):
        path.unlink()
    project.makepyfile(test_mine=dedent(text))


def test_each_test_has_a_baseline_under_its_own_id(kernels, rows) -> None:
    result = kernels.runpytest_inprocess("--vq-runs=2", "--vq-save")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["recorded 4 lines in 2 files*"])  # of two processes
    assert [(row["model"], row["category"], row["verdict"]) for row in rows()] == [
        (ONE, "callable", "NO_BASELINE"),
        (OTHER, "callable", "NO_BASELINE"),
    ]
    assert {row["method"] for row in rows()} == {"test_kernels.matmul"}
    (device,) = (kernels.path / "baselines").glob("*/")
    kept = sorted(path.name for path in (device / "callables").iterdir())
    assert kept == sorted(file_name(test_id, ".json") for test_id in (ONE, OTHER))
    assert "aten::matmul" in json.loads((device / "callables" / kept[0]).read_text())["entries"][0]["operators"]


def test_unchanged_code_passes_and_is_seen_wherever_rows_are(recorded, rows) -> None:
    result = recorded.runpytest_inprocess("--junitxml=junit.xml", "--benchmark-json=out.json")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            f"[[]1/2] {ONE.replace('[', '[[]')}  30 ms  PASS*",
            "*= pytest-vq =*",
            "*30 - 30*PASS",
            "2 PASS",
            "*'callables': 2 tests*",
        ]
    )
    assert [row["verdict"] for row in rows()] == ["PASS", "PASS"]
    case = ElementTree.parse(recorded.path / "junit.xml").find(".//testcase")
    assert case is not None
    told = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
    assert (told["vq.model"], told["vq.latency_ms"], told["vq.verdict"]) == (ONE, "30.0", "PASS")
    assert "vq.speedup" not in told
    (first, _) = json.loads((recorded.path / "out.json").read_text())["benchmarks"]
    assert set(first["stats"]["data"]) == {0.03}
    assert first["extra_info"]["model"] == ONE


def test_slower_and_fatter_is_a_failed_test_that_says_why(recorded, rows, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (recorded.path / "burden_ms").write_text("10")
    (recorded.path / "hunger_mib").write_text("32")
    result = recorded.runpytest_inprocess("-k", "64")
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=1)
    (row,) = rows()
    assert row["verdict"] == "FAIL"
    assert "latency (10 % quantile) 30.0 ms → 40.0 ms (+33.3 % given the sentinel" in row["reason"]
    assert "1 baseline process, 3 fresh" in row["reason"]  # found again by two processes of the one test
    assert "; peak memory " in row["reason"]
    assert "MiB), tolerance 16.0 MiB" in row["reason"]
    result.stdout.fnmatch_lines(
        [
            "what changed inside, one profiled call*",
            "*aten::empty keeps 32.0 MiB*",
            f"::error file=test_kernels.py,line=*title=FAIL {ONE.replace('[', '[[]').replace('::', '%3A%3A')}*",
        ]
    )
    tables = json.loads((recorded.path / "vq-results" / "explain" / file_name(ONE, ".json")).read_text())
    assert set(tables["failed"]) >= {"latency", "peak_memory"}
    assert "aten::ones" in tables["now"].keys() - tables["before"].keys()


def test_the_commands_know_it(recorded, capsys, monkeypatch) -> None:
    monkeypatch.chdir(recorded.path)

    def printed(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    recorded.runpytest_inprocess("--vq-report")
    capsys.readouterr()
    assert {ONE, OTHER} <= set(printed("baselines", "list").split())
    assert f"{OTHER} callable, adaptive, 1 threads on cpu-" in printed("baselines", "show", OTHER)
    assert "test_matmul" in (recorded.path / "vq-results" / "report" / "report.md").read_text()
    assert "| test_kernels.py::test_matmul" in printed("compare", "baselines", "vq-results", "--format=markdown")

    accepted = printed("baselines", "accept", "vq-results", "--models", OTHER, "--reason", "as it should be")
    assert f"{OTHER}  callable" in accepted
    assert ONE not in accepted
    assert "anchor: as it should be" in printed("baselines", "show", OTHER)
    assert "anchor: first recorded" in printed("baselines", "show", ONE)


def test_workers_find_the_same_baselines_and_hand_everything_on(recorded, rows) -> None:
    result = recorded.runpytest_inprocess("-n", "1", "--junitxml=junit.xml")
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    assert {row["model"]: row["verdict"] for row in rows()} == {ONE: "PASS", OTHER: "PASS"}
    stored = json.loads((recorded.path / "vq-results" / "benchmark.json").read_text())["benchmarks"]
    assert {(b["group"], b["name"], b["params"]) for b in stored} == {
        ("callables", ONE.partition("::")[2], None),
        ("callables", OTHER.partition("::")[2], None),
    }
    assert "vq.latency_ms" in (recorded.path / "junit.xml").read_text()


class TestOptions:
    def test_a_gate_that_is_off_gives_no_verdict(self, kernels, rows) -> None:
        assert kernels.runpytest_inprocess("-k", "64", "--vq-gate=off").ret == 0
        assert rows()[0]["verdict"] == ""

    def test_strict_fails_what_has_no_baseline(self, kernels) -> None:
        result = kernels.runpytest_inprocess("-k", "64", "--vq-strict")
        result.assert_outcomes(failed=1, deselected=1)
        result.stdout.fnmatch_lines(["NO_BASELINE: no baseline for this callable on this device*"])

    def test_hollow_green_counts_callables(self, recorded) -> None:
        next((recorded.path / "baselines").rglob(file_name(OTHER, ".json"))).unlink()
        result = recorded.runpytest_inprocess("-k", "a-b")
        assert result.ret == 1
        result.assert_outcomes(passed=1, deselected=1)
        result.stdout.fnmatch_lines(["ERROR: *has baselines, but of 1 callable measured none could be compared*"])

    def test_pytest_benchmark_selects_it_like_any_benchmark(self, kernels) -> None:
        kernels.runpytest_inprocess("--benchmark-only", "-k", "64").assert_outcomes(passed=1, deselected=1)
        kernels.runpytest_inprocess("--benchmark-skip").assert_outcomes(skipped=2)

    def test_its_markers_tolerances_are_those_it_is_judged_by(self, recorded, rows) -> None:
        module = recorded.path / "test_kernels.py"
        marked = "@pytest.mark.vq(latency_tolerance=0.5, memory_tolerance=9)\n@pytest.mark.parametrize"
        module.write_text(module.read_text().replace("@pytest.mark.parametrize", marked))
        (recorded.path / "burden_ms").write_text("4")
        assert recorded.runpytest_inprocess("-k", "64").ret == 0
        assert rows()[0]["verdict"] == "PASS"


class TestMisuse:
    @pytest.mark.parametrize(
        ("test", "told"),
        [
            (
                "@pytest.mark.vq(min_sqnr_db=20)\ndef test_it(vq_gate): vq_gate(len, ())",
                "*test_it: mark.vq(min_sqnr_db=...) means nothing for vq_gate: a callable has no FP32 beside it*",
            ),
            (
                "def test_it(vq_gate, vq_bench): pass",
                "*test_it: it uses vq_bench and vq_gate: a test has one row and one verdict*",
            ),
        ],
        ids=["a keyword that takes a model", "two gates"],
    )
    def test_what_cannot_be_is_refused_before_anything_runs(self, steady, test: str, told: str) -> None:
        with_tests(steady, f"import pytest\n{test}")
        result = steady.runpytest_inprocess()
        assert result.ret == 4
        result.stderr.fnmatch_lines([told])

    def test_it_must_be_known_before_the_tests_run(self, steady) -> None:
        with_tests(steady, "def test_it(request): request.getfixturevalue('vq_gate')(len, ())")
        result = steady.runpytest_inprocess()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["SelectionError: test_mine.py::test_it: what is measured is counted before the *"])

    def test_one_test_has_one_callable(self, steady, rows) -> None:
        with_tests(steady, "def test_it(vq_gate):\n    vq_gate(len, ())\n    vq_gate(len, '')")
        result = steady.runpytest_inprocess()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*MeasurementError: test_mine.py::test_it: vq_gate was used twice. Its baseline *"]
        )
        assert len(rows()) == 1  # what was measured before is kept

    def test_a_callable_that_raises_costs_its_own_row_alone(self, steady, rows, study) -> None:
        with_tests(
            steady,
            """
            import pytest

            def breaks(size):
                raise ValueError(f"{size} does not fit")

            def test_before(vq_gate):
                vq_gate(len, ())

            def test_it(vq_gate):
                vq_gate(breaks, 3)

            @pytest.mark.xfail(raises=ValueError, strict=True)
            def test_known(vq_gate):
                vq_gate(breaks, 4)

            def test_given_an_answer(vq_gate):
                vq_gate(len(()))

            def test_after(vq_gate):
                vq_gate(len, ())
            """,
        )
        result = steady.runpytest_inprocess()
        result.assert_outcomes(failed=2, passed=2, xfailed=1)
        result.stdout.fnmatch_lines(
            [
                "E *ValueError: 3 does not fit",
                "E *raised while vq_gate called test_mine.breaks again and again, for test_mine.py::test_it",
                "ERROR test_mine.py::test_it: ValueError: 3 does not fit",
            ]
        )
        result.stdout.fnmatch_lines(
            ["*test_given_an_answer: vq_gate was given an object of class int: pass it the fun*"]
        )
        assert [row["model"].partition("::")[2] for row in rows()] == ["test_before", "test_after"]
        failed = {failure["id"]: failure["error"] for failure in study()["failures"]}
        assert failed["test_mine.py::test_it"] == "ValueError"


def test_pairs_and_callables_share_a_run(project, rows) -> None:
    project.makepyfile(test_kernels="def test_sum(vq_gate, vq_case): vq_gate(sum, range(1000))")
    result = project.runpytest_inprocess("--vq-precisions=fp32", "--vq-save")
    result.assert_outcomes(passed=2)
    assert {row["model"] for row in rows()} == {"my-net", "test_kernels.py::test_sum[my-net-fp32]"}
    files = sorted(path.parent.name for path in (project.path / "baselines").glob("*/**/*.json"))
    assert files[0] == "callables"
    assert len(files) == 2
