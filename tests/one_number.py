"""Walks what people read of a run, and holds each figure in it against ``study.json``, at the precision that is shown.

A document is its tables and its prose, whatever its format. Of a table every column must be known here, so that a new
one has to be added; of the prose every number must be told by ``study.json``, or be one that every report says.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from page_reader import Element

from pytest_vq.schema.spec import CALLABLE

Row = Mapping[str, Any]
KIB, MIB = 2**10, 2**20
_NUMBER = re.compile(r"(?P<number>-?\d[\d,]*(?:\.\d+)?) ?(?P<unit>images/s|KiB|MiB|ms|dB|x|%|s\b)?")
_SCALES = {None: 1, "x": 1, "ms": 1, "s": 1, "dB": 1, "images/s": 1, "%": 0.01, "KiB": KIB, "MiB": MIB}
# A column's title -> the study's columns, a figure each in the order in which a cell has them.
_FIGURES = {
    "batch": ("batch",),
    "median latency": ("latency_ms",),
    "median latency, 95 % interval": ("latency_low_ms", "latency_high_ms"),
    "speedup": ("speedup",),
    "speedup, 95 % interval": ("speedup_low", "speedup_high"),
    "p95": ("latency_p95_ms",),
    "throughput": ("throughput_ips",),
    "peak memory": ("peak_memory_bytes",),
    "saved": ("memory_reduction",),
    "size": ("model_size_bytes",),
    "SQNR": ("sqnr_db",),
    "accuracy": ("accuracy",),
    "fidelity": ("sqnr_db", "accuracy"),
    "energy": ("energy_per_image_mj",),
    "device time": ("device_time_ms",),
    "device speedup": ("device_speedup",),
    "prepared in": ("prepare_s",),
    "graphs": ("graphs",),
    "graph breaks": ("graph_breaks",),
    "recompiles": ("recompiles",),
    "graph pool": ("graph_pool_bytes",),
    "quantized layers": ("quantized_layers", "eligible_layers"),
    "samples": ("samples",),
}
# A title that has its unit in it -> the same quantity's, and how many of the study's units one of its is.
_WITH_UNITS = {
    "median ms": ("median latency", 1),
    "median ms, 95 % interval, ms": ("median latency, 95 % interval", 1),
    "images/s": ("throughput", 1),
    "peak MiB": ("peak memory", MIB),
    "size MiB": ("size", MIB),
    "SQNR dB": ("SQNR", 1),
    "mJ/image": ("energy", 1),
    "prepared in s": ("prepared in", 1),
    "graph pool MiB": ("graph pool", MIB),
}
_TEXTS = {"model": "model", "category": "category", "verdict": "verdict", "reason": "reason", "method": "method"}
_TEXTS |= {"what ran": "method", "callable": "model"}
_OTHER_TEXTS = {"pair", "scheme", "Pareto", "times", "cache", "left, and why"}
_NOT_OF_FP32 = {"speedup", "speedup, 95 % interval", "saved"}  # over itself it has none
_OF_THE_COLUMN_BEFORE = {"95 % interval", "95 % interval, ms", "range"}


@dataclass(frozen=True)
class Grid:
    """A table: its titles, and its rows of texts."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def named(self) -> list[dict[str, str]]:
        """The rows by title; one that only tells what the column before it is of has that one's before it."""
        titles = [
            f"{self.titles[place - 1]}, {title}" if title in _OF_THE_COLUMN_BEFORE else title
            for place, title in enumerate(self.titles)
        ]
        assert len(set(titles)) == len(titles), titles
        return [dict(zip(titles, row, strict=True)) for row in self.rows]


def agrees(shown: str, value: float, scale: float = 1) -> bool:
    """Whether ``shown`` is ``value / scale``, rounded to as many digits as it has."""
    number = shown.replace(",", "")
    decimals = len(number.partition(".")[2])
    return abs(float(number) - value / scale) <= 0.5 * 10**-decimals * (1 + 1e-9)


def assert_exact(told: Mapping[str, str], row: Row) -> None:
    """Every one of ``told`` is the study's to the last digit, and none that the study has is missing."""
    assert told.keys() == {name for name, value in row.items() if value not in (None, "")}
    for name, text in told.items():
        assert (text if isinstance(row[name], str) else json.loads(text)) == row[name], name


def scheme_of(row: Row) -> str:
    execution = row["execution"]
    return str(row["precision"]) if execution == "eager" else f"{row['precision']}+{execution}"


def id_of(row: Row) -> str:
    """As it is called where a row has one name: a pair's id, or a test's."""
    if row["precision"] == CALLABLE:
        return str(row["model"])
    return f"{row['model']}-{scheme_of(row)}" + ("" if row["batch"] == 1 else f"-b{row['batch']}")


def walk_pairs(grid: Grid, study: Iterable[Row]) -> int:
    """Hold a table with a row a pair against the ``study``'s rows; how many figures that were."""
    return sum(
        _walk_cell(title, text, row) for cells, row in rows_of_study(grid, study) for title, text in cells.items()
    )


def walk_keys(table: Element, study: Iterable[Row]) -> int:
    """Hold what a table of the page is sorted by against the ``study``'s rows; how many figures that were."""
    lines, compared = table.all("tbody")[0].all("tr"), 0
    for line, (cells, row) in zip(lines, rows_of_study(table_of_html(table), study), strict=True):
        for cell, title in zip(line.inside, cells, strict=True):
            if "data-key" in cell.attributes and title != "verdict":
                quantity, _ = _WITH_UNITS.get(title, (title, None))
                assert float(cell.attributes["data-key"]) == row[_FIGURES[quantity][0]], title
                compared += 1
    return compared


