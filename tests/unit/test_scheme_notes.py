"""``int4`` is NF4: whatever shows people that name says so, and nothing says so where it is not shown."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from factories import make_outcome, make_record
from page_reader import read_page

from pytest_vq.cli.main import main
from pytest_vq.report.job_summary import job_summary
from pytest_vq.report.table import records_table
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter

NOTE = "int4 is NF4"


def written(directory: Path, *precisions: str) -> Path:
    writer = ResultsWriter(directory, {})
    for precision in precisions:
        writer.add(make_outcome(make_record("net", precision, verdict=Status.FAIL, reason="slower")))
    writer.close()
    assert main(["report", str(directory)]) == 0
    return directory


def shown(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Everything that people read of a run, by what it is."""
    results, folder = read_results(run), run / "report"
    printed = {}
    for command in (["recommend", str(run)], ["compare", str(run), str(run)]):
        capsys.readouterr()
        assert main(command) == 0
        printed[command[0]] = capsys.readouterr().out
    pictures = {path.stem: "".join(ElementTree.parse(path).getroot().itertext()) for path in folder.rglob("*.svg")}
    return {
        "page": read_page((folder / "report.html").read_bytes()).text,
        "report": (folder / "report.md").read_text(),
        "comment": (folder / "comment.md").read_text(),
        "summary": job_summary(results) or "",
        "terminal": records_table(results.records),
        **printed,
        **pictures,
    }


def test_whatever_shows_int4_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(written(tmp_path, "fp32", "int4"), capsys)
    assert len(found) == 10
    assert [name for name, text in found.items() if "int4" in text and NOTE not in text] == []
    assert all("int4" in text for text in found.values())


def test_nothing_else_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(written(tmp_path, "fp32", "int8"), capsys)
    assert [name for name, text in found.items() if "NF4" in text] == []
