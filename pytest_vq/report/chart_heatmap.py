"""The heatmap of speedups as a Vega-Lite specification. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pytest_vq.report.chart_data import ChartRow, ChartRows, chart_rows
from pytest_vq.report.chart_marks import LETTER_PX, ROW_PX, drawn_from, named, tooltip
from pytest_vq.report.chart_theme import ChartTheme, chart_theme, finish_chart
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.schema.record import Record
from pytest_vq.wording import count

_TOLD = ("model", "scheme", "speedup_text", "speedup_interval", "latency_text", "launches", "verdict")
_CELL = (*_TOLD, "speedup", "measured", "shown", "ink")


def speedup_heatmap(records: Sequence[Record], theme: str = "light") -> dict[str, Any]:
    """Speedup over FP32 of every model under every other scheme: a number in every cell, hatched where there is none.

    Raises ValueError for an unknown theme, as all charts here do.
    """
    import altair as alt

    look, found = chart_theme(theme), chart_rows(records)
    schemes = [name for name in found.schemes if any(not r["is_reference"] for r in found.rows if r["scheme"] == name)]
    extent = _heat_extent([row["speedup"] for row in found.having("speedup")])
    cells = _cells(found, schemes, look, extent)
    colours, ends = [look.slower, look.neutral, look.faster], [1 / extent, 1, extent]
    heat = alt.Scale(type="log", domain=ends, range=colours, interpolate="rgb")
    # Below, where it begins at the left edge: beside a wide heatmap nobody would see it.
    legend = alt.Legend(title="speedup (log scale)", values=ends, format=".3~g", gradientLength=160, orient="bottom")
    heads = alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False)
    base = alt.Chart().encode(
        x=alt.X("scheme:N", title=None, scale=named(schemes), axis=heads),
        y=alt.Y("model:N", title=None, scale=named(found.models), axis=alt.Axis(domain=False, ticks=False)),
        tooltip=tooltip(*_TOLD),
    )
    width, notes = _column_px(schemes), [*_notes(cells), *notes_on(records)]
    measured, unmeasured = (alt.FieldEqualPredicate(field="measured", equal=known) for known in (True, False))
    chart = alt.layer(
        base.transform_filter(measured)
        .mark_rect(stroke=look.ground, strokeWidth=2)
        .encode(fill=alt.Fill("speedup:Q", scale=heat, legend=legend)),
        base.transform_filter(unmeasured).mark_point(
            shape=_hatch(width - 2, ROW_PX - 2), size=4, stroke=look.faint, strokeWidth=1, opacity=0.6
        ),
        base.mark_text().encode(text="shown:N", color=alt.Color("ink:N", scale=None)),
        data=drawn_from(found, cells, *_CELL),
    ).properties(width=alt.Step(width), height=alt.Step(ROW_PX), title=alt.Title("Speedup over FP32", subtitle=notes))
    return finish_chart(chart, look, found.drawn)


def _heat_extent(speedups: Sequence[float]) -> float:
    """The power of two at which the heatmap's scale ends: as far below 1x as above."""
    farthest = max((abs(math.log2(value)) for value in speedups), default=1.0)
    return float(2 ** max(1, math.ceil(farthest)))


def _cells(found: ChartRows, schemes: Sequence[str], look: ChartTheme, extent: float) -> list[ChartRow]:
    rows = {(row["model"], row["scheme"]): row for row in found.rows}
    cells = []
    for model in found.models:
        for scheme in schemes:
            row = rows.get((model, scheme), {"model": model, "scheme": scheme})
            speedup = row.get("speedup")
            mark = " *" if row.get("launches") else ""
            cells.append(
                {name: row.get(name, "") for name in _TOLD}
                | {"speedup": speedup, "measured": speedup is not None}
                | {"shown": "" if speedup is None else row["speedup_text"] + mark}
                | {"ink": look.ink if speedup is None else look.on_heat(speedup, extent)}
            )
    return cells


def _notes(cells: Sequence[ChartRow]) -> list[str]:
    notes = ["above 1x is faster than FP32; the scale is as long below 1x as above"]
    unmeasured = sum(not cell["measured"] for cell in cells)
    if unmeasured:
        notes.append(f"hatched: not measured ({count(unmeasured, 'pair')})")
    if any(cell["launches"] for cell in cells):
        notes.append("*: launch-bound, the device waited for the CPU: precision cannot show")
    return notes


def _column_px(schemes: Sequence[str]) -> int:
    return max([76, *(LETTER_PX * len(name) + 12 for name in schemes)])


def _hatch(width: int, height: int) -> str:
    """A symbol of slanting lines that fills a cell of this size in pixels, around the origin."""
    left, bottom, gap = -width / 2, height / 2, 8
    lines = []
    for start in range(-height, width, gap):  # along the lower edge, the first ones left of it
        first, last = max(start, 0), min(start + height, width)
        lines.append(f"M{left + first:g},{bottom - (first - start):g}L{left + last:g},{bottom - (last - start):g}")
    return "".join(lines)
