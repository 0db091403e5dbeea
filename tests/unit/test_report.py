"""``pytest-vq report``: what it writes, from what, and what it refuses."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from factories import ENVIRONMENT, MIB, alter, make_outcome, make_record, make_setup

from pytest_vq.cli.main import main
from pytest_vq.report import facts
from pytest_vq.report.study_report import study_report
from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.explained import Explained
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter

GPU = replace(ENVIRONMENT, device="cuda", device_name="NVIDIA H200", device_slug="nvidia-h200")
FILES = {
    "comment.md",
    "report.md",
    "report.html",
    *(
        f"figures/{name}.{kind}"
        for name in ("speedup_heatmap", "memory_efficiency", "performance_analysis")
        for kind in ("png", "svg")
    ),
}
# No name of this list may do anything but be read.
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- hidden",
    "=HYPERLINK(0)",
    "a|b",
    "@org/team",
    "`whoami`",
    "100%",
    "net\n::error::forged",
    "\x1b[31mred\x1b[0m",
    "abc\u202edef",
    '"datum["x"]',
    "${7*7}",
)


def write_run(
    directory: Path,
    records: Iterable[Record],
    *,
    failures: Iterable[Failure] = (),
    environment: Environment = ENVIRONMENT,
    complete: bool = True,
    **options: Any,
) -> Path:
    """A run of these records in ``directory``."""
    writer = ResultsWriter(directory, options)
    for record in records:
        writer.add(make_outcome(record, environment))
    for failure in failures:
        writer.fail(failure)
    writer.close(complete)
    return directory


def of_models(*models: str, **columns: Any) -> list[Record]:
    """FP32 and INT8 of each model."""
    return [make_record(model, precision, **columns) for model in models for precision in ("fp32", "int8")]


def report_of(directory: Path) -> str:
    return study_report(read_results(directory)).decode()


def section(report: str, title: str) -> str:
    """What stands under ``title``, up to the next one of its kind."""
    return report.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def files_in(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


class TestCommand:
    def test_writes_everything_beside_the_results_and_says_where(self, tmp_path, capsys) -> None:
        run = write_run(tmp_path / "run", of_models("net-a", "net-b"))
        assert main(["report", str(run)]) == 0
        assert files_in(run / "report") == FILES
        names = ("report.md", "report.html", "comment.md")
        assert capsys.readouterr().out.splitlines() == [f"{run}/report/{name}" for name in names]

    def test_writes_elsewhere_from_the_file_itself(self, tmp_path) -> None:
        run = write_run(tmp_path / "run", of_models("net"))
        assert main(["report", str(run / "study.json"), "--output", str(tmp_path / "a" / "b")]) == 0
        assert files_in(tmp_path / "a" / "b") == FILES
        assert not (run / "report").exists()

    def test_replaces_an_earlier_report(self, tmp_path) -> None:
        run = write_run(tmp_path / "run", of_models("net-before"))
        assert main(["report", str(run)]) == 0
        write_run(run, of_models("net-after"))
        assert main(["report", str(run)]) == 0
        text = (run / "report" / "report.md").read_text()
        assert "| net-after |" in text
        assert "net-before" not in text

    def test_takes_earlier_runs(self, tmp_path) -> None:
        run, earlier = (write_run(tmp_path / name, of_models("net")) for name in ("run", "earlier"))
        assert main(["report", str(run), "--history", str(earlier)]) == 0

    def test_figures_are_pictures(self, tmp_path) -> None:
        run = write_run(tmp_path / "run", of_models("net-a", "net-b"))
        main(["report", str(run)])
        for png in (run / "report" / "figures").glob("*.png"):
            data = png.read_bytes()
            assert data.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", data[16:24])
            assert 300 < width < 3000
            assert 200 < height < 3000

    @pytest.mark.parametrize("missing", ["altair", "vl_convert", "jinja2"])
    def test_says_what_to_install(self, tmp_path, monkeypatch, capsys, missing: str) -> None:
        run = write_run(tmp_path / "run", of_models("net"))
        monkeypatch.setitem(sys.modules, missing, None)
        assert main(["report", str(run)]) == 1
        error = capsys.readouterr().err
        assert f"({missing}): pip install 'pytest-vq[report]'" in error
        assert not (run / "report").exists()


class TestBadInput:
    """Nothing is written, and the file is named."""

    def refused(self, run: Path, capsys: pytest.CaptureFixture[str]) -> str:
        before = files_in(run) if run.is_dir() else set()
        assert main(["report", str(run)]) == 1
        assert (files_in(run) if run.is_dir() else set()) == before
        return capsys.readouterr().err

    def test_absent(self, tmp_path, capsys) -> None:
        assert f"cannot read results from {tmp_path}/none" in self.refused(tmp_path / "none", capsys)

    def test_empty_directory(self, tmp_path, capsys) -> None:
        assert f"cannot read results from {tmp_path}/study.json" in self.refused(tmp_path, capsys)

    def test_empty_file(self, tmp_path, capsys) -> None:
        (tmp_path / "study.json").write_bytes(b"")
        assert f"{tmp_path}/study.json is not JSON" in self.refused(tmp_path, capsys)

    def test_no_pair(self, tmp_path, capsys) -> None:
        run = write_run(tmp_path, [], failures=[Failure("net-int8", "BuildError", "it broke", "net")])
        assert f"{tmp_path}/study.json holds nothing that was measured" in self.refused(run, capsys)

    def test_truncated(self, tmp_path, capsys) -> None:
        study = write_run(tmp_path, of_models("net")) / "study.json"
        study.write_bytes(study.read_bytes()[:-40])
        assert f"{study} is not JSON" in self.refused(tmp_path, capsys)

    def test_newer_schema(self, tmp_path, capsys) -> None:
        study = write_run(tmp_path, of_models("net")) / "study.json"
        study.write_text(json.dumps(json.loads(study.read_text()) | {"schema_version": 99}))
        assert f"{study} has schema version 99" in self.refused(tmp_path, capsys)

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
    def test_not_finite(self, tmp_path, capsys, value: str) -> None:
        study = write_run(tmp_path, of_models("net")) / "study.json"
        study.write_text(study.read_text().replace('"latency_ms":10.0', f'"latency_ms":{value}'))
        assert str(study) in self.refused(tmp_path, capsys)

    def test_samples_of_something_else(self, tmp_path, capsys) -> None:
        samples = write_run(tmp_path, of_models("net")) / "samples.jsonl"
        samples.write_text('{"model": 1}\n')
        assert f"{samples} is not a samples.jsonl" in self.refused(tmp_path, capsys)

    def test_history_that_is_none(self, tmp_path, capsys) -> None:
        run = write_run(tmp_path / "run", of_models("net"))
        assert main(["report", str(run), "--history", str(tmp_path / "none")]) == 1
        assert f"{tmp_path}/none" in capsys.readouterr().err
        assert not (run / "report").exists()

    def test_a_file_where_the_folder_should_be(self, tmp_path, capsys) -> None:
        run = write_run(tmp_path / "run", of_models("net"))
        (run / "report").write_text("mine")
        assert f"cannot write to {run}/report" in self.refused(run, capsys)


# Whatever a process does by default in the language that it is told to be in.
IN_A_LANGUAGE = """
import locale, sys
from pytest_vq.cli.main import main

