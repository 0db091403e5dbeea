"""One number everywhere: page, Markdown, comment, summary, CSV and JUnit of one run say what its study.json says."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

import pytest
from factories import ENVIRONMENT, MIB, make_callable_record, make_outcome, make_record, make_samples
from one_number import (
    Grid,
    agrees,
    assert_exact,
    facts_of_html,
    id_of,
    prose_of_html,
    prose_of_markdown,
    rows_of_study,
    scheme_of,
    strings_in,
    table_of_html,
    tables_of_markdown,
    walk_categories,
    walk_keys,
    walk_pairs,
    walk_prose,
)
from page_reader import read_page

from pytest_vq.cli.main import main
from pytest_vq.plugin.ci import properties_of
from pytest_vq.report.job_summary import job_summary
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import COLUMNS, Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter

GPU = replace(ENVIRONMENT, device="cuda", device_name="A GPU", device_slug="a-gpu", versions={"torch": "2.13.0"})
SCHEMES = (("fp32", "eager"), ("fp16", "eager"), ("int8", "eager"), ("int4", "eager"), ("int8", "compile"))
# What every report says, whatever the run: no figure of it.
CONSTANT = (
    "95 % interval",
    "1.1 times",
    "above 1x",
    "above 1 is faster",
    "neutral at 1",
    "4-bit NormalFloat",
    "at most 200 quantiles",
)


@dataclass(frozen=True)
class Run:
    """One run, and everything that people read of it."""

    directory: Path
    study: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.study["records"])

    def read(self, name: str) -> str:
        return (self.directory / "report" / name).read_text()

    def markdown(self, name: str) -> tuple[list[Grid], list[str]]:
        text = html.unescape(self.read(name))
        return tables_of_markdown(text), prose_of_markdown(re.sub(r"<[^>]*>", " ", text))

    @property
    def known(self) -> list[str]:
        """What prose may quote: texts of the study, and numbers of its rows, each with what it is the number of."""
        texts = [*strings_in(self.study), *map(id_of, self.rows)]
        layers = [layer for row in self.rows for layer in row["coverage"]["left"]]
        return [*CONSTANT, *texts, *layers, *self.counts(Counter(row["verdict"] for row in self.rows))]

    def counts(self, verdicts: Counter[str]) -> list[str]:
        total, failures = len(self.rows) - 1, len(self.study["failures"])  # one is a callable
        uncompared = verdicts["NO_BASELINE"]
        bound = sum(bool(row["launch_bound"]) for row in self.rows)
        unknown = sum(row["launch_bound"] is None for row in self.rows)
        notes = sum(row["note"] is not None for row in self.rows)
        compared = f"{total - uncompared} compared pairs and 1 compared callable"
        headline = f"{verdicts['FAIL']} of {compared} FAIL; "
        return [
            f"{headline}{uncompared} were not compared: no baseline.",
            *(f"{number} {verdict}" for verdict, number in verdicts.items()),
            *(f"Why {number} {'is' if number == 1 else 'are'} {verdict}" for verdict, number in verdicts.items()),
            f"{failures} not measured",
            f"{total} pairs and 1 callable",
            f"{bound} of {total} pairs and 1 callable took more than",
            f"The device time of {unknown} pairs is not known",
            f"Notes on {notes} of the rows",
            *(f"batch {row['batch']}" for row in self.rows),
        ]


def records() -> list[Record]:
    """Pairs whose figures need rounding, of every size; every verdict has another number of them."""
    statuses = [Status.FAIL] * 2 + [Status.INCONCLUSIVE] * 3 + [Status.NO_BASELINE] * 4 + [Status.PASS] * 6
    made = []
    for number, (model, (precision, execution)) in enumerate((m, s) for m in ("a", "b", "c") for s in SCHEMES):
        scale = 1.37 ** (3 * (number % 7)) * (1 + 0.21 * number)
        figures: dict[str, Any] = {
            "latency_ms": 0.123456 * scale,
            "latency_low_ms": 0.1198765 * scale,
            "latency_high_ms": 0.1298765 * scale,
            "throughput_ips": 1234.5678 / scale,
            "peak_memory_bytes": round(9876543 * scale),
            "model_size_bytes": round(543212 * scale),
            "parameters": 1_000_000 * (1 + ord("c") - ord(model)),
            "device_time_ms": 0.0987654 * scale if number % 3 else None,
            "launch_bound": number % 4 == 0 if number % 3 else None,
            "samples": 4 + number % 2,
        }
        if (precision, execution) != ("fp32", "eager"):
            figures |= {"speedup": 1 / scale, "speedup_low": 0.97 / scale, "speedup_high": 1.04 / scale}
            figures |= {"memory_reduction": 0.2512345 - 0.03 * number, "sqnr_db": 58.6543 / (1 + number)}
            figures |= {"device_speedup": 1.23456 * scale}
        if model == "a":
            figures |= {"accuracy": 0.95737 - 0.001 * number, "labelled_images": 1000, "energy_per_image_mj": 7.6543}
        if execution == "compile":
            figures |= {"prepare_s": 12.3456 * scale, "prepare_cache": "cold", "graphs": 1 + number, "recompiles": 2}
            figures |= {"graph_breaks": 3 + number, "graph_pool_bytes": 7 * MIB + number}
        if number == 7:
            figures |= dict.fromkeys(("speedup", "speedup_low", "speedup_high", "peak_memory_bytes"))
            figures |= {"memory_reduction": None, "note": "its FP32 took two paces"}
        left = {f"layer.{n}": "its shape does not divide by 16" for n in range(number % 3)}
        coverage = {"eligible": 48, "quantized": 48 - len(left) if precision.startswith("int") else 0, "left": left}
        status = statuses[number]
        reason = f"latency 10.0 ms → {10 + number} ms" if status is Status.FAIL else f"for reason {number % 2}"
        made.append(
            make_record(
                f"net-{model}",
                precision,
                execution=execution,
                category="edge" if model == "b" else "production",
                verdict=status,
                reason="" if status is Status.PASS else reason,
                coverage=coverage,
                **figures,
            )
        )
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("run")
    writer = ResultsWriter(directory, {"runs": 1})
    for record in records():
        times = [record.timing.latency_ms * (1 + n / 9) for n in range(record.timing.samples)]
        writer.add(make_outcome(record, GPU, samples=(make_samples(times),)))
    figures = {"latency_ms": 3.21987, "latency_low_ms": 3.1876, "latency_high_ms": 3.34567, "latency_p95_ms": 4.56789}
    code = make_callable_record(verdict=Status.PASS, device_time_ms=2.98765, launch_bound=False, samples=4, **figures)
    writer.add(make_outcome(code, GPU))
    writer.fail(Failure("net-d-int8", "BuildError", "no module named net_d", "net-d"))
    writer.close()
    assert main(["report", str(directory)]) == 0
    summary = job_summary(read_results(directory))
    assert summary is not None
    (directory / "report" / "summary.md").write_text(summary)
    return Run(directory, json.loads((directory / "study.json").read_text()))


def test_the_table_has_every_figure_to_the_last_digit(run: Run) -> None:
    with (run.directory / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(run.rows)
    for told, row in zip(rows, run.rows, strict=True):
        assert_exact({name: text for name, text in told.items() if text}, {name: row[name] for name in COLUMNS})


def test_junit_has_every_figure_to_the_last_digit(run: Run) -> None:
    for record, row in zip(read_results(run.directory).records, run.rows, strict=True):
        told = {name.removeprefix("vq."): str(value) for name, value in properties_of(record)}
        assert_exact(told, {name: row[name] for name in COLUMNS})


def test_the_page(run: Run) -> None:
    document = read_page(run.read("report.html").encode())
    results, *others = document.all("table")
    grid = table_of_html(results)
    assert len(grid.rows) == len(run.rows)
    assert walk_pairs(grid, run.rows) > 180
    assert walk_keys(results, run.rows) > 150
    strips = 0
    for section in [e for e in document.all("section") if e.attributes.get("class") == "model"]:
        title, _, axis = section.all("h3")[0].text.partition(": ")
        grid = table_of_html(section.all("table")[0])
        strips += walk_pairs(Grid(("model", *grid.titles), tuple((title, *row) for row in grid.rows)), run.rows)
        ends = re.fullmatch(r"log axis from ([\d.]+) to ([\d.]+) ms", axis)
        assert ends is not None
        times = sampled(run, title)
        assert agrees(ends[1], min(times)), axis
        assert agrees(ends[2], max(times)), axis
    assert (len(others), strips) == (4, 2 * len(run.rows))
    walk_environment(run, facts_of_html(document))
    prose = [text for text in prose_of_html(document) if "log axis from" not in text]
    assert_said(run, walk_prose(prose, run.known), "FAIL", "INCONCLUSIVE", "NO_BASELINE", "PASS")


def walk_environment(run: Run, facts: dict[str, str]) -> None:
    assert facts.pop("threads") == str(run.rows[0]["setup"]["threads"])
    assert facts.pop("processes") == str(len(run.study["environments"]))
    walk_prose(facts.values(), run.known)


def sampled(run: Run, model: str) -> list[float]:
    """Every stored time of a request of ``model``."""
    lines = map(json.loads, (run.directory / "samples.jsonl").read_text().splitlines())
    blocks = [block for line in lines if line["model"] == model for block in line["samples"]["subject"]["blocks_ms"]]
    return [ms for block in blocks for ms in block]


def test_the_report(run: Run) -> None:
    grids, prose = run.markdown("report.md")
    by_title = {grid.titles[0] + ", " + grid.titles[1]: grid for grid in grids}
    assert set(by_title) == {
        "category, scheme",
        "model, scheme",
        "pair, prepared in",
        "pair, median latency",
        "what, value",
        "pair, method",
        "callable, what ran",
    }
    walk_environment(run, dict(by_title.pop("what, value").rows))
    assert walk_categories(by_title.pop("category, scheme"), run.rows) > 30
    assert len(by_title["model, scheme"].rows) == len(run.rows) - 1
    walked = {title: walk_pairs(grid, run.rows) for title, grid in by_title.items()}
    assert walked["model, scheme"] > 120
    assert walked["pair, prepared in"] == 15
    assert walked["callable, what ran"] == 6
    assert walked["pair, median latency"] == 8
    layers = [f"{row['eligible_layers'] - row['quantized_layers']} layer" for row in run.rows if row["eligible_layers"]]
    left = [row[3] for row in by_title["pair, method"].rows]
    walk_prose(left, [*run.known, *layers])
    assert_said(run, walk_prose(prose, run.known), "FAIL", "INCONCLUSIVE", "NO_BASELINE", "PASS")


def test_who_is_best_is_the_same_everywhere(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(run.directory), "--format", "markdown"]) == 0
    grids = (
        *tables_of_markdown(html.unescape(capsys.readouterr().out)),
        table_of_html(read_page(run.read("report.html").encode()).all("table")[0]),
        *run.markdown("report.md")[0],
    )
    recommended, page, report = (
        {id_of(row): cells["Pareto"] for cells, row in rows_of_study(grid, run.rows)}
        for grid in grids
        if "Pareto" in grid.titles
    )
    assert page.pop("tests/test_ops.py::test_matmul[64]") == ""
    assert recommended == page == report
    assert {told.split(" ")[0] for told in page.values()} == {"best", "behind", "not"}


@pytest.mark.parametrize(("name", "tables"), [("comment.md", 3), ("summary.md", 4)])
def test_the_comment_and_the_summary(run: Run, name: str, tables: int) -> None:
    grids, prose = run.markdown(name)
    assert len(grids) == tables
    *pairs, failures = [g for g in grids if "error" not in g.titles] + [g for g in grids if "error" in g.titles]
    shown = sum(len(grid.rows) for grid in pairs)
    assert sum(walk_pairs(grid, run.rows) for grid in pairs) > 2 * shown
    assert shown == (5 if name == "comment.md" else len(run.rows))
    assert failures.rows == (("net-d-int8", "BuildError", "no module named net_d"),)
    assert_said(run, walk_prose(prose, run.known), "FAIL", "INCONCLUSIVE", "NO_BASELINE", "PASS")


def assert_said(run: Run, said: set[str], *verdicts: str) -> None:
    """That many pairs have each verdict, and the text says so."""
    found = Counter(row["verdict"] for row in run.rows)
    assert {f"{found[verdict]} {verdict}" for verdict in verdicts} <= said


def test_figures_in_pictures(run: Run) -> None:
    others = [row for row in run.rows if scheme_of(row) != "fp32" and row["speedup"] is not None]
    assert_shown(run, "speedup_heatmap", [row["speedup"] for row in others])
    by_scheme: dict[str, list[float]] = {}
    for row in others:
        by_scheme.setdefault(scheme_of(row), []).append(row["speedup"])
    means = [math.exp(fmean(map(math.log, speedups))) for speedups in by_scheme.values()]
    assert_shown(run, "performance_analysis", means)


def assert_shown(run: Run, name: str, speedups: Sequence[float]) -> None:
    """The speedups in a picture are these."""
    texts = ElementTree.parse(run.directory / "report" / "figures" / f"{name}.svg").getroot().itertext()
    shown = [found[1] for text in texts if (found := re.fullmatch(r"([\d.,]+)x( \*)?", text.strip()))]
    for text, value in zip(sorted(shown, key=float), sorted(speedups), strict=True):
        assert agrees(text, value)
