"""The ``models`` command: the catalog, as a table."""

from __future__ import annotations

import argparse

from pytest_vq.catalog.models import all_models
from pytest_vq.report.text import plain_table


def list_models(_: argparse.Namespace) -> str:
    """Every model with its category, size and checkpoint."""
    rows = []
    for spec in all_models().values():
        millions = "" if spec.parameters is None else f"{spec.parameters / 1e6:.1f} M"
        shape = "its own" if spec.input_shape is None else "x".join(map(str, spec.input_shape))
        rows.append([spec.name, spec.category, millions, shape, spec.checkpoint or ""])
    return plain_table(rows, ["model", "category", "parameters", "input", "checkpoint"])
