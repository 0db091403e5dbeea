"""A record as a line of ``results.csv``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from pytest_vq.schema.record import COLUMNS, Record

_PLAIN = frozenset({int, float, type(None)})
# A spreadsheet takes a text that starts with one of these for a formula, and runs it. Numbers are none of its texts.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def head_line() -> bytes:
    """The names of the columns."""
    return _line(COLUMNS)


def record_line(record: Record) -> bytes:
    """The cells of ``record``: no figure, no cell; booleans in JSON's spelling; floats to the last digit.

    A text that a spreadsheet would run as a formula has an apostrophe before it, which is how one writes it as a text.
    """
    return _line([_cell(value) for value in record.cells().values()])


def row_lines(rows: Iterable[Sequence[Any]]) -> list[bytes]:
    """The lines of many rows whose cells were read from JSON, each as `record_line` writes it."""
    sink = _Lines()
    # Numbers of JSON are finite, and written as they are: most cells need no look.
    csv.writer(sink, lineterminator="\n").writerows(
        [value if value.__class__ in _PLAIN else _cell(value) for value in row] for row in rows
    )
    return [line.encode() for line in sink]


class _Lines(list[str]):
    """What a CSV writer writes, a row each."""

    write = list.append


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
