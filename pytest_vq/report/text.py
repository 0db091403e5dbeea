"""Plain text tables."""

from __future__ import annotations

from collections.abc import Sequence


def plain_table(rows: Sequence[Sequence[object]], headers: Sequence[str], align: Sequence[str] | None = None) -> str:
    """``rows`` under ``headers``, as they are: numbers are not reformatted. ``align`` is per column."""
    from tabulate import tabulate

    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)


def narrow_table(rows: Sequence[Sequence[str]], headers: Sequence[str], align: Sequence[str]) -> str:
    """The same, no column wider than what stands in it: a header leaves no room beside itself."""
    from tabulate import tabulate

    rules = ["-" * max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return tabulate([headers, rules, *rows], tablefmt="plain", disable_numparse=True, colalign=align)
