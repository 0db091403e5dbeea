"""The charts' specifications: what they show of the records, and what no chart may do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import altair as alt
import pytest
from factories import ENVIRONMENT, make_outcome, make_record

from pytest_vq.report.chart_data import chart_rows, ordered_pairs
from pytest_vq.report.chart_front import front_rows, pareto
from pytest_vq.report.chart_marks import log_ticks
from pytest_vq.report.chart_schemes import SchemeKind, scheme_colours, scheme_shapes
from pytest_vq.report.chart_theme import DARK, LIGHT, ChartTheme, chart_theme
from pytest_vq.report.charts import FIGURES, memory_efficiency, performance_analysis, speedup_heatmap
from pytest_vq.report.drawing import draw_png, draw_svg
from pytest_vq.report.pareto import Standing, standings_of
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.results import Row


def standings(records: Sequence[Record]) -> Mapping[CaseId, Standing]:
    return standings_of([Row(r, ENVIRONMENT, make_outcome(r).estimates) for r in records])


def front(records: Sequence[Record], theme: str = "light") -> dict[str, Any]:
    return pareto(records, standings(records), theme)


CHARTS = (speedup_heatmap, memory_efficiency, performance_analysis, front)
NAME = "a'b\"]</script>"


def pairs(*models: str) -> list[Record]:
    """FP32, INT8 and INT4 of each model, all figures there."""
    speedups = {"fp32": 1.0, "int8": 0.5, "int4": 4.0}
    return [
        make_record(model, precision, speedup=speedup, throughput_ips=100 * speedup, parameters=5_000_000)
        for model in models
        for precision, speedup in speedups.items()
    ]


def values_of(specification: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in specification["datasets"].values() for row in rows]


def parts_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from parts_of(child, (*path, key))


each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.__name__)


class TestEveryChart:
    @each_chart
    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_is_a_valid_specification_that_can_be_drawn(self, chart, theme) -> None:
        specification = chart(pairs("net-a", "net-b"), theme=theme)
        alt.Chart.from_dict(specification)  # raises where Vega-Lite's schema forbids it
        assert specification["background"] == chart_theme(theme).ground
        svg = draw_svg(specification)
        ElementTree.fromstring(svg)
        assert draw_png(svg).startswith(b"\x89PNG")

    @each_chart
    def test_can_be_drawn_of_the_reference_alone(self, chart) -> None:
        unknown = {"peak_memory_bytes": 0, "memory_reduction": None, "throughput_ips": None}
        ElementTree.fromstring(draw_svg(chart([make_record("net", "fp32", **unknown)])))

    @each_chart
    def test_a_name_is_data_and_never_an_expression(self, chart) -> None:
        specification = chart(pairs(NAME))
        for path, value in parts_of(specification):
            if isinstance(value, str) and NAME in value:
                assert path[0] == "datasets" or path[-2] == "domain", path
        keys = {path[-1] for path, _ in parts_of(specification) if path}
        assert not keys & {"expr", "calculate", "test", "labelExpr", "signal", "href", "url"}

    @each_chart
    def test_bars_never_stand_on_a_log_axis_and_its_title_says_so(self, chart) -> None:
        for path, value in parts_of(chart(pairs("net-a", "net-b"))):
            assert value not in ("bar", "area"), path
            if isinstance(value, dict) and isinstance(value.get("scale"), dict) and value["scale"].get("type") == "log":
                title = value.get("title") or value["legend"]["title"]
                assert title.endswith("log scale)"), path

    @each_chart
    def test_is_the_same_every_time(self, chart) -> None:
        first, second = (json.dumps(chart(pairs("net-a", "net-b"))) for _ in range(2))
        assert first == second

    @each_chart
    def test_knows_two_themes(self, chart) -> None:
        with pytest.raises(ValueError, match="'pink' is no theme"):
            chart(pairs("net"), theme="pink")

    def test_the_study_has_three_figures(self) -> None:
        assert list(FIGURES) == ["speedup_heatmap", "memory_efficiency", "performance_analysis"]


class TestHeatmap:
    def scale(self, records: list[Record]) -> dict[str, Any]:
        specification = speedup_heatmap(records)
        (fill,) = (v for p, v in parts_of(specification) if p and p[-1] == "fill" and isinstance(v, dict))
        return fill["scale"]

    def test_is_symmetric_and_neutral_at_one(self) -> None:
        scale = self.scale(pairs("net"))
        assert scale["type"] == "log"
        assert scale["domain"] == [1 / 4, 1, 4]
        assert scale["range"][1] == LIGHT.neutral

    def test_no_speedup_is_beyond_the_scale(self) -> None:
        assert self.scale([make_record("net", speedup=0.01)])["domain"] == [1 / 128, 1, 128]
        assert self.scale([make_record("net", speedup=1.01)])["domain"] == [1 / 2, 1, 2]

    def test_a_number_in_every_cell_and_what_was_not_measured_is_marked(self) -> None:
        records = [*pairs("net-a"), make_record("net-b", "int8", speedup=None)]
        specification = speedup_heatmap(records)
        cells = {(c["model"], c["scheme"]): (c["shown"], c["measured"]) for c in values_of(specification)}
        assert cells == {
            ("net-a", "int8"): ("0.500x", True),
            ("net-a", "int4"): ("4.00x", True),
            ("net-b", "int8"): ("", False),
            ("net-b", "int4"): ("", False),
        }
        assert "hatched: not measured (2 pairs)" in specification["title"]["subtitle"]

    def test_launch_bound_cells_are_marked(self) -> None:
        specification = speedup_heatmap([make_record("net", launch_bound=True)])
        assert [cell["shown"] for cell in values_of(specification)] == ["2.00x *"]
        assert specification["title"]["subtitle"][-1].startswith("*: launch-bound")

    @pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
    def test_numbers_can_be_read_on_every_colour(self, theme: ChartTheme) -> None:
        for step in range(-20, 21):
            ratio = 8 ** (step / 20)
            end = theme.slower if ratio < 1 else theme.faster
            ground = [a + abs(step) / 20 * (b - a) for a, b in zip(rgb(theme.neutral), rgb(end), strict=True)]
            assert contrast(rgb(theme.on_heat(ratio, 8)), ground) >= 3.9, ratio


def rgb(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def contrast(*colours: list[float]) -> float:
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour] for colour in colours]
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (high + 0.05) / (low + 0.05)


PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int8dyn", "int8wo", "int4", "int4wo")
EXECUTIONS = ("eager", "compile", "graph", "compile+graph")


class TestSchemes:
    def test_shapes_alone_tell_all_schemes_apart(self) -> None:
        kinds = [SchemeKind(p, e) for p in (*PRECISIONS, "mine", "theirs") for e in (*EXECUTIONS, "onnx", "other")]
        assert len(set(scheme_shapes(kinds))) == len(kinds) == 72

    def test_what_is_known_looks_the_same_in_every_run(self) -> None:
        few = [SchemeKind("int8", "eager"), SchemeKind("int8", "graph")]
        many = [SchemeKind(p, e) for p in ("mine", *PRECISIONS) for e in ("onnx", *EXECUTIONS)]
        for look in (scheme_shapes, lambda kinds: scheme_colours(kinds, LIGHT.schemes)):
            found = dict(zip(many, look(many), strict=True))
            assert look(few) == [found[kind] for kind in few]

    def test_a_precision_keeps_its_colour_and_shape_under_every_execution(self) -> None:
        kinds = [SchemeKind("bf16", execution) for execution in EXECUTIONS]
        assert len(set(scheme_colours(kinds, LIGHT.schemes))) == 1
        plain, *others = scheme_shapes(kinds)
        assert all(shape.startswith(plain) for shape in others)

    @pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
    def test_each_known_precision_has_a_colour_of_its_own_that_is_seen(self, theme: ChartTheme) -> None:
        colours = scheme_colours([SchemeKind(precision, "eager") for precision in PRECISIONS], theme.schemes)
        assert len(set(colours)) == len(PRECISIONS)
        assert all(contrast(rgb(colour), rgb(theme.ground)) >= 3 for colour in colours)

    def test_fifty_precisions_still_look_different(self) -> None:
        kinds = [SchemeKind(f"mine-{n}", "eager") for n in range(50)]
        assert len(set(zip(scheme_shapes(kinds), scheme_colours(kinds, LIGHT.schemes), strict=True))) == 50

    def test_every_scheme_is_in_the_legend(self) -> None:
        records = [make_record("net", p, execution=e, speedup=2.0) for p in PRECISIONS for e in EXECUTIONS]
        found = chart_rows(records)
        assert len(found.schemes) == 40
        shown = "".join(ElementTree.fromstring(draw_svg(memory_efficiency(records))).itertext())
        assert all(scheme in shown for scheme in found.schemes)


class TestRows:
    def test_by_size_then_from_the_widest_precision(self) -> None:
        records = [
            make_record("small", "int4", parameters=1),
            make_record("large", "int8", parameters=9),
            make_record("small", "fp32", parameters=1),
            make_record("large", "int8", parameters=9, execution="compile"),
        ]
        rows = chart_rows(records).rows
        assert [(row["model"], row["scheme"]) for row in rows] == [
            ("large", "int8"),
            ("large", "int8+compile"),
            ("small", "fp32"),
            ("small", "int4"),
        ]

    def test_the_last_of_a_pair_counts(self) -> None:
        rows = chart_rows([make_record("net", speedup=2.0), make_record("net", speedup=3.0)]).rows
        assert [row["speedup"] for row in rows] == [3.0]

    def test_several_batches_are_told_apart(self) -> None:
        found = chart_rows([make_record("net", batch=8), make_record("net")])
        assert found.models == ("net (batch 1)", "net (batch 8)")

    def test_what_no_log_axis_can_show_is_left_out(self) -> None:
        (row,) = chart_rows([make_record("net", peak_memory_bytes=0, speedup=None)]).rows
        assert row["peak_mib"] is None
        assert row["speedup"] is None


class TestFront:
    """As `recommend` places pairs (its tests are in test_recommend.py), so the charts do."""

    def fills(self, *records: Record) -> dict[str, float]:
        placed = standings(records)
        rows = front_rows(chart_rows(records), [placed[record.case_id] for record in ordered_pairs(records)])
        return {f"{row['model']}-{row['scheme']}": row["fill"] for row in rows}

    def test_what_another_beats_is_open(self) -> None:
        found = self.fills(
            make_record("net", "fp32", latency_ms=10.0, peak_memory_bytes=100),
            make_record("net", "int8", latency_ms=8.0, latency_low_ms=7.9, latency_high_ms=8.1, peak_memory_bytes=50),
            make_record("net", "int4", latency_ms=9.0, latency_low_ms=8.9, peak_memory_bytes=50, sqnr_db=20.0),
        )
        assert found == {"net-fp32": 1, "net-int8": 1, "net-int4": 0}

    def test_what_is_best_by_noise_alone_is_pale(self) -> None:
        same = {"peak_memory_bytes": 50, "sqnr_db": 30.0}
        records = [make_record("net", "int8", latency_ms=10.05, **same), make_record("net", "int4", **same)]
        assert self.fills(*records) == {"net-int8": 0.4, "net-int4": 0.4}
        assert any(note.startswith("pale: tied") for note in front(records)["title"]["subtitle"])

    def test_what_lacks_a_figure_is_no_part_of_it(self) -> None:
        records = [make_record("net", "int8", sqnr_db=None), make_record("net", "fp32")]
        assert self.fills(*records) == {"net-fp32": 1}
        assert "without a peak or a fidelity: 1 pair" in front(records)["title"]["subtitle"]

    def test_models_do_not_compete(self) -> None:
        slow = make_record("slow", latency_ms=99.0, sqnr_db=10.0)
        assert self.fills(slow, make_record("fast")) == {"slow-int8": 1, "fast-int8": 1}

    def test_lines_join_only_the_best_where_there_are_many_schemes(self) -> None:
        records = [make_record("net", "fp32", latency_ms=1.0, latency_low_ms=0.9, latency_high_ms=1.1)]
        records += [make_record("net", p, execution=e, sqnr_db=30.0) for p in PRECISIONS[1:4] for e in EXECUTIONS]
        few, many = (front(records[:number])["title"]["subtitle"] for number in (12, 13))
        assert "a line joins the schemes of a model" in few
        assert "a line joins the best of a model" in many


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([3.5, 90], [5, 10, 20, 50]),
        ([0.01, 900], [0.01, 0.1, 1, 10, 100]),
        ([1.0, 1.25], [1.0, 1.1, 1.2, 1.3]),
    ],
)
def test_ticks_of_a_log_axis_are_few_and_round(values: list[float], expected: list[float]) -> None:
    assert log_ticks(values) == pytest.approx(expected)


def test_the_figure_above_a_precision_is_a_geometric_mean_with_its_n() -> None:
    records = [make_record(name, speedup=speedup) for name, speedup in (("a", 2.0), ("b", 8.0))]
    means = [row for row in values_of(performance_analysis(records)) if "pairs" in row and "speedup" in row]
    assert [(row["shown"], row["pairs"]) for row in means] == [("4.00x", "n = 2")]
    assert math.isclose(means[0]["speedup"], 4.0)
