"""The page's charts: drawn once in each theme, and put into it as images, in which no script can run.

Pure: a specification in, text out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vq.report.charts import memory_efficiency, pareto, performance_analysis, speedup_heatmap
from pytest_vq.report.drawing import draw_svg, svg_size
from pytest_vq.schema.record import Record

_TAG = re.compile(r"<[^>]*>")
_FINE_DIGITS = re.compile(r"(\.[0-9]{2})[0-9]+")
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
    specification: Specification
    caption: str


_CHARTS = (
    _Chart(
        "heatmap",
        "Speedup over FP32",
        speedup_heatmap,
        "The number in a cell is the speedup over FP32: above 1 is faster. The scale is logarithmic and neutral at 1.",
    ),
    _Chart(
        "memory",
        "Memory efficiency",
        memory_efficiency,
        "Peak memory of a request, and what each scheme saves of FP32's.",
    ),
    _Chart(
        "performance",
        "Performance analysis",
        performance_analysis,
        "Speedup and memory by scheme, size against speedup, and throughput by category.",
    ),
    _Chart(
        "pareto",
        "Pareto front: latency, memory and fidelity",
        pareto,
        "A pair is on the front where no other scheme of its model is at least as good in all three and better in one.",
    ),
)


def chart_images(records: Sequence[Record]) -> list[ChartImage]:
    """The charts of ``records``; none where nothing was measured.

    Of very many pairs each is drawn once, for the light theme: drawn twice, they would be most of the file.
    """
    if not records:
        return []
    return [_image(chart, records) for chart in _CHARTS]


def _image(chart: _Chart, records: Sequence[Record]) -> ChartImage:
    light = _svg(chart.specification(records, theme="light"))
    dark = None if len(records) > _DRAWN_TWICE else _address(_svg(chart.specification(records, theme="dark")))
    width, height = map(round, svg_size(light.encode()))
    alt = f"{chart.title}, a chart: {_IN_THE_TABLE}"
    return ChartImage(chart.id, chart.title, alt, chart.caption, _address(light), dark, width, height)


def _svg(specification: dict[str, Any]) -> str:
    """The drawing of ``specification``, as small as it can be.

    Words about each mark are left out: nobody hears them in an image, and they are half of it. So are digits beyond a
    hundredth of a pixel.
    """
    without_words = specification | {"config": specification.get("config", {}) | {"aria": False}}
    svg = draw_svg(without_words).decode()
    return _TAG.sub(lambda tag: _FINE_DIGITS.sub(r"\1", tag.group(0)), svg)


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