def rows_of_study(grid: Grid, study: Iterable[Row]) -> Iterator[tuple[dict[str, str], Row]]:
    """Each row of a table, by title, with the study's row of that pair."""
    by_id, model = {id_of(row): row for row in study}, ""
    for cells in grid.named():
        model = cells.get("model") or model  # named once, above its other schemes
        scheme, _, batch = cells.get("scheme", "").removesuffix(" (launch-bound)").partition(", batch ")
        suffix = f"-b{batch or cells.get('batch', 1)}".removesuffix("-b1")
        named = cells.get("pair") or cells.get("callable") or (model if model in by_id else None)
        yield cells, by_id[named or f"{model}-{scheme}{suffix}"]


def _walk_cell(title: str, text: str, row: Row) -> int:
    if title in _OTHER_TEXTS or (title == "model" and not text):
        return 0
    if title in _TEXTS:
        assert text == (row[_TEXTS[title]] or "")
        return 0
    quantity, scale = _WITH_UNITS.get(title, (title, None))
    is_told = not (quantity in _NOT_OF_FP32 and row["precision"] == "fp32" and row["execution"] == "eager")
    values = [row[column] for column in _FIGURES[quantity] if row[column] is not None] if is_told else []
    shown = list(_NUMBER.finditer(text))
    assert len(shown) == len(values), (title, text, values)
    for found, value in zip(shown, values, strict=True):
        unit = _SCALES[found["unit"]] if scale is None or found["unit"] else scale
        assert agrees(found["number"], value, unit), (title, text, value)
    return len(values)


def walk_categories(grid: Grid, study: Sequence[Row]) -> int:
    """Hold the table of categories against what the ``study``'s rows come to; how many figures that were."""
    compared, category = 0, ""
    for cells in grid.named():
        category = cells["category"] or category
        rows = [row for row in study if (row["category"], scheme_of(row)) == (category, cells["scheme"])]
        speedups, saved, sqnr_db = (
            [row[name] for row in rows if row[name] is not None] for name in ("speedup", "memory_reduction", "sqnr_db")
        )
        expected = {
            "pairs": [len(speedups)],
            "speedup (geometric mean)": [math.exp(fmean(map(math.log, speedups)))] if speedups else [],
            "speedup (geometric mean), range": _ends(speedups),
            "peak memory saved (median)": [median(saved)] if saved else [],
            "peak memory saved (median), range": _ends(saved),
            "lowest SQNR": [min(sqnr_db)] if sqnr_db else [],
        }
        assert cells.keys() == expected.keys() | {"category", "scheme", "left out of the speedup"}
        for title, values in expected.items():
            shown = list(_NUMBER.finditer(cells[title]))
            assert len(shown) == len(values), (category, title, cells[title])
            for found, value in zip(shown, values, strict=True):
                assert agrees(found["number"], value, _SCALES[found["unit"]]), (category, title, cells[title])
            compared += len(values)
    return compared


def _ends(values: Sequence[float]) -> list[float]:
    return sorted({min(values), max(values)}) if values else []


def walk_prose(texts: Iterable[str], known: Iterable[str]) -> set[str]:
    """Those of ``known`` that ``texts`` say; no number may be left in them beside those."""
    longest_first, said = sorted(filter(None, known), key=len, reverse=True), set[str]()
    for text in texts:
        rest = text
        for phrase in longest_first:
            if phrase in rest:
                said.add(phrase)
                rest = rest.replace(phrase, "…")
        # Digits of a name are no number: FP32, NF4, p99.
        assert not re.search(r"(?<![A-Za-z\d])\d", rest), f"{rest!r} of {text!r}"
    return said


def strings_in(value: Any) -> Iterator[str]:
    """Every text in ``value``, which is JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from strings_in(child)
    elif isinstance(value, list):
        for child in value:
            yield from strings_in(child)


# How each format becomes tables and prose.


def tables_of_markdown(text: str) -> list[Grid]:
    grids, lines = [], text.splitlines()
    for place, line in enumerate(lines):
        if re.fullmatch(r"\|( -+:? \|)+", line):
            rows = itertools.takewhile(lambda row: row.startswith("|"), lines[place + 1 :])
            grids.append(Grid(_cells(lines[place - 1]), tuple(map(_cells, rows))))
    return grids


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | "))


def prose_of_markdown(text: str) -> list[str]:
    """Its lines but those of tables; what is to be typed is no prose."""
    return [re.sub(r"`[^`]*`", "", line) for line in text.splitlines() if not line.startswith("|")]


def table_of_html(table: Element) -> Grid:
    titles = tuple(cell.text for cell in table.all("thead")[0].all("th"))
    rows = [[e for e in row.inside if e.tag in ("th", "td")] for row in table.all("tbody")[0].all("tr")]
    return Grid(titles, tuple(tuple(cell.text for cell in row) for row in rows))


def facts_of_html(document: Element) -> dict[str, str]:
    """What stands in lists of names and values."""
    names, values = ([element.text for element in document.all(tag)] for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def prose_of_html(document: Element) -> list[str]:
    """What stands in paragraphs, lists and titles, and is read aloud."""
    tags = ("title", "h1", "h2", "h3", "p", "li", "summary", "figcaption", "caption", "option", "label")
    spoken = [
        e.attributes[name] for e in document.everything() for name in ("aria-label", "alt") if name in e.attributes
    ]
    return [*(element.text for tag in tags for element in document.all(tag)), *spoken]
