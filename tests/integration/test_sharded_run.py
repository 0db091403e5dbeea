"""``--vq-shard`` as a user sees it: which pairs a run measures, and what it leaves: merged, the whole run."""

from __future__ import annotations

import json

import pytest

from pytest_vq.cli.main import main
from pytest_vq.store.results import read_results

TESTS = """
    import pytest

    @pytest.mark.vq(memory_tolerance=100)  # resident memory of a net this small moves by its own size
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)

    def test_nothing_measured():
        pass
"""
CALLABLE = """
    def test_sum(vq_gate):
        vq_gate(sum, [1, 2])
"""
DURATIONS = {"my-net-fp32": 1.0, "my-net-fp16": 1.0, "my-net-int8": 5.0, "my-net-int4": 4.0}


def write_durations(project: pytest.Pytester, durations: dict[str, float]) -> None:
    folder = project.path / "baselines"
    folder.mkdir(exist_ok=True)
    (folder / "durations.json").write_text(json.dumps({"schema_version": 1, "durations_s": {"cpu": durations}}))


def collected(project: pytest.Pytester, *options: str) -> list[str]:
    """The tests that a run with ``options`` would run, in no order."""
    result = project.runpytest_inprocess("--collect-only", "-q", *options)
    assert result.ret == 0
    return sorted(line for line in result.outlines if "::" in line)


class TestWhichPairs:
    @pytest.fixture
    def suite(self, project: pytest.Pytester) -> pytest.Pytester:
        project.makepyfile(test_my_bench=TESTS, test_ops=CALLABLE)
        write_durations(project, DURATIONS)
        return project

    def test_each_is_in_one_shard_and_what_measures_nothing_is_in_all(self, suite: pytest.Pytester) -> None:
        shards = [collected(suite, f"--vq-shard={number}/3") for number in (1, 2, 3)]
        free = "test_my_bench.py::test_nothing_measured"
        assert all(free in shard for shard in shards)
        measured = [[test for test in shard if test != free] for shard in shards]
        assert sorted(sum(measured, [free])) == collected(suite)
        # Durations decide: the callable, which nobody timed, counts as the median, 2.5 s.
        assert measured == [
            ["test_my_bench.py::test_precision[my-net-fp16]", "test_my_bench.py::test_precision[my-net-fp32]"],
            ["test_my_bench.py::test_precision[my-net-int8]"],
            ["test_my_bench.py::test_precision[my-net-int4]", "test_ops.py::test_sum"],
        ]

    def test_the_order_of_tests_does_not_matter(self, suite: pytest.Pytester) -> None:
        in_order, turned = (
            collected(suite, *files, "--vq-shard=2/2")
            for files in (("test_my_bench.py", "test_ops.py"), ("test_ops.py", "test_my_bench.py"))
        )
        assert turned == in_order

    def test_the_selection_is_cut_not_the_suite(self, suite: pytest.Pytester) -> None:
        assert collected(suite, "-k", "int8 or int4", "--vq-shard=1/2") == [
            "test_my_bench.py::test_precision[my-net-int8]"
        ]

    def test_a_pair_of_two_tests_is_in_one_shard(self, project: pytest.Pytester) -> None:
        project.makepyfile(test_other=TESTS)
        for number in (1, 2):
            shard = [test.partition("[") for test in collected(project, f"--vq-shard={number}/2") if "[" in test]
            pairs = [{pair for test, _, pair in shard if test.startswith(name)} for name in ("test_my", "test_other")]
            assert pairs[0] == pairs[1]
            assert len(pairs[0]) == 2

    def test_durations_that_cannot_be_read_are_a_usage_error(self, suite: pytest.Pytester) -> None:
        (suite.path / "baselines" / "durations.json").write_text('{"schema_version": 99}')
        result = suite.runpytest_inprocess("--vq-shard=1/2")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: *durations.json has schema version 99*upgrade pytest-vq*"])

    @pytest.mark.parametrize("shard", ["0/3", "x"])
    def test_a_shard_that_there_is_not_is_a_usage_error(self, project: pytest.Pytester, shard: str) -> None:
        result = project.runpytest_inprocess(f"--vq-shard={shard}")
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: --vq-shard: *{shard}*"])

    def test_a_selection_of_nothing_is_no_empty_shard(self, project: pytest.Pytester) -> None:
        assert project.runpytest_inprocess("-k", "nothing", "--vq-shard=1/2").ret == 5


def test_the_shards_of_a_suite_merge_into_its_serial_run(steady: pytest.Pytester, rows, study) -> None:
    steady.makepyfile(test_my_bench=TESTS)
    precisions = "--vq-precisions=fp32,fp16,int8"
    assert steady.runpytest_inprocess("--vq-save", "--vq-output=serial", precisions).ret == 0
    durations = json.loads((steady.path / "baselines" / "durations.json").read_text())["durations_s"]["cpu"]
    assert durations.keys() == {"my-net-fp32", "my-net-fp16", "my-net-int8"}
    write_durations(steady, DURATIONS)
    for number, words in ((1, "2 of 3 pairs"), (2, "1 of 3 pairs")):
        result = steady.runpytest_inprocess(f"--vq-shard={number}/2", f"--vq-output=shard-{number}", precisions)
        assert result.ret == 0
        result.stdout.fnmatch_lines([f"pytest-vq: shard {number}/2: {words}", f"shard {number}/2: {words}"])
    shards = [str(steady.path / f"shard-{number}") for number in (1, 2)]
    assert main(["merge", *shards, "--output", str(steady.path / "merged")]) == 0
    # Taken anew: by the real clock, of the process's memory, and beside baselines that the serial run recorded.
    anew = ("memory", "build_s", "device_held_s", "verdict", "reason")
    serial, together = (
        [{name: cell for name, cell in row.items() if not any(part in name for part in anew)} for row in table]
        for table in (rows("serial"), rows("merged"))
    )
    assert together == serial
    assert [line["precision"] for line in together] == ["fp32", "fp16", "int8"]
    assert {line["verdict"] for line in rows("merged")} == {"PASS"}
    assert study("merged")["complete"] is True
    assert study("merged")["options"]["shard"] == "1/1"


def test_the_gates_error_is_shared_among_all_shards(steady: pytest.Pytester) -> None:
    steady.makeconftest(
        (steady.path / "conftest.py").read_text()
        + """

def pytest_runtestloop(session):
    from pytest_vq.plugin.session import SESSION

    Path("comparisons").write_text(str(session.config.stash[SESSION].comparisons))
"""
    )
    assert steady.runpytest_inprocess("--vq-shard=1/4").ret == 0
    assert (steady.path / "comparisons").read_text() == "4"


def test_an_empty_shard_is_green_and_leaves_an_empty_run(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--vq-shard=5/5")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["shard 5/5: 0 of 4 pairs: there are more shards than pairs"])
    results = read_results(project.path / "vq-results")
    assert (results.complete, results.rows) == (True, ())


def test_workers_tell_what_the_shard_is(project: pytest.Pytester) -> None:
    project.makeconftest("")  # a shard in which nothing is measured needs no torch, in any worker
    result = project.runpytest_subprocess("-n2", "--vq-shard=5/5", "--vq-models=vit-digits")
    assert result.ret == 0
    assert json.loads((project.path / "vq-results" / "selection.json").read_text())["total"] == 4
    assert read_results(project.path / "vq-results").complete
