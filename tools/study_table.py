"""The published study's table beside ours: ``python tools/study_table.py vq-results > docs/study-table.md``.

Published figures come from the table in the package (``store.published``), ours from a run's results; a pair that was
not measured is empty.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from pytest_vq.schema.record import Record
from pytest_vq.store.published import read_published_table
from pytest_vq.store.results import Results, read_results

PRECISIONS = ("fp32", "fp16", "int8", "int4")
FASTER = PRECISIONS[1:]  # those that have a speedup
_MIB = 2**20


def main() -> None:
    """Print the document for the results named on the command line."""
    results = read_results(Path(sys.argv[1]))
    records = {(r.identity.model, r.setup.scheme): r for r in results.records if r.setup.batch == 1}
    sys.stdout.write(document(results, records, read_published_table()))


def document(results: Results, records: Mapping[tuple[str, str], Record], published: list[dict[str, str]]) -> str:
    """The Markdown of both tables, headed by what measured ours."""
    environment = results.environments[0]
    versions = ", ".join(f"{name} {environment.versions[name]}" for name in ("torch", "transformers", "bitsandbytes"))
    times = [[row["model"], *(_time_cells(row, records))] for row in published]
    sizes = [[row["model"], *(_size_cells(row, records))] for row in published]
    time_headers = ["model", *(f"{p} {who}" for p in FASTER for who in ("theirs", "ours"))]
    size_headers = ["model", *(f"{p} {who}" for p in PRECISIONS for who in ("theirs", "ours: size", "ours: peak"))]
    return (
        "# The study's table beside ours\n\n"
        f"Theirs: RTX 4070 Ti SUPER, torch 2.1. Ours: {environment.device_name}, {versions}, "
        f"{environment.date_utc}, weights {records[next(iter(records))].setup.weights}, "
        f"{records[next(iter(records))].setup.threads or 'no'} CPU thread(s); "
        "another machine: only ratios can be compared, and on another kind of processor only their pattern.\n\n"
        "## Speedup over FP32 (theirs: of two runs; ours: paired, with its 95 % interval)\n\n"
        f"{tabulate(times, time_headers, tablefmt='github', disable_numparse=True)}\n\n"
        '## MiB (theirs: "peak"; ours: serialized weights, and the peak of a forward)\n\n'
        f"{tabulate(sizes, size_headers, tablefmt='github', disable_numparse=True)}\n"
    )


def _time_cells(row: Mapping[str, str], records: Mapping[tuple[str, str], Record]) -> list[str]:
    cells = []
    for precision in FASTER:
        record = records.get((row["model"], precision))
        cells += [f"{float(row['fp32_ms']) / float(row[f'{precision}_ms']):.2f}x", _ours(record) if record else ""]
    return cells


def _ours(record: Record) -> str:
    timing = record.timing
    if timing.speedup is None:
        return ""
    interval = "" if timing.speedup_low is None else f" ({timing.speedup_low:.2f}-{timing.speedup_high:.2f})"
    return f"{timing.speedup:.2f}x{interval}"


def _size_cells(row: Mapping[str, str], records: Mapping[tuple[str, str], Record]) -> list[str]:
    cells = []
    for precision in PRECISIONS:
        record = records.get((row["model"], precision))
        # The study printed the INT8 figure in its INT4 rows.
        cells.append(row["int8_mib" if precision == "int4" else f"{precision}_mib"])
        stored, peak = (record.memory.model_size_bytes, record.memory.peak_memory_bytes) if record else (None, None)
        cells.append("" if stored is None else f"{stored / _MIB:.2f}")
        cells.append("" if peak is None else f"{peak / _MIB:.1f}")
    return cells


if __name__ == "__main__":
    main()
