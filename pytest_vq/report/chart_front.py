"""Latency, peak memory and fidelity against each other, as a Vega-Lite specification. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_vq.report.chart_data import ChartRow, ChartRows, chart_rows, ordered_pairs
from pytest_vq.report.chart_marks import PANEL_PX, by_scheme, drawn_from, log_axis, log_scale, points, tooltip
from pytest_vq.report.chart_theme import chart_theme, finish_chart
from pytest_vq.report.escaping import plain
from pytest_vq.report.pareto import Standing
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.wording import count

_TOLD = ("model", "scheme", "latency_text", "peak_text", "sqnr_text", "standing")
_DRAWN = ("latency_ms", "peak_mib", "sqnr_db", "fill", "place")
_MOST_JOINED = 12  # schemes of a model; of more, lines would hide the marks
_BEST, _TIE, _BEHIND = 1.0, 0.4, 0.0  # how much of its colour a mark's inside has


def pareto(records: Sequence[Record], standings: Mapping[CaseId, Standing], theme: str = "light") -> dict[str, Any]:
    """Latency, peak memory and fidelity of every pair; filled where it is one of its model's best.

    ``standings`` has every pair of ``records``.
    """
    import altair as alt

    look, found = chart_theme(theme), chart_rows(records)
    rows = front_rows(found, [standings[record.case_id] for record in ordered_pairs(records)])
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
    joined = rows if len(found.schemes) <= _MOST_JOINED else [row for row in rows if row["fill"] > _BEHIND]
    parts = (joined, *([row for row in rows if row["is_reference"] is kind] for kind in (True, False)))
    lined, references, others = (alt.Chart(drawn_from(found, part, *_TOLD, *_DRAWN)) for part in parts)
    # Both the line around a mark and its inside: an open one has the colour of its fidelity too.
    ends = alt.Scale(range=list(look.likeness), zero=False)
    likeness: dict[str, Any] = {"color": alt.Color("sqnr_db:Q", title="SQNR (dB)", scale=ends)}
    likeness |= {"fill": alt.Fill("sqnr_db:Q", title="SQNR (dB)", scale=ends)}
    lines = lined.mark_line(color=look.faint, strokeWidth=1, opacity=0.6)
    chart = alt.layer(
        lines.encode(x=x, y=y, detail="model:N", order="place:Q"),
        points(references, stroke=look.ink, fill=look.ink).encode(**marked),
        points(others).encode(**marked, **likeness),
    )
    notes = [*_notes(rows, joined, len(found.rows) - len(rows)), *notes_on(records)]
    title = alt.Title("Latency, memory and fidelity", subtitle=notes)
    return finish_chart(
        chart.properties(width=2 * PANEL_PX, height=int(1.3 * PANEL_PX), title=title), look, found.drawn
    )


def front_rows(found: ChartRows, standings: Sequence[Standing]) -> list[ChartRow]:
    """The rows that have a place among their model's, with what their mark tells of it; ``standings`` are theirs."""
    return [
        row | {"fill": _fill(standing), "standing": plain(standing.shown)}
        for row, standing in zip(found.rows, standings, strict=True)
        if not standing.lacking and row["latency_ms"] and row["peak_mib"]
    ]


def _fill(standing: Standing) -> float:
    if not standing.is_best:
        return _BEHIND
    return _TIE if standing.ties else _BEST


def _notes(rows: Sequence[ChartRow], joined: Sequence[ChartRow], left_out: int) -> list[str]:
    notes = [
        "filled: best of its model, where no other scheme is as good in all three and clearly better in one",
        f"a line joins the {'schemes' if len(joined) == len(rows) else 'best'} of a model",
    ]
    if any(row["fill"] == _TIE for row in rows):
        notes.insert(1, "pale: tied with another best one, since what it is better in lies within the noise")
    return [*notes, f"without a peak or a fidelity: {count(left_out, 'pair')}"] if left_out else notes
