"""The console script ``pytest-vq``: works on results and baselines, and runs suites against each other.

It imports no torch itself. A command is one function from its arguments to the text it prints, and the exit code where
that is not 0; they are listed in ``COMMANDS``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

from pytest_vq.cli import (
    ab_command,
    baselines_command,
    choose_command,
    compare_command,
    merge_command,
    models_command,
    recommend_command,
    report_command,
    rollout_command,
    selftest_command,
)
from pytest_vq.errors import VqError

Run = Callable[[argparse.Namespace], str | tuple[str, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code, 1 after an error of ours; argparse exits with 2 on wrong usage."""
    try:
        args = _parser().parse_args(argv)
        try:
            result = args.run(args)
        except VqError as error:
            print(f"pytest-vq: error: {error}", file=sys.stderr)
            return 1
        text, code = result if isinstance(result, tuple) else (result, 0)
        with suppress(BrokenPipeError):
            print(text)
        return int(code)
    finally:
        _flush_output()


def _flush_output() -> None:
    """Write what is buffered, here and not when the interpreter ends, where nobody could catch the error.

    Whoever reads us through a pipe may stop early, as ``head`` does. That is no error of ours or of theirs: the rest
    goes nowhere, and the command's own exit code stands.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Name (of two words: a command of a group), help, what it takes or None, and the function that runs it.
COMMANDS: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None] | None, Run], ...] = (
    ("models", "list the catalog", None, models_command.list_models),
    ("baselines list", "list what is stored", baselines_command.baselines_option, baselines_command.list_baselines),
    (
        "baselines show",
        "show a model's processes and anchor",
        baselines_command.show_arguments,
        baselines_command.show_baselines,
    ),
    (
        "baselines accept",
        "make a run's figures the new anchors",
        baselines_command.accept_arguments,
        baselines_command.accept_baselines,
    ),
    ("selftest", "does the gate hold on this machine?", selftest_command.add_arguments, selftest_command.run_selftest),
    (
        "compare",
        "runs, baselines and the published study side by side",
        compare_command.add_arguments,
        compare_command.run_compare,
    ),
    ("report", "write a run's report", report_command.add_arguments, report_command.run_report),
    ("recommend", "which pair to deploy", recommend_command.add_arguments, recommend_command.run_recommend),
    (
        "choose",
        "choose a precision for each layer, by measuring",
        choose_command.add_arguments,
        choose_command.run_choose,
    ),
    (
        "rollout",
        "replay a rollout's decisions and explain the last",
        rollout_command.add_arguments,
        rollout_command.run_rollout,
    ),
    ("merge", "the shards of a run into one run", merge_command.add_arguments, merge_command.run_merge),
    ("ab", "compare two environments in alternating fresh processes", ab_command.add_arguments, ab_command.run_ab),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("pytest-vq", description="Works on the saved results and baselines of pytest-vq.")
    parser.add_argument("--version", action="version", version=f"pytest-vq {version('pytest-vq')}")
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
