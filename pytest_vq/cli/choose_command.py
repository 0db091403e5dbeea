"""``pytest-vq choose``: a precision for each layer of a model, by measuring; written as a recipe."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_vq.errors import MeasurementError
from pytest_vq.options import WEIGHTS
from pytest_vq.processes.child import Child, last_lines, run_to_its_end
from pytest_vq.processes.command import clean_environment, pytest_command, ungated
from pytest_vq.report.choice_text import choice_text
from pytest_vq.schema.choice import ChoiceAnswer, ChoiceRequest
from pytest_vq.schema.recipe import TARGETS, Wish
from pytest_vq.schema.spec import EAGER
from pytest_vq.store.recipes import write_recipe

_PLUGIN = "pytest_vq.plugin.choose_hooks"
_TAIL_LINES = 15
_CPU_BUDGET_S, _GPU_BUDGET_S = 2.0, 1.0
_STDERR = 2
_USAGE = 2  # this script's exit code for wrong usage; pytest's, and how it begins to say so
_PYTEST_USAGE, _REFUSED = 4, "ERROR: "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``choose`` takes."""
    parser.add_argument("model", metavar="MODEL", help="of the catalog, or registered in a conftest.py")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="what pytest collects; default as pytest without any")
    parser.add_argument("--schemes", required=True, metavar="A,B", help="precisions to choose from; FP32 is one too")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--min-sqnr-db", type=float, metavar="N", help="SQNR against FP32, at least")
    budget.add_argument("--min-top1", type=float, metavar="X", help="accuracy over FP32's on labelled images, at least")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0], help=f"what to save; default {TARGETS[0]}")
    parser.add_argument("--execution", default=EAGER, metavar="NAME", help="how it is run, as compile; default eager")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the recipe; default MODEL-TARGET.json")
    parser.add_argument("--rootdir", type=Path, metavar="DIR", help="where pytest collects; default here")
    parser.add_argument("--gpu", action="store_true", help="on the accelerator")
    parser.add_argument("--weights", choices=WEIGHTS, default=WEIGHTS[0], help=f"default {WEIGHTS[0]}")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per request; default 1")
    parser.add_argument("--threads", type=int, metavar="N", help="intra-op threads on the CPU; default as pytest's")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="of timing for each of about ten to thirty builds; default 2"
    )
    parser.set_defaults(usage_error=parser.error)


def run_choose(args: argparse.Namespace) -> tuple[str, int]:
    """Choose in a pytest of its own, write the recipe, and return the text to print and the exit code.

    It is 3 where nothing but FP32 is within the budget: then no recipe is written.
    """
    _check_usage(args)
    request = ChoiceRequest(args.model, _wish(args), "")
    answer = _answer(args, request)
    if answer.choice is None:
        message = answer.error or "the process that chooses gave no reason"
        if answer.code == _USAGE:
            args.usage_error(message)
        raise MeasurementError(message)
    written = None
    if answer.choice.recipe is not None:
        path: Path = args.output or Path(f"{args.model}-{args.target}.json")
        write_recipe(path, answer.choice.recipe)
        written = str(path)
    return choice_text(request, answer.choice, written), answer.code


def _check_usage(args: argparse.Namespace) -> None:
    if args.min_top1 is not None and not 0 < args.min_top1 <= 1:
        args.usage_error("--min-top1: give a fraction such as 0.99")
    if args.min_sqnr_db is not None and not -200 < args.min_sqnr_db < 200:
        args.usage_error("--min-sqnr-db: give decibels, such as 30")
    if args.batch < 1:
        args.usage_error("--batch: a request has at least 1 image")
    if args.budget is not None and not args.budget > 0:
        args.usage_error("--budget: give a positive number of seconds")


def _wish(args: argparse.Namespace) -> Wish:
    return Wish(
        schemes=tuple(filter(None, (name.strip() for name in args.schemes.split(",")))),
        target=args.target,
        min_sqnr_db=args.min_sqnr_db,
        min_top1=args.min_top1,
        execution=args.execution,
        batch=args.batch,
        weights=args.weights,
    )


def _answer(args: argparse.Namespace, request: ChoiceRequest) -> ChoiceAnswer:
    """What the process that chooses answers. Raises ``MeasurementError`` where it ended without an answer."""
    import msgspec

    progress_fd = os.dup(_STDERR)
    try:
        with tempfile.TemporaryDirectory(prefix="pytest-vq-") as directory:
            answer, asked = Path(directory) / "answer.json", Path(directory) / "request.json"
            own = replace(request, answer=str(answer), progress_fd=progress_fd)
            asked.write_bytes(msgspec.json.encode(own))
            child = _child(args, asked, Path(directory) / "run", progress_fd)
            code = run_to_its_end(child)
            if answer.exists():
                return msgspec.json.decode(answer.read_bytes(), type=ChoiceAnswer)
            lines = last_lines(child, _TAIL_LINES)
            refused = [line.removeprefix(_REFUSED) for line in lines if line.startswith(_REFUSED)]
            if code == _PYTEST_USAGE and refused:
                return ChoiceAnswer(error=refused[-1], code=_USAGE)
            tail = "\n".join(lines)
            raise MeasurementError(f"{child.who} ended with exit code {code}, and printed at the end:\n{tail}")
    finally:
        os.close(progress_fd)


def _child(args: argparse.Namespace, asked: Path, output: Path, progress_fd: int) -> Child:
    root = (args.rootdir or Path()).absolute()
    words = [f"--rootdir={root}", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", _PLUGIN]
    # What addopts may ask for: tests elsewhere, where nothing is chosen, and what slows down all that is timed.
    words += ["-n", "0"] if find_spec("xdist") else []
    words += ["--no-cov"] if find_spec("pytest_cov") else []
    default_s = _GPU_BUDGET_S if args.gpu else _CPU_BUDGET_S
    given: dict[str, Any] = {"gpu": args.gpu, "weights": args.weights, "budget": args.budget or default_s}
    given |= {"models": "all", "precisions": "fp32", "batch": (args.batch,)} | ungated(output)
    given |= {} if args.threads is None else {"threads": args.threads}
    command = pytest_command([str(Path(path).absolute()) for path in args.paths], given, arguments=words)
    command.append(f"--vq-choose={asked}")
    return Child("the pytest that chooses", command, root, output, clean_environment(), (progress_fd,))
