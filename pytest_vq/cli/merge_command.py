"""``pytest-vq merge``: the shards of a run into one run, and the verdict that one run would have had."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pytest_vq.report.escaping import plain
from pytest_vq.report.hollow_green import hollow_error, is_compared
from pytest_vq.report.report_callables import setups_in_words
from pytest_vq.report.table import reasons, records_table
from pytest_vq.schema.verdict import fails
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.merge import Merge, merge_runs
from pytest_vq.store.results import STUDY, read_results
from pytest_vq.wording import count

_TABLE_ROWS = 300  # a larger table is nothing to read in a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``merge`` takes."""
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="each shard's --vq-output")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="where to write the merged run")
    parser.add_argument(
        "--baselines",
        metavar="DIR",
        type=Path,
        default=Path("baselines"),
        help="those that the shards were compared with; default baselines/",
    )


def run_merge(args: argparse.Namespace) -> tuple[str, int]:
    """Merge the runs, and return what one run would print at its end, and 1 where that would have failed."""
    merge = merge_runs(args.results, args.output)
    _merge_processes(merge, args.output)
    errors = [*_errors(merge, args.baselines)]
    lines = [*_rows(merge, args.output), *errors, f"results: {args.output}"]
    return "\n".join(plain(line) for text in lines for line in text.split("\n")), int(bool(errors))


def _merge_processes(merge: Merge, output: Path) -> None:
    """Merge what the other fresh processes of ``--vq-runs`` left as well, each beside the runs as they have it."""
    for number in range(2, int(merge.options.get("runs", 1)) + 1):
        folders = [part.directory / f"run-{number}" for part in merge.parts]
        present = [folder for folder in folders if (folder / STUDY).is_file()]  # an empty shard has none
        if present:
            merge_runs(present, output / f"run-{number}")


def _rows(merge: Merge, output: Path) -> Iterator[str]:
    if merge.environments:
        first = merge.environments[0]
        yield f"{first.device_name}, torch {first.versions.get('torch')}: {count(len(merge.parts), 'run')} merged"
    if 0 < len(merge.rows) <= _TABLE_ROWS:
        records = read_results(output).records
        yield records_table(records)
        yield from (line for line, _ in reasons(records))
    elif merge.rows:
        yield f"{len(merge.rows)} rows: pytest-vq report {output} shows them"
    verdicts = Counter(str(row.verdict) for row in merge.rows if row.verdict is not None)
    if verdicts:
        yield ", ".join(f"{number} {status}" for status, number in verdicts.most_common())


def _errors(merge: Merge, baselines: Path) -> Iterator[str]:
    """Why one run would have failed, a line each."""
    for failure in merge.failures:
        yield f"ERROR {failure.id}: {failure.error}: {failure.message}"
    for gap in merge.gaps:
        yield f"ERROR: {gap}: this run is not complete"
    if merge.options.get("gate") != "fail":
        return
    strict, saves = bool(merge.options.get("strict")), bool(merge.options.get("save"))
    failed = [row for row in merge.rows if fails(row.verdict, strict=strict, saves=saves)]
    if failed:
        yield f"ERROR: {count(len(failed), 'row')} failed the gate: {', '.join(row.id for row in failed)}"
    if not saves and not any(is_compared(row.verdict) for row in merge.rows):
        store = BaselineStore(baselines)
        words = setups_in_words([row.setup for row in merge.rows]) if merge.rows else "nothing"
        hollow = hollow_error(words, merge.environments, store.root, store.has_baselines)
        yield from [hollow] if hollow else []
