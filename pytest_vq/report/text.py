"""Plain text tables."""

from __future__ import annotations

from collections.abc import Sequence


def plain_table(rows: Sequence[Sequence[object]], headers: Sequence[str], align: Sequence[str] | None = None) -> str:
    """``rows`` under ``headers``, as they are: numbers are not reformatted. ``align`` is per column."""
    from tabulate import tabulate

    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)
