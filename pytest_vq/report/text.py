"""Plain text: tables, and the figures in them."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], align: Sequence[str] | None = None) -> str:
    """``rows`` under ``headers``, as they are: numbers are not reformatted. ``align`` is per column."""
    from tabulate import tabulate

    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)


def figure(value: float) -> str:
    """Four digits, and never in powers of ten: ``0.1234``, ``12.34``, ``12345``."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
