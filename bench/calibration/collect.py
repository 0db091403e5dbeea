"""Keep fresh processes that measured unchanged code, for the replays.

``python -m bench.calibration.collect OUT.jsonl RESULTS...``: each process of each run (an output directory of pytest,
such as one of ``--vq-runs 20``, or a selftest's ``baseline-*`` and ``unchanged-*``), one a line, in the order they ran.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pytest_vq.schema.estimates import Estimates
from pytest_vq.store.results import read_results


@dataclass(frozen=True, slots=True)
class Line:
    """One process: its estimates by workload, ``model/precision``."""

    condition: str
    threads: int | None
    estimates: dict[str, Estimates]

    @property
    def date_utc(self) -> str:
        """When its first pair was measured."""
        return min(e.date_utc for e in self.estimates.values())


def processes_of(run: Path, condition: str) -> list[Line]:
    """The processes of one run."""
    rows = read_results(run).rows
    count = min(len(row.estimates) for row in rows)  # a suspect has more than the others
    return [
        Line(
            condition,
            rows[0].record.setup.threads,
            {
                f"{row.record.identity.model}/{row.record.setup.scheme}": _anonymous(row.estimates[number])
                for row in rows
            },
        )
        for number in range(count)
    ]


def _anonymous(estimates: Estimates) -> Estimates:
    versions = {name: version for name, version in estimates.versions.items() if name != "kernel"}
    return replace(estimates, device_uuid="recorded", versions=versions, commit=None)


def collect(runs: Sequence[Path], condition: str) -> list[Line]:
    """All processes of ``runs``, oldest first."""
    lines = [line for run in runs for line in processes_of(run, condition)]
    return sorted(lines, key=lambda line: line.date_utc)


def main() -> None:
    """Append the processes to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--condition", default="shared", help="a word for the state of the machine; default shared")
    arguments = parser.parse_args()
    with arguments.out.open("ab") as file:
        for line in collect(arguments.results, arguments.condition):
            file.write(msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    main()
