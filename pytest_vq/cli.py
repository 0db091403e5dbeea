"""The console script ``pytest-vq``: works on results and baselines, and runs suites against each other.

It imports no torch itself. A command is one function from its arguments to the text it prints, and the exit code where
that is not 0; they are listed in ``COMMANDS``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from pytest_vq import __version__, ab, cli_baselines, selftest
from pytest_vq.errors import VqError
from pytest_vq.report.text import table

Run = Callable[[argparse.Namespace], str | tuple[str, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code, 1 after an error of ours; argparse exits with 2 on wrong usage."""
    args = _parser().parse_args(argv)
    try:
        result = args.run(args)
    except VqError as error:
        print(f"pytest-vq: error: {error}", file=sys.stderr)
        return 1
    text, code = result if isinstance(result, tuple) else (result, 0)
    print(text)
    return int(code)


def list_models(_: argparse.Namespace) -> str:
    """``models``: the catalog, as a table."""
    from pytest_vq.catalog import models

    rows = []
    for spec in models().values():
        millions = "" if spec.parameters is None else f"{spec.parameters / 1e6:.1f} M"
        rows.append([spec.name, spec.category, millions, "x".join(map(str, spec.input_shape)), spec.checkpoint or ""])
    return table(rows, ["model", "category", "parameters", "input", "checkpoint"])


# Name (of two words: a command of a group), help, what it takes or None, and the function that runs it.
COMMANDS: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None] | None, Run], ...] = (
    ("models", "list the catalog", None, list_models),
    ("baselines list", "list what is stored", cli_baselines.baselines_option, cli_baselines.list_baselines),
    (
        "baselines show",
        "show a model's processes and anchor",
        cli_baselines.show_arguments,
        cli_baselines.show_baselines,
    ),
    (
        "baselines accept",
        "make a run's figures the new anchors",
        cli_baselines.accept_arguments,
        cli_baselines.accept_baselines,
    ),
    ("selftest", "does the gate hold on this machine?", selftest.add_arguments, selftest.run_selftest),
    ("ab", "compare two environments in alternating fresh processes", ab.add_arguments, ab.run_ab),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("pytest-vq", description="Works on the saved results and baselines of pytest-vq.")
    parser.add_argument("--version", action="version", version=f"pytest-vq {__version__}")
    levels = {"": parser.add_subparsers(required=True, metavar="COMMAND")}
    for name, description, arguments, run in COMMANDS:
        group, _, last = name.rpartition(" ")
        if group not in levels:
            levels[group] = levels[""].add_parser(group).add_subparsers(required=True, metavar="COMMAND")
        child = levels[group].add_parser(last, help=description, description=description)
        if arguments:
            arguments(child)
        child.set_defaults(run=run)
    return parser
