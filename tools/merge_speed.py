"""How long ``pytest-vq merge`` takes: 100 shards of 1,000 rows each, unless told otherwise.

The shards are made up, in the formats and of the sizes that runs leave: figures of one process and 90 samples a row.
The command runs in a process of its own, once for each repeat, into a new directory each time.

Run: ``python tools/merge_speed.py [shards] [rows] [repeats]``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from pytest_vq.options import Options
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import COLUMNS, Environment, PairSamples, Record, Samples
from pytest_vq.schema.shard import Selection, Shard
from pytest_vq.store.results import Results, Row
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.samples import SAMPLES, SamplesLine, encode_samples
from pytest_vq.store.selection_file import write_selection

MERGE = "from pytest_vq.cli.main import main; raise SystemExit(main())"
SCHEMES = ("fp32", "fp16", "int8", "int4")
LIBRARIES = (
    "bitsandbytes",
    "cuda",
    "cudnn",
    "driver",
    "kernel",
    "numpy",
    "pytest-vq",
    "python",
    "torch",
    "transformers",
)
ENVIRONMENT = Environment(
    device="cuda",
    device_name="A card",
    device_slug="a-card",
    device_uuid="GPU-00000000-0000-0000-0000-000000000000",
    versions=dict.fromkeys(LIBRARIES, "1.2.3"),
    settings={"power_limit_mw": "700000", "max_sm_clock_mhz": "1980", "persistence_mode": "1"},
    commit="0123456789ab",
    date_utc="2026-01-01T00:00:00Z",
)


def made_up(number: int) -> Record:
    """The ``number``-th pair of the selection, measured."""
    precision = SCHEMES[number % len(SCHEMES)]
    row = dict.fromkeys(COLUMNS) | {
        "model": f"model-{number // len(SCHEMES):05}",
        "category": "classification",
        "architecture": "ViTForImageClassification",
        "parameters": 86_567_656,
        "precision": precision,
        "method": "bitsandbytes LLM.int8, fp16 rest",
        "device": ENVIRONMENT.device_name,
        "batch": 1,
        "weights": "random",
        "execution": "eager",
        "stop_reason": "interval",
        "samples": 90,
        "launch_bound": False,
        "verdict": "PASS",
        "reason": "",
        "device_time_method": "blocked queue",
        "setup": {
            "precision": precision,
            "batch": 1,
            "protocol": "adaptive",
            "weights": "random",
            "threads": None,
            "tf32": False,
        },
        "coverage": {"eligible": 48, "quantized": 48},
        "telemetry": {"before": {"sm_clock_mhz": 1980, "load": 0.31}, "after": {"sm_clock_mhz": 1980, "load": 0.32}},
    }
    for place, column in enumerate(COLUMNS):
        if row[column] is None and column.endswith(
            ("_ms", "_mj", "_mw", "_s", "_low", "_high", "speedup", "_cv", "_ips")
        ):
            row[column] = 1.0 + (number * 37 + place) % 1009 / 1009
        elif row[column] is None and column.endswith("_bytes"):
            row[column] = 300_000_000 + number
    figures = {"cosine": 0.99987, "sqnr_db": 32.1234567, "memory_reduction": 0.5123, "sm_clock_mhz": 1980.0}
    return Record.from_row(row | figures)


def write_shard(directory: Path, shard: Shard, records: list[Record], selection: Selection) -> None:
    """Leave in ``directory`` what a run of ``shard`` leaves that measured ``records``."""
    directory.mkdir(parents=True)
    times = Samples(tuple((1.234567 + block / 1000,) for block in range(30)), "interval", 10)
    samples = PairSamples(ENVIRONMENT.date_utc, times, times, times)
    cases = [record.case_id for record in records]
    lines = [SamplesLine(case.model, case.scheme, case.batch, samples) for case in cases]
    (directory / SAMPLES).write_bytes(encode_samples(lines))
    environment = replace(ENVIRONMENT, device_uuid=f"GPU-{shard.number:08}-0000-0000-0000-000000000000")
    rows = tuple(Row(record, environment, (Estimates.of(record, environment),)) for record in records)
    options = replace(Options(), shard=shard, output=directory).to_json()
    date = ENVIRONMENT.date_utc
    results = Results(options, (environment,), rows, (), date, date, complete=False)
    ResultsWriter(directory, options, results).close()
    write_selection(directory, selection)


def main(shards: int = 100, rows: int = 1000, repeats: int = 3) -> None:
    """Make the shards, merge them, and print the times."""
    with tempfile.TemporaryDirectory(prefix="merge-speed-") as name:
        root = Path(name)
        records = [made_up(number) for number in range(shards * rows)]
        ids = [record.id for record in records]
        for number in range(shards):
            shard, here = Shard(number + 1, shards), range(number * rows, (number + 1) * rows)
            part, selection = records[here.start : here.stop], Selection.of(shard, ids, here)
            write_shard(root / f"shard-{number + 1}", shard, part, selection)
        size_mb = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e6
        print(f"{shards} shards of {rows} rows, {size_mb:.0f} MB")
        directories = [str(root / f"shard-{number + 1}") for number in range(shards)]
        wall_s, cpu_s = [], []
        for repeat in range(repeats):
            command = [sys.executable, "-c", MERGE, "merge", *directories, f"--output={root}/merged-{repeat}"]
            started, before = time.perf_counter(), _cpu_of_children_s()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall_s.append(time.perf_counter() - started)
            cpu_s.append(_cpu_of_children_s() - before)
        print(f"merged in {median(wall_s):.2f} s ({', '.join(f'{one:.2f}' for one in wall_s)})")
        print(f"of which its process computed for {median(cpu_s):.2f} s; it waits for disks, and for other processes")


def _cpu_of_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