locale.setlocale(locale.LC_ALL, "")
assert locale.localeconv()["decimal_point"] == sys.argv[1], locale.localeconv()
run, output = sys.argv[2:]
sys.exit(main(["report", run, "--output", output]) or main(["recommend", run]) or main(["compare", run, run]))
"""


class TestSameEveryTime:
    @pytest.fixture(scope="class")
    @classmethod
    def saved(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        names = ("net-a", "net-b", "Istanbul", "istanbul", "\u0130zmir")  # Turkish has two letters i, each in two cases
        figures = {"throughput_ips": 12345.6, "peak_memory_bytes": 1234567891, "sqnr_db": 31.26, "accuracy": 0.9537}
        return write_run(tmp_path_factory.mktemp("saved") / "run", of_models(*names, latency_ms=12.345, **figures))

    def written_in(self, run: Path, output: Path, language: str, seed: int) -> dict[str, bytes]:
        """The files of a report, and what is printed, of a process in ``language`` and in a time zone of its own."""
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "LC_ALL": language, "TZ": f"UTC+{seed}"}
        point = "." if language == "C" else ","
        command = [sys.executable, "-c", IN_A_LANGUAGE, point, str(run), str(output)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        printed = done.stdout.replace(bytes(output), b"")
        return {name: (output / name).read_bytes() for name in files_in(output)} | {"printed": printed}

    @pytest.fixture(scope="class")
    @classmethod
    def reference(cls, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
        return cls().written_in(saved, tmp_path_factory.mktemp("reference"), "C", seed=0)

    @pytest.mark.parametrize(("language", "seed"), [("C", 1), ("de_DE.UTF-8", 2), ("tr_TR.UTF-8", 3)])
    def test_bytes_do_not_depend_on_hashes_languages_or_time_zones(
        self, saved: Path, reference: dict[str, bytes], tmp_path: Path, language: str, seed: int
    ) -> None:
        known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.split()
        if language.replace("UTF-8", "utf8") not in known:
            name = language.partition(".")[0]
            pytest.skip(f"needs: apt-get install locales && localedef -i {name} -f UTF-8 {language}")
        assert reference.keys() == FILES | {"printed"}
        found = self.written_in(saved, tmp_path, language, seed)
        assert {name for name in FILES | {"printed"} if found[name] != reference[name]} == set()

    def test_the_order_of_measuring_does_not_matter(self, tmp_path) -> None:
        records = of_models("net-a", "net-b")
        texts = [report_of(write_run(tmp_path / str(n), r)) for n, r in enumerate((records, records[::-1]))]
        tables = [section(text, "By model") for text in texts]
        assert tables[0] == tables[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("hostile")
    records = [
        make_record(name, precision, category=name, verdict=Status.INCONCLUSIVE, reason=name, note=name)
        for name in HOSTILE
        for precision in ("fp32", "int8")
    ]
    failures = [Failure(f"{name}-int4", "BuildError", name, name) for name in HOSTILE]
    write_run(run, records, failures=failures, environment=replace(ENVIRONMENT, device_name=HOSTILE[0]))
    assert main(["report", str(run)]) == 0
    return run / "report"


class TestHostileNames:
    def test_no_row_is_split(self, written) -> None:
        report = (written / "report.md").read_text()
        rows = table_rows(section(report, "By model"))
        assert len(rows) == 2 * len(HOSTILE)
        assert {len(row) for row in rows} == {13}
        assert {len(row) for row in table_rows(section(report, "By category"))} == {9}

    def test_nothing_acts_in_markdown(self, written) -> None:
        report = (written / "report.md").read_text()
        for seed in ("<script", "<!--", "@org", "`whoami`", "\n::error", "\x1b", "\u202e", "${"):
            assert seed not in report

    def test_svg_is_xml_and_shows_names_as_text(self, written) -> None:
        for path in (written / "figures").glob("*.svg"):
            root = ElementTree.fromstring(path.read_bytes())
            tags = {element.tag.rpartition("}")[2] for element in root.iter()}
            assert tags <= {
                "svg",
                "g",
                "path",
                "text",
                "tspan",
                "rect",
                "defs",
                "clipPath",
                "linearGradient",
                "stop",
                "line",
            }
            assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
        shown = "".join(ElementTree.parse(written / "figures" / "speedup_heatmap.svg").getroot().itertext())
        assert HOSTILE[0] in shown
        assert "\\u202e" in shown


class TestHeadline:
    def test_fails_come_first(self, tmp_path) -> None:
        fail = alter(make_record("net-b"), verdict=Status.FAIL, reason="latency 10.0 ms → 12.0 ms")
        good = alter(make_record("net-a"), verdict=Status.PASS)
        lines = report_of(write_run(tmp_path, [good, fail])).split("\n\n")
        assert lines[:5] == [
            "# Quantized vision models on A CPU",
            "**1 of 2 pairs FAILs.**",
            "1 FAIL, 1 PASS.",
            "## What FAILs",
            "- net-b-int8: latency 10.0 ms → 12.0 ms",
        ]

    def test_an_aggregate_refers_to_the_fails(self, tmp_path) -> None:
        fail = alter(make_record("net"), verdict=Status.FAIL, reason="slower")
        text = section(report_of(write_run(tmp_path, [fail])), "By category")
        assert text.strip().startswith("The means below include pairs that FAIL: read those first.")

    def test_failures_and_interruption_are_told(self, tmp_path) -> None:
        failures = [Failure("net-int4", "DeviceOutOfMemoryError", "no room", "net")]
        report = report_of(write_run(tmp_path, of_models("net"), failures=failures, complete=False))
        assert "2 not judged, 1 not measured. The run was interrupted" in report
        assert section(report, "What could not be measured").strip() == ("- net-int4: DeviceOutOfMemoryError: no room")

    def test_what_changed_inside_a_fail_is_told(self, tmp_path) -> None:
        fail = alter(make_record("net"), verdict=Status.FAIL, reason="slower")
        results = read_results(write_run(tmp_path, [fail]))
        before, now = ({"aten::mm": Operator(1, ms, 0)} for ms in (5.0, 9.0))
        explained = {fail.case_id: Explained("slower", ("latency",), before, now)}
        assert "aten::mm" in section(study_report(results, explained).decode(), "What FAILs")

    @pytest.mark.parametrize(
        ("verdicts", "told"),
        [
            (["FAIL", "FAIL", "PASS"], "2 of 3 pairs FAIL."),
            (["PASS", "INCONCLUSIVE"], "None of 2 pairs FAILs."),
            (["NO_BASELINE"] * 3, "None of 3 pairs was compared: no baseline."),
            (["INCOMPARABLE"], "None of 1 pair was compared: measured unlike the baseline."),
            (
                ["NO_BASELINE", "NO_BASELINE", "INCOMPARABLE"],
                "None of 3 pairs was compared: 2 no baseline, 1 measured unlike the baseline.",
            ),
            (["PASS", "NO_BASELINE"], "None of 1 compared pair FAILs; 1 was not compared: no baseline."),
            ([None, None], "2 pairs measured, none judged: this run did not gate."),
            ([], "Nothing was measured."),
        ],
    )
    def test_counts_only_what_was_compared(self, verdicts: list[str | None], told: str) -> None:
        records = [make_record(f"net-{n}", verdict=v and Status(v)) for n, v in enumerate(verdicts)]
        assert facts.headline(records) == told


class TestByCategory:
    def test_the_study_s_six_then_others(self, tmp_path) -> None:
        rows = table_rows(section(report_of(write_run(tmp_path, of_models("net"))), "By category"))
        names = [row[0] for row in rows]
        assert names == [
            "foundation",
            "self-supervised",
            "masked-autoencoder",
            "production",
            "edge",
            "specialized",
            "local",
        ]
        assert rows[0][1:3] == ["not measured", "0"]

    def test_a_geometric_mean_with_its_n_its_range_and_what_it_left_out(self, tmp_path) -> None:
        speedups = {"net-a": 2.0, "net-b": 8.0, "net-c": None}
        records = [make_record(name, category="edge", speedup=value) for name, value in speedups.items()]
        failed = Failure("net-d-int8", "BuildError", "broken", "net-d")
        records.append(make_record("net-d", "fp32", category="edge"))
        report = report_of(write_run(tmp_path, records, failures=[failed]))
        (row,) = [row for row in table_rows(section(report, "By category")) if row[0] == "edge"]
        assert row[1:5] == ["int8", "2", "4.00x", "2.00x … 8.00x"]
        assert row[8] == "net-c-int8, net-d-int8 (BuildError)"


class TestByModel:
    def test_every_figure_is_the_study_s(self, tmp_path) -> None:
        columns = {"latency_ms": 12.3456, "speedup": 1.4449, "throughput_ips": 81.0, "accuracy": 0.953}
        report = report_of(write_run(tmp_path, [make_record("net", **columns)]))
        (row,) = table_rows(section(report, "By model"))
        assert row == [
            "net",
            "int8",
            "12.3 ms",
            "9.90 ms … 10.1 ms",
            "1.44x",
            "1.99x … 2.01x",
            "81 images/s",
            "100.0 MiB",
            "25 %",
            "50.0 MiB",
            "30.0 dB, 95.3 % right",
            "best",
            "",
        ]

    def test_what_was_not_measured_is_empty(self, tmp_path) -> None:
        unknown = dict.fromkeys(
            ("latency_low_ms", "latency_high_ms", "speedup", "speedup_low", "speedup_high", "peak_memory_bytes")
        )
        record = make_record("net", memory_reduction=None, sqnr_db=None, **unknown)
        (row,) = table_rows(section(report_of(write_run(tmp_path, [record])), "By model"))
        assert row == [
            "net",
            "int8",
            "10.0 ms",
            *[""] * 6,
            "50.0 MiB",
            "",
            "not placed: peak memory and SQNR not measured",
            "",
        ]

    def test_where_several_are_as_good_a_tie_is_told(self, tmp_path) -> None:
        pairs = [("fp16", 10.0), ("int8", 10.05), ("int4", 12.0)]
        records = [
            make_record("net", p, latency_ms=ms, latency_low_ms=ms - 0.1, latency_high_ms=ms + 0.1, sqnr_db=30.0)
            for p, ms in pairs
        ]
        text = section(report_of(write_run(tmp_path, records)), "By model")
        standings = [row[11] for row in table_rows(text)]
        assert standings == [
            "best, tie with int8",
            "best, tie with fp16",
            "behind fp16, int8",
        ]
        assert "- int4 is NF4" in text

    def test_what_it_took_to_prepare(self, tmp_path) -> None:
        prepared = {"prepare_s": 12.345, "prepare_cache": "cold", "graphs": 1, "graph_breaks": 0, "recompiles": 2}
        records = [make_record("net", execution="compile", graph_pool_bytes=3 * MIB, **prepared), make_record("net")]
        text = section(report_of(write_run(tmp_path, records)), "What it took to prepare")
        assert table_rows(text) == [["net-int8+compile", "12.35 s", "cold", "1", "0", "2", "3.0 MiB"]]
        assert "What it took to prepare" not in report_of(write_run(tmp_path / "eager", [make_record("net")]))


class TestLaunches:
    TITLE = "Where launches dominate and precision cannot show"

    def on_gpu(self, tmp_path: Path, *records: Record) -> str:
        return section(report_of(write_run(tmp_path, records, environment=GPU)), self.TITLE)

    def test_does_not_apply_on_a_cpu(self, tmp_path) -> None:
        assert "does not apply on a CPU" in section(report_of(write_run(tmp_path, of_models("net"))), self.TITLE)

    def test_lists_the_launch_bound(self, tmp_path) -> None:
        bound = make_record("net-a", launch_bound=True, device_time_ms=3.0, device_speedup=2.5)
        free = make_record("net-b", launch_bound=False, device_time_ms=9.9)
        text = self.on_gpu(tmp_path, bound, free)
        assert "1 of 2 pairs took more than 1.1 times the device's own time" in text
        assert table_rows(text) == [["net-a-int8", "10.0 ms", "3.00 ms", "2.00x", "2.50x"]]

    def test_says_where_nothing_is_known(self, tmp_path) -> None:
        text = self.on_gpu(tmp_path, make_record("net-a", launch_bound=False, device_time_ms=9.9), make_record("net-b"))
        assert "None of the 1 pair whose device time is known." in text
        assert "The device time of 1 pair is not known" in text


class TestUndecided:
    TITLE = "What is undecided, and what would decide it"

    def test_each_inconclusive_pair_has_its_next_command(self, tmp_path) -> None:
        record = alter(
            make_record("deit-tiny-patch16-224"), batch=8, verdict=Status.INCONCLUSIVE, reason="it is too noisy"
        )
        run = write_run(tmp_path, [record], gpu=True, protocol="study", baselines="/somewhere/baselines", threads=1)
        assert section(report_of(run), self.TITLE).strip().split("\n\n") == [
            "- INCONCLUSIVE deit-tiny-patch16-224-int8-b8: it is too noisy",
            "`pytest bench --gpu --vq-models=deit-tiny-patch16-224 --vq-precisions=int8 --vq-batch=8 "
            "--vq-protocol=study --vq-runs=3`",
        ]

    def test_a_model_of_ones_own_is_not_in_our_suite(self, tmp_path) -> None:
        record = alter(make_record("my net"), verdict=Status.INCONCLUSIVE, reason="noisy")
        text = section(report_of(write_run(tmp_path, [record])), self.TITLE)
        assert "pytest '--vq-models=my net' --vq-precisions=int8 --vq-runs=3" in text

    def test_pairs_without_a_baseline_are_told_together(self, tmp_path) -> None:
        records = [alter(r, verdict=Status.NO_BASELINE, reason="no baseline") for r in of_models("net-a", "net-b")]
        text = section(report_of(write_run(tmp_path, records)), self.TITLE).strip()
        assert text.split("\n\n") == [
            "- NO_BASELINE net-a-fp32, net-a-int8, net-b-fp32, net-b-int8: no baseline",
            "`pytest --vq-models=net-a,net-b --vq-precisions=fp32,int8 --vq-save`",
        ]

    def test_what_was_measured_unlike_its_baseline_is_shown_how_that_was_measured(self, tmp_path) -> None:
        reason = "threads 2 here, 1 in the baseline"
        records = [
            make_record("net", "int8", verdict=Status.INCOMPARABLE, reason=reason),
            make_record("net", "int4", verdict=Status.INCOMPARABLE, reason=reason),
        ]
        run = write_run(tmp_path, records, threads=2, baselines="/elsewhere")
        assert section(report_of(run), self.TITLE).strip().split("\n\n") == [
            f"- INCOMPARABLE net-int8, net-int4: {reason}",
            "How their baselines were measured; measured alike, these pairs are compared:",
            "`pytest-vq baselines show net --device=cpu-a --baselines=/elsewhere`",
            "Or a baseline of its own for what was measured here:",
            "`pytest --vq-models=net --vq-precisions=int8,int4 --vq-threads=2 --vq-save --vq-baselines=/elsewhere`",
        ]
        one = section(report_of(write_run(tmp_path / "one", records[:1])), self.TITLE)
        assert "`pytest-vq baselines show net --device=cpu-a --precision=int8`" in one

    def test_a_run_without_a_gate_says_so(self, tmp_path) -> None:
        text = section(report_of(write_run(tmp_path, of_models("net"))), self.TITLE)
        assert "this run was not compared with baselines" in text


class TestFacts:
    def test_environment_and_coverage(self, tmp_path) -> None:
        left = {"encoder.a": "its shape does not divide", "encoder.b": "its shape does not divide"}
        record = make_record("net", coverage={"eligible": 48, "quantized": 46, "left": left})
        report = report_of(write_run(tmp_path, [record]))
        facts = dict(table_rows(section(report, "Environment")))
        assert facts["device"] == "A CPU"
        assert facts["torch"] == "2.13.0"
        assert facts["commit"] == "abc"
        assert facts["protocol"] == "adaptive"
        assert facts["threads"] == "1"
        assert table_rows(section(report, "Coverage")) == [
            [
                "net-int8",
                "a method, bf16 rest",
                "46 of 48",
                "2 layers, its shape does not divide: encoder.a, encoder.b",
            ]
        ]

    def test_disturbances_and_notes(self, tmp_path) -> None:
        record = make_record("net", disturbance="the CPU throttled", note="its FP32 took two paces")
        text = section(report_of(write_run(tmp_path, [record])), "Disturbances and notes").strip()
        assert text.splitlines() == ["- net-int8: the CPU throttled", "- net-int8: its FP32 took two paces"]

    def test_what_random_weights_do_not_tell(self, tmp_path) -> None:
        trained = replace(make_setup(), weights="pretrained")
        random, pretrained = (
            report_of(write_run(tmp_path / str(n), [r]))
            for n, r in enumerate((make_record("net"), make_record("net", weights="pretrained", setup=trained)))
        )
        assert "Weights are random" in random
        assert "Weights are random" not in pretrained


def test_sixty_four_pairs_within_ten_seconds(tmp_path) -> None:
    records = [
        make_record(f"net-{n}", p, verdict=Status.PASS) for n in range(16) for p in ("fp32", "fp16", "int8", "int4")
    ]
    run = write_run(tmp_path, records)
    start = time.process_time()
    assert main(["report", str(run)]) == 0
    assert time.process_time() - start < 10
    assert (run / "report" / "report.html").stat().st_size < 2_000_000
