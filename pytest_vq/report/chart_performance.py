"""The performance analysis as a Vega-Lite specification: four panels with one legend. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from pytest_vq.report.chart_data import ChartRow, ChartRows, chart_rows
from pytest_vq.report.chart_marks import (
    LETTER_PX,
    PANEL_PX,
    by_scheme,
    drawn_from,
    line_at,
    log_axis,
    log_scale,
    named,
    percent_axis,
    points,
    row_axis,
    tooltip,
)
from pytest_vq.report.chart_theme import ChartTheme, chart_theme, finish_chart
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.schema.record import Record
from pytest_vq.wording import plain_percent, times

if TYPE_CHECKING:
    import altair as alt

_TOLD = ("model", "scheme", "category", "launches")
_HEIGHT_PX = 260
_SCHEME_PX, _LANE_PX = 48, 8  # a scheme's share of the width, and of the height in a category
_SPEEDUP = "speedup over FP32 (log scale)"


def performance_analysis(records: Sequence[Record], theme: str = "light") -> dict[str, Any]:
    """Speedup and memory by scheme, the model's size against speedup, and throughput by category."""
    import altair as alt

    look, found = chart_theme(theme), chart_rows(records)
    panels = [
        _speedup_by_scheme(found, look).properties(title="Speedup by scheme"),
        _memory_by_scheme(found, look).properties(title="Memory by scheme"),
        _size_against_speedup(found, look).properties(title="Size against speedup"),
        _throughput(found, look).properties(title="Throughput by category"),
    ]
    width, height = _panel_px(found)
    sized = [panel.properties(width=width, height=height) for panel in panels]
    notes = ["above a scheme: the geometric mean of its speedups, the median of its memory, and n, of how many"]
    if any(row["launches"] for row in found.rows):
        notes.append("open marks: launch-bound, the device waited for the CPU: precision cannot show")
    notes += notes_on(records)
    title = alt.Title("Performance analysis", subtitle=notes)
    return finish_chart(alt.concat(*sized, columns=2, title=title, spacing=36), look, found.drawn)


def _panel_px(found: ChartRows) -> tuple[int, int]:
    """Width and height of a panel: more where there are so many schemes that their marks or words would meet."""
    lanes = len(found.schemes) * max(1, len(found.categories))
    return max(PANEL_PX, _SCHEME_PX * len(found.schemes)), max(_HEIGHT_PX, _LANE_PX * lanes)


def _speedup_by_scheme(found: ChartRows, look: ChartTheme) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    axis = log_axis([1, *found.values("speedup")])
    y = alt.Y("speedup:Q", title=_SPEEDUP, scale=log_scale(), axis=axis)
    typical = _typical(found, "speedup", lambda values: math.exp(fmean(map(math.log, values))), times)
    return _by_scheme(found, look, {"y": y, "fillOpacity": alt.FillOpacity("fill:Q", scale=None)}, typical)


def _memory_by_scheme(found: ChartRows, look: ChartTheme) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    scale = alt.Scale(zero=True, padding=12)
    y = alt.Y("peak_share:Q", title="peak memory, FP32's is 100 %", scale=scale, axis=percent_axis())
    return _by_scheme(found, look, {"y": y}, _typical(found, "peak_share", median, plain_percent))


def _typical(
    found: ChartRows, name: str, typical: Callable[[Sequence[float]], float], shown: Callable[[float], str]
) -> list[ChartRow]:
    """For each scheme the typical figure of ``name``, in words with the number of pairs it is of."""
    values: dict[str, list[float]] = {}
    for row in found.having(name):
        values.setdefault(row["scheme"], []).append(row[name])
    return [
        {"scheme": scheme, name: typical(taken), "shown": shown(typical(taken)), "pairs": f"n = {len(taken)}"}
        for scheme, taken in values.items()
    ]


def _by_scheme(
    found: ChartRows, look: ChartTheme, how: Mapping[str, Any], typical: Sequence[ChartRow]
) -> alt.LayerChart | alt.FacetChart:
    """A mark for each model beside its scheme's typical figure, which stands above in words.

    ``how`` encodes what stands on the axis upwards, and what else the marks tell.
    """
    import altair as alt

    known = {row["scheme"] for row in typical}
    shown = [scheme for scheme in found.schemes if scheme in known]
    x = alt.X("scheme:N", title=None, scale=named(shown), axis=_scheme_axis(shown))
    told = (*_TOLD, "speedup_text", "peak_text", "saved_text")
    rows = [row for row in found.rows if row["scheme"] in shown and not row["is_reference"]]
    means = alt.Chart(alt.InlineData(values=list(typical)))
    words = means.mark_text(baseline="top", fontSize=11, color=look.faint)
    marks = points(alt.Chart(drawn_from(found, rows, *told, "speedup", "peak_share", "fill")))
    return alt.layer(
        line_at(look, y=1),
        means.mark_tick(color=look.ink, thickness=2, width=34).encode(x=x, y=how["y"]),
        marks.encode(x=x, tooltip=tooltip(*told), **how, **by_scheme(found, look)),
        words.encode(x=x, y=alt.value(-28), text="shown:N"),
        words.encode(x=x, y=alt.value(-15), text="pairs:N"),
    )


def _scheme_axis(schemes: Sequence[str]) -> alt.Axis:
    """The axis of schemes, their names aslant where they have no room side by side."""
    import altair as alt

    room = max(PANEL_PX / max(1, len(schemes)), _SCHEME_PX)
    is_crowded = any(LETTER_PX * len(scheme) > room for scheme in schemes)
    return alt.Axis(labelAngle=-40 if is_crowded else 0, labelOverlap=False if is_crowded else "greedy", grid=False)


def _size_against_speedup(found: ChartRows, look: ChartTheme) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    told = (*_TOLD, "parameters_text", "speedup_text", "speedup_interval")
    rows = drawn_from(found, found.having("speedup", "parameters_m"), *told, "speedup", "parameters_m", "fill")
    sizes = found.values("parameters_m")
    size = alt.X("parameters_m:Q", title="parameters (millions, log scale)", scale=log_scale(), axis=log_axis(sizes))
    marks = points(alt.Chart(rows)).encode(
        x=size,
        y=alt.Y("speedup:Q", title=_SPEEDUP, scale=log_scale(), axis=log_axis([1, *found.values("speedup")])),
        fillOpacity=alt.FillOpacity("fill:Q", scale=None),
        tooltip=tooltip(*told),
        **by_scheme(found, look),
    )
    return alt.layer(line_at(look, y=1), marks)


def _throughput(found: ChartRows, look: ChartTheme) -> alt.Chart:
    import altair as alt

    told = (*_TOLD, "throughput_text")
    rows = drawn_from(found, found.having("throughput_ips"), *told, "throughput_ips", "fill")
    axis = log_axis(found.values("throughput_ips"))
    x = alt.X("throughput_ips:Q", title="images per second (log scale)", scale=log_scale(), axis=axis)
    return points(alt.Chart(rows)).encode(
        x=x,
        y=alt.Y(
            "category:N",
            title=None,
            scale=named(found.categories),
            axis=row_axis(),
        ),
        yOffset=alt.YOffset("scheme:N", scale=named(found.schemes)),
        fillOpacity=alt.FillOpacity("fill:Q", scale=None),
        tooltip=tooltip(*told),
        **by_scheme(found, look),
    )
