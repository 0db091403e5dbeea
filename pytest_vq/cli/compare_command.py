"""``pytest-vq compare``: runs, baselines and the published study side by side."""

from __future__ import annotations

import argparse

from pytest_vq.report.side_by_side import compare_two
from pytest_vq.report.side_document import blocks_of
from pytest_vq.report.side_json import to_json
from pytest_vq.report.side_tables import to_markdown, to_text
from pytest_vq.store.sides import read_side

FORMATS = ("text", "markdown", "json")
_WHAT = "a run's output directory or its study.json, the baselines of a device, or study: the published one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``compare`` takes."""
    parser.add_argument("a", metavar="A", help=_WHAT)
    parser.add_argument("b", metavar="B", help="another, compared with A")
    parser.add_argument("others", metavar="C", nargs="*", help="more of them, each compared with A")
    parser.add_argument("--only", choices=("regressed",), help="show only the pairs that regressed")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help=f"default {FORMATS[0]}")


def run_compare(args: argparse.Namespace) -> tuple[str, int]:
    """Compare each side with the first, and return the text to print and the exit code: 1 where a pair regressed."""
    named = enumerate((args.a, args.b, *args.others))
    first, *others = [read_side(name, _label(number)) for number, name in named]
    comparisons = [compare_two(first, other) for other in others]
    only_regressed = args.only is not None
    code = int(any(comparison.regressed for comparison in comparisons))
    if args.format == "json":
        return to_json(comparisons, only_regressed=only_regressed), code
    blocks = blocks_of(comparisons, only_regressed=only_regressed)
    return (to_markdown if args.format == "markdown" else to_text)(blocks), code


def _label(number: int) -> str:
    """``A``, ``B`` ... ``Z``, ``A1``, ``B1`` ..."""
    letter = chr(ord("A") + number % 26)
    return letter if number < 26 else f"{letter}{number // 26}"
