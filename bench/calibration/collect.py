"""Keep the unchanged processes of a selftest for the replays.

``python -m bench.calibration.collect vq-selftest OUT.jsonl``: every fresh process that measured unchanged code, for the
baseline or to be compared with it, one a line, in the order they ran.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import msgspec

from pytest_vq.record import Estimates, Record
from pytest_vq.report.results import read_results


def unchanged(selftest: Path) -> list[tuple[Record, Estimates]]:
    """Each process of unchanged code under ``selftest``, its output directory; which machine it was is left out."""
    found = []
    for pattern in ("baseline-*", "unchanged-*"):
        for run in sorted(selftest.glob(pattern), key=lambda path: int(path.name.rpartition("-")[2])):
            for row in read_results(run).rows:
                found += [(row.record, replace(e, device_uuid="recorded", commit=None)) for e in row.estimates]
    return sorted(found, key=lambda pair: pair[1].date_utc)


def main() -> None:
    """Append the processes to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("selftest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--condition", default="shared", help="a word for the state of the machine; default shared")
    arguments = parser.parse_args()
    with arguments.out.open("ab") as file:
        for record, estimates in unchanged(arguments.selftest):
            line = {
                "condition": arguments.condition,
                "threads": record.setup.threads,
                "estimates": {f"{record.model}/{record.precision}": estimates},
            }
            file.write(msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    main()
