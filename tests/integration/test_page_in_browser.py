"""The page in headless Chromium: what runs, what is asked for, sorting and filtering, dark, narrow, printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Tab
from factories import ENVIRONMENT, make_entry, make_estimates, make_record, make_samples

pytest.importorskip("vl_convert", reason="the charts need the extra `report`")
pytest.importorskip("jinja2", reason="the page needs the extra `report`")

from pytest_vq.report.page import page_images, page_render
from pytest_vq.report.page.page_render import render_page
from pytest_vq.schema.estimates import Estimates, Operator
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Record
from pytest_vq.schema.side import Side, SideKind, SidePair
from pytest_vq.schema.verdict import Status
from pytest_vq.store.explained import Explained
from pytest_vq.store.results import Results, Row
from pytest_vq.store.samples import SamplesLine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")

HOSTILE = ("</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<!--", "safe\u202eevil")
SHOWN = "Array.from(document.querySelectorAll('#results tbody tr:not(.spacer)'), (row) => row.cells[0].textContent)"


def results_of(records: Sequence[Record]) -> Results:
    rows = tuple(Row(record, ENVIRONMENT, (Estimates.of(record, ENVIRONMENT),)) for record in records)
    return Results({}, (ENVIRONMENT,), rows, (), "2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00", True)


def few() -> list[Record]:
    """Pairs of which one has no speedup, and two are of another category; their ids tell their place in the page."""
    return [
        make_record("a", speedup=2.0, category="edge", parameters=50, verdict=Status.PASS),
        make_record("b", speedup=None, category="edge", parameters=40, verdict=Status.FAIL, reason="slower"),
        make_record("c", speedup=10.0, category="cloud", parameters=30, verdict=Status.PASS),
        make_record("d", speedup=0.5, category="cloud", parameters=20, verdict=Status.NO_BASELINE, reason="none"),
    ]


def written(directory: Path, records: Sequence[Record]) -> Path:
    path = directory / "report.html"
    path.write_bytes(render_page(results_of(records), samples_of(records)))
    return path


def samples_of(records: Sequence[Record]) -> list[SamplesLine]:
    return [SamplesLine(r.identity.model, r.setup.scheme, 1, make_samples()) for r in records]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with Tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("page"), few())


@pytest.fixture
def opened(tab: Tab, path: Path) -> Tab:
    tab.open(path)
    return tab


def test_a_hostile_page_runs_and_asks_for_nothing(tab: Tab, tmp_path: Path) -> None:
    records = [
        make_record(name, category=name, verdict=Status.FAIL, reason=name, note=name, sqnr_db=20.0) for name in HOSTILE
    ]
    path = written(tmp_path, records)
    tab.open(path)
    tab.run("new Promise((done) => setTimeout(done, 300))")
    assert tab.complaints == []
    outside = [url for url in tab.requests if not url.startswith("data:image/svg+xml;base64,")]
    assert outside == [path.as_uri()]
    assert tab.run("Array.from(document.images, (image) => image.complete && image.naturalWidth > 100)") == [True] * 4
    assert tab.run(SHOWN + ".length") == len(HOSTILE)


def test_the_policy_refuses_a_script_and_a_style_that_are_not_ours(opened: Tab) -> None:
    opened.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    opened.run("document.body.setAttribute('style', 'opacity: 0.5')")
    assert opened.run("window.ran === undefined && getComputedStyle(document.body).opacity === '1'")
    assert len(opened.complaints) == 2


class TestSorting:
    HEAD = "Array.from(document.querySelectorAll('#results thead th')).find((head) => head.textContent === 'speedup')"

    def sort(self, tab: Tab) -> list[str]:
        tab.run(f"{self.HEAD}.querySelector('button').click()")
        return list(tab.run(SHOWN))

    def test_blanks_stand_last_both_ways(self, opened: Tab) -> None:
        assert self.sort(opened) == ["d", "a", "c", "b"]
        assert opened.run(f"{self.HEAD}.getAttribute('aria-sort')") == "ascending"
        assert self.sort(opened) == ["c", "a", "d", "b"]
        assert opened.run(f"{self.HEAD}.getAttribute('aria-sort')") == "descending"
        assert opened.run("document.querySelectorAll('[aria-sort]').length") == 1

    @pytest.mark.parametrize(("key", "code", "text"), [("Enter", 13, "\r"), ("Space", 32, " ")])
    def test_by_keyboard(self, opened: Tab, key: str, code: int, text: str) -> None:
        opened.run(f"{self.HEAD}.querySelector('button').focus()")
        opened.press(" " if key == "Space" else key, code, text)
        assert opened.run(SHOWN) == ["d", "a", "c", "b"]
        assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


class TestFiltering:
    @staticmethod
    def choose(tab: Tab, name: str, value: str) -> list[str]:
        tab.run(
            f"(() => {{ const f = document.querySelector('[data-filter={name}]'); f.value = {value!r};"
            " f.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        return list(tab.run(SHOWN))

    def test_by_each_of_its_fields(self, opened: Tab) -> None:
        assert self.choose(opened, "category", "cloud") == ["c", "d"]
        assert self.choose(opened, "verdict", "PASS") == ["c"]
        assert opened.run("document.getElementById('shown').textContent") == "1 of 4 rows shown"
        opened.run("document.querySelector('#filters button').click()")
        assert opened.run(SHOWN) == ["a", "b", "c", "d"]
        assert self.choose(opened, "model", " B ") == ["b"]
        assert self.choose(opened, "scheme", "int8") == ["b"]

    def test_paper_shows_every_row_and_reason(self, opened: Tab) -> None:
        self.choose(opened, "category", "cloud")
        opened.run("window.dispatchEvent(new Event('beforeprint'))")
        assert opened.run(SHOWN) == ["a", "b", "c", "d"]
        assert opened.run("document.querySelectorAll('details:not([open])').length") == 0
        opened.run("window.dispatchEvent(new Event('afterprint'))")
        assert opened.run(SHOWN) == ["c", "d"]

    def test_paper_has_no_controls(self, opened: Tab) -> None:
        opened.send("Emulation.setEmulatedMedia", media="print")
        try:
            hidden = "getComputedStyle(document.querySelector(name)).display === 'none'"
            assert opened.run(f"['#filters', '#shown', 'nav', '.skip'].every((name) => {hidden})")
        finally:
            opened.send("Emulation.setEmulatedMedia", media="")


def prefer(tab: Tab, theme: str) -> None:
    tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    tab.run("new Promise((done) => setTimeout(done, 200))")


def test_dark_and_light_each_have_their_colours_and_charts(opened: Tab) -> None:
    looks = []
    for theme in ("light", "dark"):
        prefer(opened, theme)
        looks.append(opened.run("[getComputedStyle(document.body).backgroundColor, document.images[0].currentSrc]"))
    opened.send("Emulation.setEmulatedMedia", features=[])
    assert [ground for ground, _ in looks] == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
    assert looks[0][1] != looks[1][1]


def test_a_narrow_screen_scrolls_the_tables_and_not_the_page(opened: Tab) -> None:
    opened.send("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=False)
    try:
        assert opened.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert opened.run("document.getElementById('results').parentElement.scrollWidth") > 320
    finally:
        opened.send("Emulation.clearDeviceMetricsOverride")


def test_with_scripts_off_table_and_charts_remain(tab: Tab, path: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(path)
        assert tab.run(SHOWN) == ["a", "b", "c", "d"]
        assert tab.run("document.querySelectorAll('#results button').length") == 0
        assert tab.run("getComputedStyle(document.getElementById('filters')).display") == "none"
        assert tab.run("Array.from(document.images, (image) => image.naturalWidth > 100)") == [True] * 4
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


class TestAccessibility:
    """By axe-core, which finds what a program can find: contrast, names, roles, the order of headings."""

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A page with something in each of its sections."""
        records = [
            make_record(name, precision, verdict=verdict, reason=f"{verdict} for a reason", note="a note", sqnr_db=20.0)
            for name, verdict in zip("abcdef", Status, strict=True)
            for precision in ("int8", "int4")
        ]
        failures = (Failure("g-int8", "BuildError", "broken", "g"),)
        table = {"aten::mm": Operator(1, 5.0, 0)}, {"aten::mm": Operator(1, 9.0, 0)}
        explained = {record.case_id: Explained(record.reason, ("latency",), *table) for record in records}
        earlier = make_estimates(date_utc="2025-12-01T00:00:00Z")
        pairs = tuple(SidePair.of(r.case_id, "local", make_entry([earlier], r.setup)) for r in records)
        history = [Side("H", "before", SideKind.RUN, {"device": ENVIRONMENT.device_slug}, pairs)]
        results = replace(results_of(records), failures=failures, complete=False)
        path = tmp_path_factory.mktemp("whole") / "report.html"
        path.write_bytes(render_page(results, samples_of(records), history, explained))
        return path

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_nothing_serious_is_found(self, tab: Tab, whole: Path, theme: str) -> None:
        axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python, which brings axe-core")
        tab.open(whole)
        tab.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        prefer(tab, theme)
        try:
            tab.run(files(axe).joinpath("axe.min.js").read_text(encoding="utf-8") + "; true")
            found = tab.run(
                "axe.run().then(({violations, passes}) => ({passed: passes.map((rule) => rule.id), violations:"
                " violations.map(({id, impact, nodes}) => [impact, id, nodes.slice(0, 3).map((n) => n.html)])}))"
            )
        finally:
            tab.send("Emulation.setEmulatedMedia", features=[])
        assert [violation for violation in found["violations"] if violation[0] in ("serious", "critical")] == []
        assert {"color-contrast", "document-title", "image-alt", "label", "scrollable-region-focusable"} <= set(
            found["passed"]
        )


