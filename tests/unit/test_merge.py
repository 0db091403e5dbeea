"""``pytest-vq merge``: shards become the run that one process would have left, or are refused with the reason."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, MIB, make_callable_record, make_outcome, make_record

from pytest_vq.cli.main import main
from pytest_vq.options import Options
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.shard import Selection, Shard
from pytest_vq.schema.verdict import Status
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.explained import EXPLAINED, explained_file, read_explained
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.samples import SAMPLES, read_samples
from pytest_vq.store.selection_file import write_selection

PRECISIONS = ("fp32", "fp16", "int8", "int4")
IDS = [f"{model}-{precision}" for model in ("net", "vit") for precision in PRECISIONS]
DEFAULTS = Options()
HERE = {1: range(3), 2: range(3, 6), 3: range(6, 8)}  # a model is split by each cut


def row(pair: str, **columns: Any) -> Record:
    """The row of one of the pairs."""
    model, _, precision = pair.partition("-")
    return make_record(model, precision, **({"verdict": Status.PASS} | columns))


def write_run(
    directory: Path,
    records: Sequence[Record],
    options: Options = DEFAULTS,
    environment: Environment = ENVIRONMENT,
    failures: Sequence[Failure] = (),
) -> Path:
    """What a run leaves that measured ``records``; `host` gives the environment of one of several hosts."""
    writer = ResultsWriter(directory, replace(options, output=directory).to_json())
    for record in records:
        writer.add(make_outcome(record, environment))
    for failure in failures:
        writer.fail(failure)
    writer.close()
    return directory


def host(number: int) -> Environment:
    """The process of the ``number``-th host, which has a card and a kernel of its own."""
    versions = {**ENVIRONMENT.versions, "kernel": f"6.{number}", "driver": f"5{number}"}
    return replace(ENVIRONMENT, device_uuid=f"CPU-{number}", versions=versions, date_utc=f"2026-01-0{number}T00:00:00Z")


Make = Callable[..., list[str]]


@pytest.fixture
def shards(tmp_path: Path) -> Make:
    """Leave the results of three shards; their directories, in order."""

    def make(numbers: Sequence[int] = (1, 2, 3), count: int = 3, **given: Any) -> list[str]:
        made = []
        for number in numbers:
            here = HERE[number]
            records = [given.get("rows", {}).get(pair) or row(pair) for pair in IDS[here.start : here.stop]]
            shard, directory = Shard(number, count), tmp_path / f"shard-{number}"
            options = replace(given.get("options", Options()), shard=shard)
            write_run(directory, records, options, given.get("environments", host)(number))
            write_selection(directory, Selection.of(shard, IDS, here))
            made.append(str(directory))
        return made

    return make


@pytest.fixture
def merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run ``pytest-vq merge`` into ``merged``: the exit code and what it said."""

    def run(*directories: str | Path, output: str = "merged") -> tuple[int, str]:
        words = ["merge", *map(str, directories), "--output", str(tmp_path / output)]
        code = main([*words, "--baselines", str(tmp_path / "baselines")])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def study(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "study.json").read_text())
    return found


