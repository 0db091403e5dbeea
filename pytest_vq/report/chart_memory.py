"""Peak memory, and what schemes save of it, as a Vega-Lite specification. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_vq.report.chart_data import ChartRows, chart_rows
from pytest_vq.report.chart_marks import (
    PANEL_PX,
    ROW_PX,
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
from pytest_vq.wording import count

if TYPE_CHECKING:
    import altair as alt

_TOLD = ("model", "scheme", "peak_text", "saved_text", "verdict")
_SCHEME_PX = 8  # of a row's height: equal figures of two schemes would hide each other


def memory_efficiency(records: Sequence[Record], theme: str = "light") -> dict[str, Any]:
    """Peak memory of every model under every scheme, and the share of FP32's that the scheme saves."""
    import altair as alt

    look, found = chart_theme(theme), chart_rows(records)
    axis = log_axis(found.values("peak_mib"))
    peak = _marks(found, look, "peak_mib", labels=True).encode(
        x=alt.X("peak_mib:Q", title="peak memory (MiB, log scale)", scale=log_scale(), axis=axis)
    )
    saved = _marks(found, look, "saved", labels=False).encode(
        x=alt.X("saved:Q", title="peak memory saved against FP32", axis=percent_axis())
    )
    height = max(1, len(found.models)) * max(ROW_PX, _SCHEME_PX * len(found.schemes))
    panels = [panel.properties(width=PANEL_PX, height=height) for panel in (peak, alt.layer(line_at(look, x=0), saved))]
    title = alt.Title("Memory efficiency", subtitle=[*_notes(found), *notes_on(records)])
    return finish_chart(alt.hconcat(*panels, title=title, spacing=24), look, found.drawn)


def _marks(found: ChartRows, look: ChartTheme, name: str, *, labels: bool) -> alt.Chart:
    """A mark for each pair that has the figure ``name``, in the row of its model."""
    import altair as alt

    rows = drawn_from(found, found.having(name), *_TOLD, name)
    marks: alt.Chart = points(alt.Chart(rows)).encode(
        y=alt.Y("model:N", title=None, scale=named(found.models), axis=row_axis(labels=labels)),
        yOffset=alt.YOffset("scheme:N", scale=named(found.schemes)),
        tooltip=tooltip(*_TOLD),
        **by_scheme(found, look),
    )
    return marks


def _notes(found: ChartRows) -> list[str]:
    notes = ["right of the dashed line a scheme saves memory"]
    without_peak = len(found.rows) - len(found.having("peak_mib"))
    without_saving = sum(row["saved"] is None and not row["is_reference"] for row in found.rows)
    for left_out, what in ((without_peak, "a peak"), (without_saving, "a saving")):
        notes += [f"without {what}: {count(left_out, 'pair')}"] if left_out else []
    return notes
