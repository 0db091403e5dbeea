"""The page, read as HTML: what it says, that its figures are study.json's, and that nothing in it runs or loads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
from factories import ENVIRONMENT, MIB, make_entry, make_estimates, make_record, make_samples
from page_reader import Element, read_page, table_of

pytest.importorskip("vl_convert", reason="the charts need the extra `report`")
pytest.importorskip("jinja2", reason="the page needs the extra `report`")

from pytest_vq.report.page import page_render
from pytest_vq.report.page.page_render import render_page
from pytest_vq.report.page.page_strips import MOST_QUANTILES, spread, strip_groups
from pytest_vq.schema.estimates import Estimates, Operator
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Record
from pytest_vq.schema.side import Side, SideKind, SidePair
from pytest_vq.schema.verdict import Status
from pytest_vq.store.explained import EXPLAINED, Explained, read_explained
from pytest_vq.store.results import Results, Row
from pytest_vq.store.samples import SamplesLine

PRECISIONS = ("fp32", "fp16", "int8", "int4")
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "a|b",
    "@org/team",
    "net\n::error::all is lost",
    "\x1b[31mred\x1b[0m",
    "safe\u202eevil",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
)


def results_of(*records: Record, **changes: Any) -> Results:
    rows = tuple(Row(record, ENVIRONMENT, (Estimates.of(record, ENVIRONMENT),)) for record in records)
    results = Results({}, (ENVIRONMENT,), rows, (), "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00", True)
    return replace(results, **changes)


def matrix(models: int = 2) -> list[Record]:
    """Records whose figures need rounding, of every size."""
    records = []
    for number in range(models):
        for place, precision in enumerate(PRECISIONS):
            scale = 1.37 ** (number % 23) * (1 + 0.21 * place)
            figures: dict[str, Any] = {
                "latency_ms": 0.123456 * scale,
                "latency_low_ms": 0.1198765 * scale,
                "latency_high_ms": 0.1298765 * scale,
                "throughput_ips": 1234.5678 / scale,
                "peak_memory_bytes": round(98765432 * scale),
                "model_size_bytes": round(54321234 * scale),
                "parameters": 1_000_000 * (number + 1),
            }
            if precision != "fp32":
                figures |= {"speedup": 1 / scale, "speedup_low": 0.97 / scale, "speedup_high": 1.04 / scale}
                figures |= {"memory_reduction": 0.2512345 - 0.01 * number, "sqnr_db": 58.6543 / (1 + place)}
            category = ("edge", "production")[number % 2]
            records.append(make_record(f"net-{number}", precision, category=category, **figures))
    return records


def samples_of(records: Sequence[Record], number: int) -> list[SamplesLine]:
    lines = []
    for record in records:
        times = [record.timing.latency_ms * (1 + ((37 * i) % number) / number / 5) for i in range(number)]
        pair = record.case_id
        lines.append(SamplesLine(pair.model, pair.scheme, pair.batch, make_samples(times)))
    return lines


@pytest.fixture(scope="module")
def page() -> Element:
    records = matrix()
    return read_page(render_page(results_of(*records), samples_of(records, 300)))


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not about charts need not wait for them."""
    monkeypatch.setattr(page_render, "chart_images", lambda *_: [])


@pytest.mark.usefixtures("page", "no_charts")
class TestFigures:
    """That every one is study.json's, test_one_number.py shows."""

    def test_what_was_not_measured_is_empty(self) -> None:
        record = make_record(
            latency_low_ms=None, latency_high_ms=None, speedup=None, speedup_low=None, peak_memory_bytes=None
        )
        (row,) = table_of(read_page(render_page(results_of(record))))
        for title in ("95 % interval, ms", "speedup", "95 % interval", "peak MiB"):
            assert row[title].text == ""
            assert "data-key" not in row[title].attributes

    def test_a_column_that_nobody_fills_is_left_out(self, page: Element) -> None:
        assert not {"mJ/image", "accuracy", "verdict"} & set(table_of(page)[0])

    def test_a_launch_bound_pair_says_so(self) -> None:
        (row,) = table_of(read_page(render_page(results_of(make_record(launch_bound=True)))))
        assert row["scheme"].text == "int8 (launch-bound)"

    def test_of_a_pair_measured_twice_the_last_counts(self) -> None:
        (row,) = table_of(read_page(render_page(results_of(make_record(), make_record(latency_ms=20.0)))))
        assert row["median ms"].text == "20"