class TestMerged:
    def test_the_files_are_those_of_a_serial_run(self, tmp_path: Path, shards: Make, merge) -> None:
        code, said = merge(*shards(environments=lambda number: ENVIRONMENT))
        serial, merged = write_run(tmp_path / "serial", [row(pair) for pair in IDS]), tmp_path / "merged"
        assert code == 0, said
        assert "8 PASS" in said
        for name in ("results.csv", SAMPLES):
            assert (merged / name).read_bytes() == (serial / name).read_bytes()
        parts = ("schema_version", "complete", "environments", "records", "failures")
        assert [study(merged)[part] for part in parts] == [study(serial)[part] for part in parts]
        assert study(merged)["options"] == study(serial)["options"] | {"output": str(merged)}

    def test_each_row_keeps_the_host_that_measured_it(self, tmp_path: Path, shards: Make, merge) -> None:
        assert merge(*shards())[0] == 0
        results = read_results(tmp_path / "merged")
        assert [r.environment.device_uuid for r in results.rows] == ["CPU-1"] * 3 + ["CPU-2"] * 3 + ["CPU-3"] * 2
        assert [r.estimates[0].device_uuid for r in results.rows] == [r.environment.device_uuid for r in results.rows]

    def test_the_order_is_the_catalogs_whatever_was_given_first_and_finished_first(
        self, tmp_path: Path, shards: Make, merge
    ) -> None:
        made = shards()
        shuffled = write_run(tmp_path / "shard-2", [row(pair) for pair in (IDS[5], IDS[3], IDS[4])], _shard(2), host(2))
        write_selection(shuffled, Selection.of(Shard(2, 3), IDS, HERE[2]))
        assert merge(*reversed(made))[0] == 0
        assert [record.id for record in read_results(tmp_path / "merged").records] == IDS
        assert [str(line.case_id) for line in read_samples(tmp_path / "merged")] == IDS
        assert read_results(tmp_path / "merged").environments[0] == host(1)

    def test_a_study_that_was_laid_out_anew_is_merged_too(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards()
        for directory in made:
            file = Path(directory) / "study.json"
            file.write_text(json.dumps(json.loads(file.read_text()), indent=2))
            (Path(directory) / "results.csv").unlink()
        assert merge(*made)[0] == 0
        assert [r.environment.device_uuid[-1] for r in read_results(tmp_path / "merged").rows] == list("11122233")
        with (tmp_path / "merged" / "results.csv").open(newline="") as file:
            assert [f"{line['model']}-{line['precision']}" for line in csv.DictReader(file)] == IDS

    def test_a_table_with_other_rows_than_the_study_is_made_anew(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards(rows={"net-int8": row("net-int8", reason='slower, "by far":\nread on', verdict=Status.IMPROVED)})
        table = Path(made[1]) / "results.csv"
        table.write_bytes(table.read_bytes() + table.read_bytes().splitlines(keepends=True)[-1])  # killed after it
        assert merge(*made)[0] == 0
        with (tmp_path / "merged" / "results.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert [f"{line['model']}-{line['precision']}" for line in lines] == IDS
        assert lines[2]["reason"] == 'slower, "by far":\nread on'

    def test_samples_without_a_row_stay_behind(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards()
        with (Path(made[0]) / SAMPLES).open("ab") as file:
            other = (Path(made[1]) / SAMPLES).read_bytes().splitlines(keepends=True)[0]
            file.write(other + other[:20])  # of a killed process
        assert merge(*made)[0] == 0
        assert [str(line.case_id) for line in read_samples(tmp_path / "merged")] == IDS

    def test_an_empty_shard_is_a_shard_that_ran(self, tmp_path: Path, merge) -> None:
        full = write_run(tmp_path / "full", [row("net-fp32")], _shard(1, 2))
        write_selection(full, Selection.of(Shard(1, 2), ["net-fp32"], range(1)))
        empty = write_run(tmp_path / "empty", [], _shard(2, 2))
        write_selection(empty, Selection.of(Shard(2, 2), ["net-fp32"], range(1, 1)))
        assert merge(full, empty)[0] == 0
        assert study(tmp_path / "merged")["complete"] is True

    def test_the_reduction_of_memory_is_filled_from_the_row_of_fp32(self, tmp_path: Path, shards: Make, merge) -> None:
        lacking = {"net-int4": row("net-int4", memory_reduction=None, peak_memory_bytes=25 * MIB)}
        assert merge(*shards(rows=lacking))[0] == 0
        records = {record.id: record for record in read_results(tmp_path / "merged").records}
        assert records["net-int4"].memory.memory_reduction == 0.75
        with (tmp_path / "merged" / "results.csv").open(newline="") as file:
            assert [line["memory_reduction"] for line in csv.DictReader(file)][3] == "0.75"

    def test_no_reduction_is_made_up_of_figures_near_the_resolution(self, tmp_path: Path, shards: Make, merge) -> None:
        lacking = {
            "net-fp32": row("net-fp32", memory_reduction=None, peak_memory_bytes=15 * MIB),
            "net-int4": row("net-int4", memory_reduction=None, peak_memory_bytes=5 * MIB),
        }
        assert merge(*shards(rows=lacking))[0] == 0
        records = {record.id: record for record in read_results(tmp_path / "merged").records}
        assert records["net-int4"].memory.memory_reduction is None

    def test_what_explains_a_fail_comes_along(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards(rows={"vit-int8": row("vit-int8", verdict=Status.FAIL, reason="slower")})
        folder = Path(made[2]) / EXPLAINED
        folder.mkdir()
        explained = {"reason": "slower", "failed": ["latency"], "before": {}, "now": {}}
        (folder / explained_file("vit-int8")).write_text(json.dumps(explained))
        code, said = merge(*made)
        assert code == 1
        assert "ERROR: 1 row failed the gate: vit-int8" in said
        merged = tmp_path / "merged"
        assert [str(case) for case in read_explained(merged, read_results(merged).records)] == ["vit-int8"]

    def test_processes_of_a_run_of_several_are_merged_beside_it(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards(options=Options(runs=2))
        for number, directory in enumerate(made, 1):
            here = HERE[number]
            again = [row(pair, latency_ms=11.0) for pair in IDS[here.start : here.stop]]
            write_run(Path(directory) / "run-2", again, _shard(number), host(number))
        assert merge(*made)[0] == 0
        assert len(read_results(tmp_path / "merged" / "run-2").rows) == 8

    def test_what_reads_runs_takes_it(self, tmp_path: Path, shards: Make, merge, capsys) -> None:
        made = shards()
        assert merge(*made)[0] == 0
        merged, baselines = str(tmp_path / "merged"), str(tmp_path / "baselines")
        assert main(["compare", merged, made[0]]) == 0
        accept = ["baselines", "accept", merged, "--reason", "first", "--baselines", baselines]
        assert main(accept) == 0
        capsys.readouterr()
        assert [len(e.processes) for e in BaselineStore(Path(baselines)).entries("cpu-a", "net")] == [1, 1, 1, 1]


def _shard(number: int, count: int = 3) -> Options:
    return Options(shard=Shard(number, count))


class TestVerdict:
    """The last job decides as the whole run would have."""

    def test_a_shard_that_is_missing_is_said_and_fails_and_nothing_is_lost(self, tmp_path, shards: Make, merge) -> None:
        code, said = merge(*shards((1, 3)))
        assert code == 1
        assert "ERROR: no results of shard 2/3: this run is not complete" in said
        assert study(tmp_path / "merged")["complete"] is False
        assert len(read_results(tmp_path / "merged").rows) == 5

    def test_an_interrupted_shard_fails_and_names_what_is_missing(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards((1, 2))
        writer = ResultsWriter(tmp_path / "shard-3", _shard(3).to_json())
        writer.add(make_outcome(row("vit-int8"), host(3)))  # and killed
        write_selection(tmp_path / "shard-3", Selection.of(Shard(3, 3), IDS, HERE[3]))
        code, said = merge(*made, tmp_path / "shard-3")
        assert code == 1
        assert "shard-3 is of a run that was interrupted" in said
        assert "not measured: vit-int4" in said
        assert study(tmp_path / "merged")["complete"] is False

    def test_a_failure_fails(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards((1, 2))
        failed = Failure("vit-int4", "OutputError", "NaN", "vit")
        write_run(tmp_path / "shard-3", [row("vit-int8")], _shard(3), host(3), [failed])
        code, said = merge(*made, tmp_path / "shard-3")
        assert (code, "ERROR vit-int4: OutputError: NaN" in said) == (1, True)
        assert read_results(tmp_path / "merged").failures == (failed,)
        assert read_results(tmp_path / "merged").complete

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (Options(), 0),
            (Options(strict=True), 1),
            (Options(strict=True, save=True), 0),
            (Options(strict=True, gate="report"), 0),
        ],
    )
    def test_a_strict_gate_fails_for_what_has_no_baseline(self, shards: Make, merge, options: Options, code) -> None:
        none = {"net-fp32": row("net-fp32", verdict=Status.NO_BASELINE)}
        assert merge(*shards(rows=none, options=options))[0] == code

    def test_hollow_green_is_red(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards(rows={pair: row(pair, verdict=Status.NO_BASELINE) for pair in IDS})
        assert merge(*made)[0] == 0  # there are no baselines at all
        stored = [("other", make_record().setup, make_outcome().estimates[0])]
        BaselineStore(tmp_path / "baselines").append("cpu-a", "A CPU", stored)
        code, said = merge(*made, output="again")
        assert code == 1
        assert re.search(r"baselines/cpu-a has baselines, but of 8 pairs measured none could be compared", said)

    def test_one_compared_row_makes_it_no_hollow_green(self, tmp_path: Path, shards: Make, merge) -> None:
        none = {pair: row(pair, verdict=Status.NO_BASELINE) for pair in IDS[1:]}
        stored = [("other", make_record().setup, make_outcome().estimates[0])]
        BaselineStore(tmp_path / "baselines").append("cpu-a", "A CPU", stored)
        assert merge(*shards(rows=none))[0] == 0


class TestRefused:
    """Exit code 1, with the reason, and nothing is written."""

    @pytest.fixture
    def refused(self, tmp_path: Path, merge):
        def check(words: str, *directories: str | Path) -> None:
            code, said = merge(*directories)
            assert code == 1
            assert re.search(words, said), said
            assert not (tmp_path / "merged").exists()

        return check

    def test_one_measurement_twice(self, shards: Make, refused, tmp_path: Path) -> None:
        made = shards()
        copy = shutil.copytree(made[0], tmp_path / "copy")
        refused("hold the same measurement of net-fp32", *made, copy)

    def test_one_directory_twice(self, shards: Make, refused) -> None:
        made = shards()
        refused("shard-1 is given twice", *made, f"{made[0]}/study.json")

    def test_a_pair_that_two_runs_measured(self, tmp_path: Path, refused) -> None:
        one = write_run(tmp_path / "one", [row("net-int8")])
        other = write_run(tmp_path / "other", [row("net-int8", latency_ms=11.0)], environment=host(2))
        refused(r"one and .*other both measured net-int8, with different figures", one, other)

    def test_a_callable_that_two_runs_measured(self, tmp_path: Path, refused) -> None:
        record = make_callable_record()
        one, other = (write_run(tmp_path / name, [record], environment=host(2)) for name in "ab")
        refused(r"a and .*b hold the same measurement of tests/test_ops", one, other)

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"protocol": "study"}, "--vq-protocol differs: adaptive in .*one, study in .*other"),
            ({"weights": "pretrained"}, "--vq-weights differs"),
            ({"threads": 2}, "--vq-threads differs: 1 in"),
            ({"budget": 2.0}, "--vq-budget differs: not given in .*, 2.0 in"),
            ({"batch": (1, 8)}, "--vq-batch differs: 1 in .*, 1,8 in"),
            ({"gate": "off"}, "--vq-gate differs"),
            ({"gpu": True}, "--gpu differs"),
        ],
    )
    def test_other_options(self, tmp_path: Path, refused, changed: dict[str, Any], words: str) -> None:
        one = write_run(tmp_path / "one", [row("net-fp32")])
        other = write_run(tmp_path / "other", [row("net-int8")], replace(Options(), **changed))
        refused(words, one, other)

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"device_slug": "cpu-b"}, "device differs: cpu-a in .*one, cpu-b in .*other"),
            ({"commit": "abd"}, "commit differs: abc in"),
            ({"versions": {"torch": "2.14.0", "python": "3.11"}}, "torch differs: 2.13.0 in .*, 2.14.0 in"),
            ({"versions": {"torch": "2.13.0"}}, "python differs: 3.11 in .*, not given in"),
        ],
    )
    def test_another_machine_or_other_code(self, tmp_path: Path, refused, changed: dict[str, Any], words: str) -> None:
        one = write_run(tmp_path / "one", [row("net-fp32")])
        other = write_run(tmp_path / "other", [row("net-int8")], environment=replace(ENVIRONMENT, **changed))
        refused(words, one, other)

    def test_where_recipes_baselines_and_results_lie_is_no_difference(self, tmp_path: Path, merge) -> None:
        options = [
            Options(precisions=f"fp32,recipe:/{name}/small.json+compile", baselines=Path(name), save=name == "a")
            for name in "ab"
        ]
        one = write_run(tmp_path / "one", [row("net-fp32")], options[0])
        other = write_run(tmp_path / "other", [row("net-int8")], options[1])
        assert merge(one, other)[0] == 0

    def test_shards_of_another_number(self, tmp_path: Path, refused) -> None:
        one = write_run(tmp_path / "one", [row("net-fp32")], _shard(1, 2))
        other = write_run(tmp_path / "other", [row("net-int8")], _shard(2, 3))
        refused(r"one is one of 2 shards, and .*other one of 3", one, other)

    def test_shards_of_another_selection(self, shards: Make, refused, tmp_path: Path) -> None:
        made = shards()
        write_selection(tmp_path / "shard-3", Selection.of(Shard(3, 3), [*IDS, "more"], HERE[3]))
        refused("shard-2 and .*shard-3 are shards of different selections, of 8 and 9 pairs", *made)

    @pytest.mark.parametrize("here", [range(5, 6), range(7, 8)])
    def test_shards_that_were_cut_by_other_durations(self, shards: Make, refused, tmp_path: Path, here: range) -> None:
        made = shards((1, 2))
        write_run(tmp_path / "shard-3", [row("vit-int4")], _shard(3), host(3))
        write_selection(tmp_path / "shard-3", Selection.of(Shard(3, 3), IDS, here))
        refused("were not cut alike: the former ends with pair 6 of 8", *made, tmp_path / "shard-3")

    def test_a_shard_twice(self, shards: Make, refused, tmp_path: Path) -> None:
        empty = [write_run(tmp_path / name, [], _shard(3)) for name in ("a", "b")]
        refused("shard 3/3 is there twice: .*a and .*b", *shards((1, 2)), *empty)

    def test_what_is_no_run(self, shards: Make, refused, tmp_path: Path) -> None:
        refused("cannot read results from .*nowhere", *shards(), tmp_path / "nowhere")
        (tmp_path / "half").mkdir()
        text = (tmp_path / "shard-1" / "study.json").read_text()
        for content, words in (
            (text[:99], "truncated"),
            ("{}", "no schema_version"),
            ('{"schema_version":99}', "up to"),
        ):
            (tmp_path / "half" / "study.json").write_text(content)
            refused(words, tmp_path / "half")

    def test_a_study_of_version_1(self, refused) -> None:
        refused("schema version 1; only runs of version 2", Path(__file__).parents[1] / "data" / "results-v1")

    def test_where_results_are_already(self, tmp_path: Path, shards: Make, merge) -> None:
        made = shards()
        assert merge(*made)[0] == 0
        before = (tmp_path / "merged" / "study.json").read_bytes()
        code, said = merge(*made)
        assert (code, "merged/study.json is there already" in said) == (1, True)
        assert merge(*made, output="shard-1")[1].count("is one of the runs to merge") == 1
        assert (tmp_path / "merged" / "study.json").read_bytes() == before

    def test_wrong_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            main(["merge", "run"])
        assert raised.value.code == 2
        assert "--output" in capsys.readouterr().err
