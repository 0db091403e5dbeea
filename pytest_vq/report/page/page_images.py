"""The page's charts: drawn once in each theme, and put into it as images, in which no script can run.

Pure: a specification in, text out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytest_vq.report.charts import FIGURES, pareto
from pytest_vq.report.drawing import draw_svg, svg_size
from pytest_vq.report.pareto import STANDING_WORDS, Standing
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId

_DRAWN_TWICE = 500  # pairs at most
_IN_THE_TABLE = "every figure of it stands in the table of results above"
Specification = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ChartImage:
    """One chart in both themes, as ``data:`` addresses, with its words."""

    id: str
    title: str
    alt: str
    caption: str
    light: str
    dark: str | None  # None: the page turns the light one's colours round
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Chart:
    id: str
    title: str
    caption: str


# By the name of its figure, where it is one of the study's.
_CHARTS = {
    "speedup_heatmap": _Chart(
        "heatmap",
        "Speedup over FP32",
        "The number in a cell is the speedup over FP32: above 1 is faster. The scale is logarithmic and neutral at 1.",
    ),
    "memory_efficiency": _Chart(
        "memory",
        "Memory efficiency",
        "Peak memory of a request, and what each scheme saves of FP32's.",
    ),
    "performance_analysis": _Chart(
        "performance",
        "Performance analysis",
        "Speedup and memory by scheme, size against speedup, and throughput by category.",
    ),
    "pareto": _Chart(
        "pareto",
        "Pareto front: latency, memory and fidelity",
        f"A pair is {STANDING_WORDS}. The table of results names what beats the others.",
    ),
}


def chart_images(
    records: Sequence[Record], standings: Mapping[CaseId, Standing], figures: Mapping[str, bytes]
) -> list[ChartImage]:
    """The charts of ``records``; none where nothing was measured. ``figures`` are those drawn already, by name.

    Of very many pairs each is drawn once, for the light theme: drawn twice, they would be most of the file.
    """
    if not records:
        return []
    specifications: dict[str, Specification] = {**FIGURES, "pareto": partial(pareto, standings=standings)}
    return [_image(name, records, specifications[name], figures.get(name)) for name in _CHARTS]


def _image(name: str, records: Sequence[Record], specification: Specification, drawn: bytes | None) -> ChartImage:
    chart = _CHARTS[name]
    light = draw_svg(specification(records)) if drawn is None else drawn
    dark = None if len(records) > _DRAWN_TWICE else _address(draw_svg(specification(records, theme="dark")))
    width, height = map(round, svg_size(light))
    alt = f"{chart.title}, a chart: {_IN_THE_TABLE}"
    return ChartImage(chart.id, chart.title, alt, chart.caption, _address(light), dark, width, height)


def _address(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