@pytest.mark.usefixtures("page", "no_charts")  # in this order: that page has charts
class TestVerdicts:
    def test_stand_before_everything_else(self) -> None:
        records = [
            make_record("a", verdict=Status.FAIL, reason="latency +40.0 %"),
            make_record("b", verdict=Status.PASS),
            make_record("c", verdict=Status.NO_BASELINE, reason="no baseline"),
            make_record("d", verdict=Status.NO_BASELINE, reason="no baseline"),
        ]
        document = read_page(render_page(results_of(*records)))
        assert document.all("h1")[0].text == "1 of 2 compared pairs FAILs; 2 were not compared: no baseline."
        first, *_ = document.all("section")
        assert [item.text for item in first.all("ul")[0].all("li")] == ["1 FAIL", "2 NO_BASELINE", "1 PASS"]
        assert "latency +40.0 %" in first.all("article")[0].text
        assert [item.text for item in first.all("details")[0].all("li")] == ["c-int8, d-int8: no baseline"]
        assert [row["verdict"].text for row in table_of(document)] == ["FAIL", "PASS", "NO_BASELINE", "NO_BASELINE"]

    def test_a_fail_says_what_changed_inside(self) -> None:
        record = make_record(verdict=Status.FAIL, reason="latency +40.0 %")
        before, now = {"aten::linear": Operator(10, 5.0, 0)}, {"aten::copy_": Operator(10, 9.0, 0)}
        explained = {record.case_id: Explained(record.reason, ("latency",), before, now)}
        (article,) = read_page(render_page(results_of(record), explained=explained)).all("article")
        assert "aten::copy_ appeared" in article.text
        assert "aten::linear vanished" in article.text

    def test_a_fail_in_memory_says_what_holds_it(self) -> None:
        record = make_record(verdict=Status.FAIL, reason="peak memory +40.0 %")
        tables = {"aten::add": Operator(1, 1.0, 0)}, {"aten::add": Operator(1, 1.0, 4 * MIB)}
        explained = {
            record.case_id: Explained(record.reason, ("peak_memory",), *tables, peak=("net.py:7 holds 4.0 MiB",))
        }
        (article,) = read_page(render_page(results_of(record), explained=explained)).all("article")
        assert "aten::add keeps 4.0 MiB" in article.text
        assert "net.py:7 holds 4.0 MiB" in article.text

    def test_a_run_that_judged_nothing_says_so(self, page: Element) -> None:
        assert page.all("h1")[0].text == "8 pairs measured, none judged: this run did not gate."

    def test_what_could_not_be_measured_is_told(self) -> None:
        failure = Failure("net-int4", "ConversionError", "no layer\nat all", "net")
        document = read_page(render_page(results_of(make_record(), failures=(failure,), complete=False)))
        assert "net-int4: ConversionError: no layer at all" in document.text
        assert "the run was interrupted" in document.text

    def test_an_empty_run_has_a_page(self) -> None:
        document = read_page(render_page(results_of()))
        assert document.all("h1")[0].text == "Nothing was measured."
        assert document.all("img") == []


class TestExplained:
    TABLES: ClassVar = {
        "failed": ["latency"],
        "before": {"a": {"calls": 1, "self_ms": 2.0, "self_bytes": 0}},
        "now": {},
        "peak": [],
    }

    def write(self, directory: Path, name: str, content: str) -> None:
        (directory / EXPLAINED).mkdir(exist_ok=True)
        (directory / EXPLAINED / name).write_text(content)

    def test_is_read_for_the_verdict_that_it_was_taken_for(self, tmp_path: Path) -> None:
        record = make_record(verdict=Status.FAIL, reason="slower")
        self.write(tmp_path, "net-int8.json", json.dumps({"reason": "slower", **self.TABLES}))
        assert read_explained(tmp_path, [record])[record.case_id].before == {"a": Operator(1, 2.0, 0)}
        assert read_explained(tmp_path, [replace(record, reason="another run's")]) == {}

    def test_no_name_leads_out_of_its_folder(self, tmp_path: Path) -> None:
        self.write(tmp_path, "x.json", "{}")
        (tmp_path / "y-int8.json").write_text(json.dumps({"reason": "slower", **self.TABLES}))
        record = make_record("../y", verdict=Status.FAIL, reason="slower")
        assert read_explained(tmp_path, [record]) == {}

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path, "net-int8.json", "{")
        with pytest.raises(Exception, match=r"net-int8\.json does not explain a verdict"):
            read_explained(tmp_path, [make_record(verdict=Status.FAIL)])

    def test_a_run_without_any_has_none(self, tmp_path: Path) -> None:
        assert read_explained(tmp_path, [make_record()]) == {}


