"""The published study that this project reproduces: its table, where it comes from, and what is wrong with it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import MappingProxyType

from pytest_vq.catalog.models import all_models
from pytest_vq.schema.side import Side, SideKind, SidePair
from pytest_vq.schema.spec import FP32, CaseId

STUDY_NAME = "study"
TABLE_FILE = Path(__file__).parent / "data" / "published_study.csv"
SCHEMES = (FP32, "fp16", "int8", "int4")
_NOT_MEASURED = "int4"
_MIB = 2**20

FACTS = MappingProxyType(
    {
        "device": "RTX 4070 Ti SUPER, 16 GB",
        "torch": "2.1",
        "bitsandbytes": "0.42",
        "cuda": "12.1",
        "protocol": "study (100 warm-up + 1,000 timed)",
        "batch": "1",
    }
)
FAULTS = (
    "its INT4 rows carry the INT8 method and the INT8 size: INT4 was not measured",
    "its accuracy is 0.85 in every row, a constant: accuracy was not measured",
    'its "peak memory" is memory at rest after a forward: the weights and a workspace of about 8 MiB; its MB are MiB',
    "its speedups are ratios of two runs, minutes apart: they have no interval, and neither have its times",
    "many of its models of 86M parameters or fewer took about 3.8 ms in FP32 and FP16 alike: launches set that time",
    "it does not say whether TF32 was on: its FP32 may have computed in TF32",
)


def read_published_table() -> list[dict[str, str]]:
    """The rows of the study's table as published, INT4 included: ``model``, ``fp32_ms``, ``int8_mib`` and so on."""
    with TABLE_FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_study(label: str = "A") -> Side:
    """The study as a side of a comparison: what it did not measure has no figure, whatever its table says."""
    pairs = [_pair(row, scheme) for row in read_published_table() for scheme in SCHEMES]
    return Side(label, STUDY_NAME, SideKind.STUDY, FACTS, tuple(pairs), faults=FAULTS)


def _pair(row: dict[str, str], scheme: str) -> SidePair:
    case_id = CaseId(row["model"], scheme, 1)
    model = all_models().get(case_id.model)
    figures: dict[str, tuple[float, ...]] = {}
    if scheme != _NOT_MEASURED:
        latency_ms = float(row[f"{scheme}_ms"])
        figures["latency_ms"] = (latency_ms,)
        figures["resting_memory_bytes"] = (float(row[f"{scheme}_mib"]) * _MIB,)
        if scheme != FP32:
            figures["speedup"] = (float(row[f"{FP32}_ms"]) / latency_ms,)
    return SidePair(case_id, model.category if model else None, figures)
