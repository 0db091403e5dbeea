"""What several charts are made of: axes, marks and what they say when pointed at. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_vq.report.chart_data import ChartRow, ChartRows
from pytest_vq.report.chart_schemes import scheme_colours, scheme_shapes
from pytest_vq.report.chart_theme import ChartTheme
from pytest_vq.schema.spec import EAGER

if TYPE_CHECKING:
    import altair as alt

ROW_PX = 26
PANEL_PX = 300
LETTER_PX = 7  # of a label, about
_POINT_PX2 = 80  # a symbol's area
_STEPS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(place / 10 for place in range(10, 100)))
_LEGEND_ROWS = 24  # more schemes than that stand in columns
_ENOUGH = 3  # labels on an axis
_BEYOND = 1.05  # a label this far beyond the outermost mark still has a place
_SPOKEN = {
    "speedup_text": "speedup",
    "speedup_interval": "its 95 % interval",
    "latency_text": "median latency",
    "throughput_text": "throughput",
    "peak_text": "peak memory",
    "saved_text": "saved",
    "parameters_text": "parameters",
    "sqnr_text": "SQNR",
    "launches": "note",
    "standing": "Pareto",
}


def drawn_from(found: ChartRows, rows: Iterable[ChartRow], *names: str) -> alt.NamedData:
    """Of each row what a chart of ``found`` draws, by the name that it is known by there.

    altair would copy and check each of thousands of rows, many times over: it sees the name alone.
    """
    import altair as alt

    name = f"rows-{len(found.drawn)}"
    found.drawn[name] = [{name: row[name] for name in names} for row in rows]
    return alt.NamedData(name=name)


def tooltip(*names: str) -> list[alt.Tooltip]:
    """What pointing at a mark tells, in words."""
    import altair as alt

    return [alt.Tooltip(field=name, type="nominal", title=_SPOKEN.get(name, name)) for name in names]


def log_scale() -> alt.Scale:
    """A logarithmic scale; the axis must say so."""
    import altair as alt

    return alt.Scale(type="log", nice=False, padding=14)


def log_axis(values: Iterable[float]) -> alt.Axis:
    """The axis of a logarithmic scale over ``values``: few round labels, without powers of ten."""
    import altair as alt

    return alt.Axis(values=log_ticks(values), format="~r", grid=True, labelOverlap="greedy")


def log_ticks(values: Iterable[float]) -> list[float]:
    """Round numbers between the smallest and the largest of ``values``: as coarse as leaves three, if there are."""
    known = list(values)
    if not known:
        return []
    low, high = min(known), max(known)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in _STEPS:
        places = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [float(f"{place:.3g}") for place in places if low / _BEYOND <= place <= high * _BEYOND]
        if len(ticks) >= _ENOUGH:
            break
    return ticks


def percent_axis() -> alt.Axis:
    """The axis of a fraction."""
    import altair as alt

    return alt.Axis(tickCount=5, format=".0%", grid=True, labelOverlap="greedy")


def row_axis(*, labels: bool = True) -> alt.Axis:
    """The axis of names, a row each, with lines between the rows."""
    import altair as alt

    return alt.Axis(labels=labels, grid=True, tickBand="extent", ticks=False)


def points(chart: alt.Chart, **changes: Any) -> alt.Chart:
    """Marks of one size; ``by_scheme`` tells them apart."""
    look: dict[str, Any] = {"size": _POINT_PX2, "strokeWidth": 1.5, "opacity": 0.9}
    marked: alt.Chart = chart.mark_point(**(look | changes))
    return marked


def by_scheme(found: ChartRows, look: ChartTheme) -> dict[str, Any]:
    """A scheme's colour and shape, with one legend for both."""
    import altair as alt

    schemes = list(found.schemes)
    colours = alt.Scale(domain=schemes, range=scheme_colours(found.kinds, look.schemes))
    shapes = alt.Scale(domain=schemes, range=scheme_shapes(found.kinds))
    has_bars = any(kind.execution != EAGER for kind in found.kinds)
    legend = alt.Legend(columns=math.ceil(len(schemes) / _LEGEND_ROWS), labelOffset=10 if has_bars else 4)
    return {
        "color": alt.Color("scheme:N", title="scheme", scale=colours, legend=legend),
        "fill": alt.Fill("scheme:N", title="scheme", scale=colours, legend=legend),
        "shape": alt.Shape("scheme:N", title="scheme", scale=shapes, legend=legend),
    }


def line_at(look: ChartTheme, **where: float) -> alt.Chart:
    """A line across the chart, at ``x`` or ``y``."""
    import altair as alt

    rule: alt.Chart = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=look.faint, strokeDash=[4, 3])
    encoded: alt.Chart = rule.encode(**{axis: alt.datum(value) for axis, value in where.items()})
    return encoded


def named(names: Sequence[str]) -> alt.Scale:
    """A scale of these names, in this order."""
    import altair as alt

    return alt.Scale(domain=list(names))