class TestPolicy:
    def test_allows_this_style_this_script_and_nothing_else(self, page: Element) -> None:
        (policy,) = [m for m in page.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
        directives = dict(part.strip().split(" ", 1) for part in policy.attributes["content"].split(";"))
        hashes = {}
        for tag in ("style", "script"):
            (element,) = page.all(tag)
            digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
            hashes[f"{tag}-src"] = f"'sha256-{digest}'"
        closed = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
        assert directives == {**closed, **hashes, "img-src": "data:"}

    def test_nothing_needs_what_the_policy_forbids(self, page: Element) -> None:
        for element in page.everything():
            assert "style" not in element.attributes
            assert not [name for name in element.attributes if name.startswith("on")]
            for name in ("src", "srcset", "href"):
                assert re.match(r"#|data:image/svg\+xml;base64,", element.attributes.get(name, "#"))

    def test_the_script_is_short_and_writes_no_html(self, page: Element) -> None:
        (script,) = page.all("script")
        assert len(script.text.splitlines()) < 200
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval|Function\(|fetch|XMLHttp", script.text)


class TestHostileNames:
    @pytest.fixture(scope="class")
    @classmethod
    def rendered(cls) -> bytes:
        records = [
            make_record(name, precision, category=name, verdict=Status.FAIL, reason=name, note=name, method=name)
            for name in HOSTILE
            for precision in ("fp32", "int8")
        ]
        history = [side(records, name=HOSTILE[0])]
        results = results_of(*records, failures=tuple(Failure(name, name, name, name) for name in HOSTILE))
        explained = {
            r.case_id: Explained(
                r.reason, ("latency",), {HOSTILE[0]: Operator(1, 1, 1)}, {HOSTILE[2]: Operator(2, 2, 2)}
            )
            for r in records
        }
        return render_page(results, samples_of(records, 4), history, explained)

    def test_add_no_element_that_runs_or_loads(self, rendered: bytes) -> None:
        document = read_page(rendered)
        assert len(document.all("script")) == 1
        tags = {element.tag for element in document.everything()}
        assert not tags & {"iframe", "object", "embed", "link", "base", "form", "foreignobject", "a" + "pplet"}
        assert len(document.all("img")) == 4  # the charts
        for element in document.everything():
            assert not [name for name in element.attributes if name.startswith("on")]
            assert element.attributes.get("href", "#").startswith("#")
        assert b"<!--" not in rendered

    def test_stand_whole_in_their_cell(self, rendered: bytes) -> None:
        names = {row["model"].text for row in table_of(read_page(rendered))}
        assert {"</script><script>alert(1)</script>", "<!--", "a|b", "{{ 7 * 7 }}{% raw %}"} <= names
        assert {r"net\n::error::all is lost", r"\x1b[31mred\x1b[0m", r"safe\u202eevil"} <= names
        assert len(names) == len(HOSTILE)

    def test_leave_no_character_that_reorders_or_hides_text(self, rendered: bytes) -> None:
        text = rendered.decode()
        assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} <= {"\n"}
        assert not re.search(r"^\s*::", text, re.MULTILINE)

    def test_charts_are_inert_and_well_formed(self, rendered: bytes) -> None:
        images = re.findall(rb"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", rendered)
        assert len(images) == 8
        for image in images:
            for element in ElementTree.fromstring(base64.b64decode(image)).iter():
                assert element.tag.rpartition("}")[2].lower() not in ("script", "foreignobject", "image", "a")
                assert not [name for name in element.attrib if name.lower().startswith("on")]


class TestCharts:
    def test_each_has_words_both_themes_and_a_size(self, page: Element) -> None:
        pictures = page.all("picture")
        assert len(pictures) == 4
        for picture in pictures:
            (image,) = picture.all("img")
            (dark,) = picture.all("source")
            assert dark.attributes["media"] == "(prefers-color-scheme: dark)"
            assert dark.attributes["srcset"] != image.attributes["src"]
            assert "in the table of results" in image.attributes["alt"]
            assert int(image.attributes["width"]) > 100
            assert int(image.attributes["height"]) > 100


class TestStrips:
    def test_show_at_most_so_many_quantiles_a_pair(self) -> None:
        records = [make_record()]
        for processes in (1, 3):
            (group,) = strip_groups(records, samples_of(records, 5000) * processes)
            (strip,) = group.strips
            assert len(strip.lanes) == processes
            assert sum(lane.ticks.lower().count("m") for lane in strip.lanes) <= MOST_QUANTILES

    def test_a_spread_keeps_both_ends(self) -> None:
        assert spread([1.0, 2.0, 3.0], 5) == [1.0, 2.0, 3.0]
        assert spread([float(i) for i in range(1001)], 5) == [0.0, 250.0, 500.0, 750.0, 1000.0]

    def test_pairs_of_a_model_share_an_axis(self) -> None:
        slow, fast = make_record("net", "fp32", latency_ms=40.0), make_record("net", "int8", latency_ms=10.0)
        (group,) = strip_groups([slow, fast], samples_of([slow, fast], 50))
        assert (group.shortest, group.longest) == ("10", "47.8 ms")
        assert group.strips[1].lanes[0].high < group.strips[0].lanes[0].low

    def test_median_and_number_are_the_studys(self, page: Element) -> None:
        strips = [
            row for table in page.all("table") if table.attributes.get("class") == "strips" for row in rows_in(table)
        ]
        medians = [row["median ms"].text for row in table_of(page)]
        assert [cells[1] for cells in strips] == medians
        assert {cells[2] for cells in strips} == {"300"}

    def test_equal_samples_and_single_ones_are_drawn(self) -> None:
        record = make_record()
        pair = record.case_id
        for times in ([5.0], [5.0, 5.0, 5.0]):
            line = SamplesLine(pair.model, pair.scheme, pair.batch, make_samples(times))
            (group,) = strip_groups([record], [line])
            assert group.strips[0].lanes[0].box_width == 0

    def test_without_samples_there_is_no_section(self) -> None:
        assert 'id="distributions"' not in render_page(results_of(make_record())).decode()


def rows_in(table: Element) -> list[list[str]]:
    return [[e.text for e in row.inside] for row in table.all("tbody")[0].all("tr")]


def side(records: Sequence[Record], name: str = "before", slug: str = "cpu-a", **changes: Any) -> Side:
    """A run of the same pairs, measured a month earlier."""
    estimates = make_estimates(**({"date_utc": "2025-12-01T00:00:00Z", "latency_ms": 12.0} | changes))
    pairs = tuple(SidePair.of(r.case_id, "local", make_entry([estimates], r.setup)) for r in records)
    return Side("H", name, SideKind.RUN, {"device": slug}, pairs)


@pytest.mark.usefixtures("page", "no_charts")
class TestHistory:
    def trends(self, record: Record, *history: Side) -> list[list[str]]:
        document = read_page(render_page(results_of(record), history=history))
        return [
            row
            for table in document.all("table")
            if table.attributes.get("class") == "trends"
            for row in rows_in(table)
        ]

    def test_is_left_out_where_none_is_given(self, page: Element) -> None:
        assert "History" not in page.text

    def test_shows_a_pair_over_time(self) -> None:
        record = make_record()
        (row,) = self.trends(record, side([record]), side([record], date_utc="2025-11-01T00:00:00Z", latency_ms=14.0))
        assert row[:9] == ["net", "int8", "1", "2025-11-01", "2", "13", "10", "10", "14"]

    def test_counts_a_process_once(self) -> None:
        record = make_record()
        own = side([record], date_utc=ENVIRONMENT.date_utc, latency_ms=10.0)
        (row,) = self.trends(record, side([record]), side([record]), own)
        assert row[4] == "1"

    def test_leaves_out_another_setup_and_names_another_device(self) -> None:
        record = make_record()
        other = replace(record, setup=replace(record.setup, threads=2))
        assert self.trends(record, side([other])) == []
        document = read_page(render_page(results_of(record), history=[side([record], "far away", slug="cpu-b")]))
        assert "Measured on another device, and not shown: far away." in document.text
        assert "No pair of this run was measured before" in document.text


def test_sixty_four_pairs_make_a_small_page_soon() -> None:
    records = matrix(16)
    results, samples = results_of(*records), samples_of(records, 300)
    started = time.process_time()
    rendered = render_page(results, samples)
    assert time.process_time() - started < 10
    assert len(rendered) < 2_000_000
