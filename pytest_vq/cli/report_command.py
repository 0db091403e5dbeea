"""``pytest-vq report``: the report of a saved run, as Markdown, figures and a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_vq.files import write_together
from pytest_vq.report.drawing import require_drawing
from pytest_vq.store.saved_run import REPORT_FOLDER, read_saved_run
from pytest_vq.store.sides import read_side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``report`` takes."""
    parser.add_argument("results", metavar="RESULTS", type=Path, help="a run's output directory or its study.json")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where to write it; default RESULTS/report")
    parser.add_argument(
        "--history", metavar="DIR", nargs="+", default=[], help="earlier runs and baselines, shown beside this one"
    )


def run_report(args: argparse.Namespace) -> str:
    """Write the report, and return where it is. Nothing is written where anything of it could not be made."""
    require_drawing()
    run = read_saved_run(args.results)
    history = [read_side(name, name) for name in args.history]
    # Its libraries take a second to load, which no other command should wait for.
    from pytest_vq.report.report_files import report_files

    output = args.output or run.file.parent / REPORT_FOLDER
    written = write_together(output, report_files(run, history))
    return "\n".join(str(path) for path in written if path.parent == output)
