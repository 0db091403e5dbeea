"""The study's charts as Vega-Lite specifications: one each makes the page's chart, the PNG and the SVG. Pure.

A logarithmic axis says so in its title and carries points, never bars: a bar's length would mean nothing on it. Names
are data: none stands in an expression. altair is imported where a chart is made, because it takes a second to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_vq.report.chart_front import pareto
from pytest_vq.report.chart_heatmap import speedup_heatmap
from pytest_vq.report.chart_memory import memory_efficiency
from pytest_vq.report.chart_performance import performance_analysis
from pytest_vq.report.chart_theme import THEMES

__all__ = ["FIGURES", "THEMES", "memory_efficiency", "pareto", "performance_analysis", "speedup_heatmap"]

# The study's three, by the name of their files. Each takes records and a theme.
FIGURES: dict[str, Callable[..., dict[str, Any]]] = {
    "speedup_heatmap": speedup_heatmap,
    "memory_efficiency": memory_efficiency,
    "performance_analysis": performance_analysis,
}
