"""Latency, peak memory and fidelity against each other, as a Vega-Lite specification. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_vq.report.chart_data import chart_rows, on_the_front
from pytest_vq.report.chart_marks import PANEL_PX, by_scheme, drawn_from, log_axis, log_scale, points, tooltip
from pytest_vq.report.chart_theme import chart_theme, finish_chart
from pytest_vq.schema.record import Record
from pytest_vq.wording import count

_TOLD = ("model", "scheme", "latency_text", "peak_text", "sqnr_text")
_DRAWN = ("latency_ms", "peak_mib", "sqnr_db", "fill", "place")


def pareto(records: Sequence[Record], theme: str = "light") -> dict[str, Any]:
    """Latency, peak memory and fidelity of every pair; filled where it is on the front of its model."""
    import altair as alt

    look, found = chart_theme(theme), chart_rows(records)
    rows = on_the_front(found.rows)
    latencies, peaks = ([row[name] for row in rows] for name in ("latency_ms", "peak_mib"))
    x = alt.X("latency_ms:Q", title="median latency (ms, log scale)", scale=log_scale(), axis=log_axis(latencies))
    y = alt.Y("peak_mib:Q", title="peak memory (MiB, log scale)", scale=log_scale(), axis=log_axis(peaks))
    marked = {
        "x": x,
        "y": y,
        "shape": by_scheme(found, look)["shape"],
        "fillOpacity": alt.FillOpacity("fill:Q", scale=None),
        "tooltip": tooltip(*_TOLD),
    }
    all_pairs, references, others = (
        alt.Chart(drawn_from(found, [row for row in rows if row["is_reference"] in kinds], *_TOLD, *_DRAWN))
        for kinds in ((True, False), (True,), (False,))
    )
    # Both the line around a mark and its inside: an open one has the colour of its fidelity too.
    ends = alt.Scale(range=list(look.likeness), zero=False)
    likeness: dict[str, Any] = {"color": alt.Color("sqnr_db:Q", title="SQNR (dB)", scale=ends)}
    likeness |= {"fill": alt.Fill("sqnr_db:Q", title="SQNR (dB)", scale=ends)}
    lines = all_pairs.mark_line(color=look.faint, strokeWidth=1, opacity=0.6)
    chart = alt.layer(
        lines.encode(x=x, y=y, detail="model:N", order="place:Q"),
        points(references, stroke=look.ink, fill=look.ink).encode(**marked),
        points(others).encode(**marked, **likeness),
    )
    title = alt.Title("Latency, memory and fidelity", subtitle=_notes(len(found.rows) - len(rows)))
    return finish_chart(
        chart.properties(width=2 * PANEL_PX, height=int(1.3 * PANEL_PX), title=title), look, found.drawn
    )


def _notes(left_out: int) -> list[str]:
    notes = [
        "filled: on its model's front, where no other scheme is as good in all three and better in one",
        "a line joins the schemes of a model",
    ]
    return [*notes, f"without a peak or a fidelity: {count(left_out, 'pair')}"] if left_out else notes
