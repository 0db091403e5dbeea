"""The comment under a pull request: found again by its marker, short where all is well, harmless whatever it names."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import pytest
from factories import ENVIRONMENT, make_outcome, make_record

from pytest_vq.report.comment import MARKER, OPEN_LINE, RESOLVED_LINE, comment
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results, Row

GITHUB_TAKES = 65_536
SLOWER = "latency (10 % quantile) 30.0 ms → 40.0 ms (+33.3 %)"
HOSTILE = (
    "a|b\n| c | d |",
    "</details><script>alert(1)</script>",
    "@org/team #12",
    "`code` \x1b[31m",
    "net\n::error::all is lost",
    "safe\u202eevil",
    f"{MARKER}\n{RESOLVED_LINE}",
)


def make_results(
    *records: Record, failures: tuple[Failure, ...] = (), environment: Environment = ENVIRONMENT, **changes: Any
) -> Results:
    rows = tuple(Row(record, environment, make_outcome(record).estimates) for record in records)
    options = {"models": None, "precisions": "fp32,int8", "batch": [1]}
    return replace(Results(options, (environment,), rows, failures, "start", "end", complete=True), **changes)


def judged(verdict: Status, reason: str = "", model: str = "net", **columns: Any) -> Record:
    return make_record(model, verdict=verdict, reason=reason, **columns)


def lines_of(results: Results) -> list[str]:
    return comment(results).splitlines()


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("| pair", "| ---"))]


FAILED = judged(Status.FAIL, SLOWER)
PASSED = judged(Status.PASS, model="fine-net")


class TestContent:
    def test_only_what_somebody_should_look_at_has_a_row(self) -> None:
        unsure = judged(Status.INCONCLUSIVE, "a busy neighbour", "other-net")
        text = comment(make_results(PASSED, FAILED, unsure))
        assert "## pytest-vq: 1 FAIL, 1 INCONCLUSIVE, 1 PASS on A CPU\n" in text
        first, second = table_rows(text)
        assert first == f"| net-int8 | FAIL | {SLOWER} | 10.0 ms | 2.00x | 100.0 MiB |"
        assert second.startswith("| other-net-int8 | INCONCLUSIVE | a busy neighbour |")
        assert "fine-net" not in text

    def test_what_could_not_be_measured_is_open_too(self) -> None:
        text = comment(make_results(PASSED, failures=(Failure("net-int4", "BuildError", "no such file"),)))
        assert OPEN_LINE in text
        assert "1 PASS, 1 not measured" in text
        assert table_rows(text) == ["| net-int4 | BuildError | no such file |"]

    def test_where_all_is_well_it_is_short(self) -> None:
        lines = lines_of(make_results(PASSED, judged(Status.IMPROVED), judged(Status.NO_BASELINE)))
        assert lines[1:] == [
            RESOLVED_LINE,
            "Resolved: nothing FAILs and nothing is INCONCLUSIVE on A CPU: 1 NO_BASELINE, 1 IMPROVED, 1 PASS.",
        ]

    @pytest.mark.parametrize("verdict", [Status.NO_BASELINE, Status.INCOMPARABLE, None])
    def test_without_a_comparison_nothing_is_resolved(self, verdict: Status | None) -> None:
        text = comment(make_results(make_record(verdict=verdict)))
        assert OPEN_LINE in text
        assert "No pair could be compared with a baseline" in text
        assert table_rows(text) == []

    def test_nor_where_the_run_was_interrupted_or_measured_nothing(self) -> None:
        assert "The run was interrupted" in comment(make_results(PASSED, complete=False))
        assert "nothing was measured" in comment(make_results())
        assert OPEN_LINE in comment(make_results())


class TestMarker:
    def test_it_is_the_beginning_and_one_of_a_kind(self) -> None:
        first, second, *rest = lines_of(make_results(FAILED))
        assert re.fullmatch(re.escape(MARKER) + r"<!-- pytest-vq:cpu-a-[0-9a-f]{12} -->", first)
        assert second == OPEN_LINE
        assert not any("<!--" in line for line in rest)

    def test_a_later_run_of_the_same_job_has_the_same(self) -> None:
        first = lines_of(make_results(FAILED))[0]
        fewer = make_results(PASSED, options={"models": None, "precisions": "fp32,int8", "batch": (1,), "runs": 3})
        assert lines_of(fewer)[0] == first

    def test_another_device_or_another_selection_has_another(self) -> None:
        elsewhere = replace(ENVIRONMENT, device_slug="nvidia-h100")
        found = {
            lines_of(make_results(FAILED))[0],
            lines_of(make_results(FAILED, environment=elsewhere))[0],
            lines_of(make_results(FAILED, options={"models": "all"}))[0],
        }
        assert len(found) == 3

    @pytest.mark.parametrize("slug", ["--> <script>", f"x {MARKER}", "a--b\n", "", "ü" * 500])
    def test_no_device_breaks_out_of_it(self, slug: str) -> None:
        first, second, *_ = lines_of(make_results(FAILED, environment=replace(ENVIRONMENT, device_slug=slug)))
        assert re.fullmatch(r"<!-- pytest-vq --><!-- pytest-vq:[a-z0-9]+(-[a-z0-9]+)* -->", first)
        assert second == OPEN_LINE


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_does_nothing(name: str) -> None:
    record = judged(Status.FAIL, f"why: {name}", name)
    failure = Failure(name, "BuildError", name)
    text = comment(make_results(record, failures=(failure,), environment=replace(ENVIRONMENT, device_name=name)))
    body = text.split("\n", 2)[2]
    assert "<" not in body
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not re.search(r"(^|\n)\s*::", body)
    assert not re.search(r"@\w|#\d", html.unescape(re.sub(r"&#\d+;", "", body)))
    rows = table_rows(text)
    assert [row.count(" | ") for row in rows] == [5, 2]
    assert all(line.startswith(("#", "|")) or not line for line in body.splitlines())


class TestSize:
    def test_it_is_cut_on_a_row_and_says_what_was_cut(self) -> None:
        many = [judged(Status.FAIL, "slower " * 20, f"net-{i}") for i in range(1000)]
        text = comment(make_results(*many, *[judged(Status.INCONCLUSIVE, "unsure", "last-net")] * 5))
        assert len(text.encode()) < GITHUB_TAKES
        rows = table_rows(text)
        assert [row.split(" ")[1] for row in rows] == [f"net-{i}-int8" for i in range(len(rows))]
        assert all(row.endswith(" |") for row in rows)
        assert text.endswith(
            f"\nCut here, for GitHub takes no more; rows left out: {1000 - len(rows)} FAIL, 5 INCONCLUSIVE. "
            "results.csv and study.json have them all.\n"
        )

    @pytest.mark.parametrize("length", [10_000, 1_000_000])
    def test_one_endless_reason_leaves_room_for_the_others(self, length: int) -> None:
        text = comment(make_results(judged(Status.FAIL, "|" * length), FAILED))
        assert len(text.encode()) < GITHUB_TAKES
        assert len(table_rows(text)) == 2
        assert f"… ({length - 1500} more characters)" in text

    def test_no_number_of_devices_loses_the_marker(self) -> None:
        devices = tuple(replace(ENVIRONMENT, device_name=f"{i} {'<' * 1000}") for i in range(50))
        text = comment(make_results(FAILED, environments=devices))
        assert len(text.encode()) < GITHUB_TAKES
        assert text.startswith(MARKER)
        assert text.endswith("1 FAIL\n")
