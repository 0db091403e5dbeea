"""Everything that a report consists of, by name, before any of it is written. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_vq.errors import ResultsError
from pytest_vq.report.chart_data import ordered_pairs
from pytest_vq.report.charts import FIGURES
from pytest_vq.report.comment import COMMENT, comment
from pytest_vq.report.drawing import draw_png, draw_svg, require_drawing
from pytest_vq.report.page.page_render import render_page
from pytest_vq.report.study_report import FIGURES_FOLDER, study_report
from pytest_vq.schema.side import Side
from pytest_vq.store.saved_run import SavedRun

REPORT = "report.md"
PAGE = "report.html"


def report_files(run: SavedRun, history: Sequence[Side] = ()) -> dict[str, bytes]:
    """The files of the report of ``run``, by their path in its folder; ``history`` holds earlier runs and baselines.

    Raises MissingExtraError where the libraries for it are not installed, and ResultsError where nothing was measured.
    """
    require_drawing()
    results = run.results
    if not results.rows:
        raise ResultsError(f"{run.file} holds nothing that was measured: there is nothing to report")
    # A run of callables alone has no pair to draw.
    drawn = FIGURES if ordered_pairs(results.records) else {}
    figures = {name: draw_svg(chart(results.records)) for name, chart in drawn.items()}
    files = {
        REPORT: study_report(results, run.explained),
        PAGE: render_page(results, run.samples, history, run.explained, figures),
        COMMENT: comment(results).encode(),
    }
    for name, svg in figures.items():
        files[f"{FIGURES_FOLDER}/{name}.svg"] = svg
        files[f"{FIGURES_FOLDER}/{name}.png"] = draw_png(svg)
    return files