def test_two_hundred_columns_scroll_and_can_be_read(tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_images, "_DRAWN_TWICE", 0)  # the light theme is enough here
    records = [make_record("net", f"scheme-{n}", speedup=1 + n / 100) for n in range(200)]
    tab.open(written(tmp_path, records))
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    image = "document.querySelector('[aria-label=\"Speedup over FP32\"] img')"
    scroller = f"{image}.closest('.scroll')"
    width, seen, shown = tab.run(f"[{image}.naturalWidth, {scroller}.clientWidth, {image}.clientWidth]")
    assert width == shown >= 200 * 76  # as wide as its figures need, and not shrunk
    assert seen < 2000
    tab.run(f"{scroller}.scrollLeft = {width}")
    assert tab.run(f"{scroller}.scrollLeft + {scroller}.clientWidth >= {width}")
    assert tab.run(f"{scroller}.tabIndex") == 0  # by keyboard too


class TestManyRows:
    NUMBER = 2000

    @pytest.fixture(scope="class")
    @classmethod
    def page(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        one = make_record()
        records = [
            replace(
                one,
                identity=replace(one.identity, model=f"net-{n:04}"),
                timing=replace(one.timing, latency_ms=1 + (7919 * n) % cls.NUMBER),
            )
            for n in range(cls.NUMBER)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(page_render, "chart_images", lambda *_: [])
            return written(tmp_path_factory.mktemp("many"), records)

    @pytest.fixture
    def many(self, tab: Tab, page: Path) -> Tab:
        tab.open(page)
        return tab

    def scrolled_to(self, tab: Tab, place: str) -> list[str]:
        tab.run(
            f"new Promise((done) => {{ const s = document.querySelector('.windowed'); s.scrollTop = {place};"
            " requestAnimationFrame(() => requestAnimationFrame(done)); })"
        )
        return list(tab.run(SHOWN))

    def test_only_those_in_sight_are_drawn(self, many: Tab) -> None:
        first = many.run(SHOWN)
        assert first[0] == "net-0000"
        assert len(first) < 200
        last = self.scrolled_to(many, "s.scrollHeight")
        assert last[-1] == f"net-{self.NUMBER - 1:04}"
        assert len(last) < 200
        assert many.run("document.getElementById('results').getAttribute('aria-rowcount')") == str(self.NUMBER + 1)

    def test_sorting_sorts_all_of_them(self, many: Tab) -> None:
        slowest = (
            "Array.from(document.querySelectorAll('#results thead button')).find((b) => b.textContent === 'median ms')"
        )
        many.run(f"{slowest}.click(); {slowest}.click()")
        shown: list[Any] = many.run(
            "Array.from(document.querySelectorAll('#results tbody tr:not(.spacer)'), (r) => r.cells[4].textContent)"
        )
        assert shown[:3] == ["2000", "1999", "1998"]

    def test_paper_has_them_all(self, many: Tab) -> None:
        many.run("window.dispatchEvent(new Event('beforeprint'))")
        assert many.run(SHOWN + ".length") == self.NUMBER
        many.run("window.dispatchEvent(new Event('afterprint'))")
        assert many.run(SHOWN + ".length") < 200
