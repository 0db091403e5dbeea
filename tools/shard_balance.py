"""How evenly ``--vq-shard`` shares the study and the default suite, by the committed durations of a kind of device.

Run: ``python tools/shard_balance.py [cpu|cuda] [baselines]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_vq.catalog.models import select_models
from pytest_vq.processes.shards import cut, expected_seconds
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.durations import read_durations

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "fp16", "int8", "int4")


def main(device: str = "cpu", baselines: Path = ROOT / "baselines") -> None:
    """Print a line for each selection and number of shards."""
    known = read_durations(baselines).get(device, {})
    print("selection  shards   pairs of each                 longest  an even share  cut by count alone")
    for models in ("study", "default"):
        specs = select_models(models, accelerator=device == "cuda")
        cases = [CaseId(spec.name, precision, 1) for spec in specs for precision in PRECISIONS]
        seconds = expected_seconds(cases, known)
        for count in (2, 3, 4, 8):
            shards, by_count = cut(seconds, count), cut([1.0] * len(seconds), count)
            longest, otherwise = (max(sum(seconds[i] for i in one) for one in way) for way in (shards, by_count))
            sizes = ", ".join(str(len(one)) for one in shards)
            even = sum(seconds) / count
            print(f"{models:9}  {count:6}   {sizes:28} {longest:7.1f} s {even:12.1f} s {otherwise:17.1f} s")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0] if given else "cpu", Path(given[1]) if len(given) > 1 else ROOT / "baselines")
