"""``pytest-vq recommend``: which pair of a run to deploy."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from pytest_vq.report.deployment_cost import Prices
from pytest_vq.report.limits import Constraint, Quantity
from pytest_vq.report.recommend_document import blocks_of_recommendation
from pytest_vq.report.recommend_json import recommendation_json
from pytest_vq.report.recommendation import Request, recommend
from pytest_vq.report.scenarios import SCENARIOS
from pytest_vq.report.side_tables import to_markdown, to_text
from pytest_vq.store.results import read_results
from pytest_vq.store.samples import read_samples

FORMATS = ("text", "markdown", "json")
NOTHING_QUALIFIES = 3
_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b|b)?", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``recommend`` takes."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a run's output directory or its study.json")
    presets = "; ".join(f"{scenario.name}: {scenario.text}" for scenario in SCENARIOS.values())
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), help=f"limits that have a name. {presets}")
    limits = parser.add_argument_group("limits; one takes the place of the scenario's on the same quantity")
    limits.add_argument("--latency-ms", type=_positive, metavar="X", help="the median latency must be below it")
    limits.add_argument("--p99-ms", type=_positive, metavar="X", help="99 %% of requests must take less")
    limits.add_argument(
        "--memory", type=size_in_bytes, metavar="SIZE", help="peak memory must be below 4GiB, 100MB ..."
    )
    limits.add_argument(
        "--min-top1", type=_fraction, metavar="X", help="accuracy over FP32's on labelled images, at least; 0.99"
    )
    limits.add_argument("--min-sqnr-db", type=_number, metavar="N", help="SQNR against FP32, at least")
    costs = parser.add_argument_group("costs, in any one currency")
    costs.add_argument("--gpu-hour-cost", type=_positive, metavar="C", help="of one instance for an hour")
    costs.add_argument("--load", type=_positive, metavar="QPS", help="images a second, of all instances together")
    costs.add_argument("--migration-cost", type=_not_negative, metavar="C", help="once, from FP32 to another scheme")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help=f"default {FORMATS[0]}")
    parser.set_defaults(usage_error=parser.error)


def run_recommend(args: argparse.Namespace) -> tuple[str, int]:
    """Return the text to print and the exit code: 3 where nothing qualifies."""
    if args.migration_cost is not None and (args.gpu_hour_cost is None or args.load is None):
        args.usage_error("--migration-cost: a payback needs --gpu-hour-cost and --load too")
    results = read_results(args.results)
    samples = read_samples(args.results if args.results.is_dir() else args.results.parent)
    scenario = None if args.scenario is None else SCENARIOS[args.scenario]
    prices = Prices(args.gpu_hour_cost, args.load, args.migration_cost)
    found = recommend(results, samples, Request(scenario, _constraints(args), prices))
    code = 0 if found.qualified else NOTHING_QUALIFIES
    if args.format == "json":
        return recommendation_json(found), code
    blocks = blocks_of_recommendation(found)
    return (to_markdown if args.format == "markdown" else to_text)(blocks), code


def _constraints(args: argparse.Namespace) -> tuple[Constraint, ...]:
    given = (
        (Quantity.LATENCY, args.latency_ms, None),
        (Quantity.PERCENTILE, args.p99_ms, 99.0),
        (Quantity.MEMORY, args.memory, None),
        (Quantity.TOP1, args.min_top1, None),
        (Quantity.SQNR, args.min_sqnr_db, None),
    )
    return tuple(Constraint(quantity, limit, percentile) for quantity, limit, percentile in given if limit is not None)


def size_in_bytes(text: str) -> int:
    """``4GiB`` (1024³), ``100MB`` (1000²) or plain bytes, as bytes. Raises argparse's error of wrong usage."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give bytes, or 4GiB, 512MiB, 100MB")
    number, prefix, binary = match.groups()
    count = float(number) * (1024 if binary else 1000) ** _PREFIXES[(prefix or "").lower()]
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than a byte")
    return int(count)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not finite")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return value


def _fraction(text: str) -> float:
    if not 0 < (value := _positive(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is more than all: give a fraction such as 0.99")
    return value
