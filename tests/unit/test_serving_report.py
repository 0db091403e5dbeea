"""Rows of pairs under load: told apart from pairs everywhere, and shown in tables and sections of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from factories import (
    ENVIRONMENT,
    HOSTILE,
    MIB,
    SERVING_TERMS,
    alter,
    make_callable_record,
    make_entry,
    make_estimates,
    make_outcome,
    make_record,
    make_samples,
    make_serving_record,
    make_setup,
)

from pytest_vq.cli.ab_command import compare_sides
from pytest_vq.cli.main import main
from pytest_vq.gate.noise import LATENCY, learn_noise
from pytest_vq.report.candidates import candidates_of
from pytest_vq.report.chart_data import chart_rows, ordered_pairs
from pytest_vq.report.comment import comment
from pytest_vq.report.job_summary import job_summary
from pytest_vq.report.next_command import measure_again, record_baselines
from pytest_vq.report.page.page_render import render_page
from pytest_vq.report.report_callables import rows_in_words
from pytest_vq.report.report_categories import summarize_categories
from pytest_vq.report.serving_claims import Claim, shown_claim
from pytest_vq.report.study_report import study_report
from pytest_vq.report.table import records_table
from pytest_vq.schema.load_run import SCENARIOS
from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import MOST_INFLATION, MOST_UTILISATION, BatchTime, LoadEvidence, ServingEstimates
from pytest_vq.schema.verdict import Status
from pytest_vq.serve.tails import DEFAULT_CLAIM
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.merge import merge_runs
from pytest_vq.store.results import Results, Row, read_results
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.samples import read_samples

LATE = "2 % of requests late"
PAIR, SERVED = make_record(verdict=Status.PASS), make_serving_record(verdict=Status.PASS)
FAILED = make_serving_record("vit", verdict=Status.FAIL, reason=LATE, violation_rate=0.02, violation_low=0.015)
OFFLINE = make_serving_record(terms=replace(SERVING_TERMS, scenario="Offline"), target_qps=None, utilisation=None)


def results_of(*records: Record) -> Results:
    rows = tuple(Row(one, ENVIRONMENT, make_outcome(one).estimates) for one in records)
    return Results({}, (ENVIRONMENT,), rows, (), "then", "now", complete=True)


def write(directory: Path, *records: Record) -> Path:
    writer = ResultsWriter(directory, {})
    for one in records:
        writer.add(make_outcome(one, samples=(make_samples((one.timing.latency_ms,)),)))
    writer.close()
    return directory


def section(report: str, title: str) -> str:
    return report.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


class TestToldApart:
    def test_charts_tables_and_choices_of_pairs_hold_none(self) -> None:
        records = [SERVED, PAIR, SERVED]
        assert ordered_pairs(records) == [PAIR]
        assert chart_rows(records).values("latency_ms") == [10.0]
        assert [found.record for found in candidates_of(results_of(*records).rows)] == [PAIR]

    def test_fp32_under_load_is_nobodys_reference(self) -> None:
        rows = results_of(make_serving_record(precision="fp32"), PAIR).rows
        assert [found.reference for found in candidates_of(rows)] == [None]

    def test_a_category_of_them_alone_has_no_summary(self) -> None:
        served = make_serving_record("vit", category="edge")
        assert [found.category for found in summarize_categories(results_of(PAIR, served))] == ["local"]

    @pytest.mark.parametrize(
        ("records", "words"),
        [
            ([], "0 pairs"),
            ([SERVED], "1 pair under load"),
            ([PAIR, SERVED, FAILED], "1 pair and 2 under load"),
            ([PAIR, SERVED, make_callable_record()], "1 pair, 1 under load and 1 callable"),
            ([SERVED, make_callable_record()], "1 pair under load and 1 callable"),
        ],
    )
    def test_they_are_counted(self, records: Sequence[Record], words: str) -> None:
        assert rows_in_words(records) == words

    def test_their_times_teach_the_gate_nothing_of_pairs(self) -> None:
        served = [
            make_entry([make_estimates(latency_ms=ms, latency_low_ms=ms) for ms in (9.0, 10.0, 11.0, 12.0)], setup)
            for setup in (replace(SERVED.setup, batch=batch) for batch in range(1, 9))
        ]
        assert LATENCY in learn_noise([replace(one, setup=make_setup()) for one in served]).priors
        assert not learn_noise(served).priors

    def test_ab_does_not_judge_them(self) -> None:
        sides = [[results_of(PAIR, SERVED)] * 3 for _ in "ab"]
        found = {record.id: record.verdict for record in compare_sides(*sides)}
        assert found["net-int8-serving"] is Status.INCOMPARABLE

    def test_merging_keeps_their_samples_and_gives_them_no_pairs_saving(self, tmp_path: Path) -> None:
        served = make_serving_record(peak_memory_bytes=50 * MIB)
        parts = [write(tmp_path / "a", make_record(precision="fp32"), PAIR, served)]
        merge_runs(parts, tmp_path / "merged")
        merged = read_results(tmp_path / "merged").records
        assert [record.memory.memory_reduction for record in merged if record.setup.serving] == [None]
        found = {str(line.case_id): line.samples.subject.times_ms for line in read_samples(tmp_path / "merged")}
        assert found == {"net-fp32": (10.0,), "net-int8": (10.0,), "net-int8-serving": (4.0,)}

    def test_merging_leaves_samples_without_a_row_behind(self, tmp_path: Path) -> None:
        directory = write(tmp_path / "a", PAIR, SERVED)
        study = json.loads((directory / "study.json").read_text())
        study["records"] = [row for row in study["records"] if row["setup"]["serving"] is None]
        (directory / "study.json").write_text(json.dumps(study))
        merge_runs([directory], tmp_path / "merged")
        assert [str(line.case_id) for line in read_samples(tmp_path / "merged")] == ["net-int8"]

    def test_the_next_command_names_their_own_suite(self) -> None:
        tiny = make_serving_record("deit-tiny-patch16-224")
        again = "pytest bench/test_serving.py --vq-models=deit-tiny-patch16-224 --vq-precisions=int8"
        assert measure_again(tiny, {}) == again
        assert record_baselines([tiny], {}) == f"{again} --vq-save"

    def test_of_a_model_of_ones_own_the_option_selects_them(self) -> None:
        assert measure_again(SERVED, {}) == "pytest --vq-serving --vq-models=net --vq-precisions=int8"


class TestBaselines:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        taken = ServingEstimates(10_000, 12, 200.0, 8.25, 400.0, 222.0, 240.0)
        store = BaselineStore(tmp_path)
        for serving, setup in ((taken, SERVED.setup), (None, PAIR.setup)):
            store.append("cpu-a", "A CPU", [("net", setup, make_estimates(serving=serving))])
        return tmp_path

    def test_show_has_their_figures(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["baselines", "show", "net", "--baselines", str(store)]) == 0
        _, served = sorted(capsys.readouterr().out.split("\n\n"), key=lambda text: "served" in text)
        assert "net int8 served (Server, batches up to 8, 99.5 % within 10 ms), load" in served
        assert served.splitlines()[-1].split()[-7:] == [
            "200.00",
            "8.250",
            "0.120",
            "10000.0",
            "400.00",
            "222.00",
            "240.00",
        ]

    def test_list_says_how_they_are_served(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["baselines", "list", "--baselines", str(store)]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "net" in line]
        assert ["served (Server" in line for line in lines].count(True) == 1

    def test_accepting_them_shows_what_changes(
        self, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = make_estimates(serving=ServingEstimates(10_000, 62, 200.0, 9.0, 400.0))
        writer = ResultsWriter(tmp_path / "run", {})
        writer.add(make_outcome(SERVED, estimates=(now,)))
        writer.close()
        assert main(["baselines", "accept", str(tmp_path / "run"), "--baselines", str(store), "--reason", "why"]) == 0
        out = capsys.readouterr().out
        assert "0.120 -> 0.620 (+0.5 points)" in out
        assert "8.250 -> 9.000 (+9.1 %)" in out

    def test_one_that_searched_for_no_rate_is_not_accepted(
        self, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        writer = ResultsWriter(tmp_path / "run", {})
        writer.add(make_outcome(alter(SERVED, max_qps_low=None, max_qps_high=None)))
        writer.close()
        assert main(["baselines", "accept", str(tmp_path / "run"), "--baselines", str(store), "--reason", "why"]) == 1
        assert "has no rate to store (--vq-search finds one)" in capsys.readouterr().err


class TestClaims:
    @pytest.mark.parametrize(
        ("columns", "claim"),
        [
            ({}, Claim.CONFIRMED),
            ({"violation_high": 0.005}, Claim.CONFIRMED),
            ({"violation_high": 0.0051}, Claim.OPEN),
            ({"violation_high": 0.02, "violation_low": 0.005}, Claim.OPEN),
            ({"violation_high": 0.02, "violation_low": 0.0051}, Claim.MISSED),
            ({"violation_high": None, "violation_low": None}, Claim.OPEN),
            ({"utilisation": 0.81}, Claim.OPEN),
            ({"variance_inflation": 20.5}, Claim.OPEN),
            ({"disturbance": "throttled"}, Claim.OPEN),
            ({"utilisation": 0.95, "violation_high": 0.02, "violation_low": 0.0051}, Claim.MISSED),
        ],
    )
    def test_it_is_never_more_than_the_row_shows(self, columns: dict[str, object], claim: Claim) -> None:
        assert shown_claim(make_serving_record(**columns), SERVING_TERMS.allowed_rate) is claim

    def test_its_limits_are_those_of_the_verdict_on_a_tail(self) -> None:
        assert (DEFAULT_CLAIM.most_inflation, DEFAULT_CLAIM.most_utilisation) == (MOST_INFLATION, MOST_UTILISATION)


class TestTerminal:
    def test_they_have_a_table_of_their_own_below_that_of_pairs(self) -> None:
        pairs, served = records_table([SERVED, PAIR]).split("\n\n")
        assert len(pairs.splitlines()) == 3
        lines = served.splitlines()
        assert lines[0] == "served (Server, batches up to 8, 99.5 % within 10 ms)"
        assert lines[3].split("  ")[0] == "net"
        figures = ["200", "222 … 240", "8", "0.1 (≤ 0.2)", "50 %", "1.5", "0.5 / 3", "PASS"]
        assert [cell.strip() for cell in lines[3].split("  ") if cell.strip()][3:] == figures

    def test_alone_they_are_the_only_table(self) -> None:
        assert records_table([SERVED]).startswith("served (Server")

    def test_it_is_no_wider_than_a_wide_terminal(self) -> None:
        served = make_serving_record("vit-base-patch16-384", verdict=Status.INCONCLUSIVE)
        assert max(map(len, records_table([served]).splitlines())) <= 120

    def test_what_was_not_searched_has_no_column(self) -> None:
        assert "highest/s" not in records_table([make_serving_record(max_qps_low=None, max_qps_high=None)])

    def test_a_pair_in_two_scenarios_has_two_rows(self) -> None:
        lines = records_table([SERVED, OFFLINE]).splitlines()
        assert sum(scenario in line for line in lines[4:6] for scenario in SCENARIOS) == 2


class TestReport:
    def test_they_have_a_section(self) -> None:
        slow = replace(FAILED, load=LoadEvidence(SERVING_TERMS, 10_000, (BatchTime(8, 16.0, 500.0),)))
        report = study_report(results_of(PAIR, SERVED, slow)).decode()
        serving = section(report, "Serving")
        assert "| net | int8 | Server | 200 | 222 … 240 | 8 |" in serving
        assert "vit-int8-serving (Server): missed: 99.5 % within 10 ms at 200 queries/s: 2 % late" in serving
        assert "| vit-int8-serving (Server) | 8 | 16.0 ms | 500 |" in serving

    def test_what_was_not_answered_is_named(self) -> None:
        messages = {"RuntimeError": "out of luck"}
        load = LoadEvidence(SERVING_TERMS, 10, outcomes={"ok": 7, "RuntimeError": 3}, messages=messages)
        report = study_report(results_of(replace(SERVED, load=load))).decode()
        assert "3 requests RuntimeError; the first: out of luck" in report
        assert "7 requests" not in report

    @pytest.mark.parametrize(
        ("repeats", "said"),
        [(1, "net-int8-serving (Server): 1 process did not count"), (2, "2 processes did not count")],
    )
    def test_processes_that_gave_way_to_others_are_told(self, repeats: int, said: str) -> None:
        repeated = results_of(replace(SERVED, load=LoadEvidence(SERVING_TERMS, 10, repeats=repeats)))
        for text in (study_report(repeated).decode(), render_page(repeated).decode()):
            assert f"{said}, because what sent the load lagged" in text

    def test_where_none_did_nothing_is_said_of_it(self) -> None:
        for text in (study_report(results_of(SERVED)).decode(), render_page(results_of(SERVED)).decode()):
            assert "did not count" not in text

    def test_where_all_come_at_once_there_is_no_bound_to_keep(self) -> None:
        report = study_report(results_of(OFFLINE)).decode()
        assert "| net | int8 | Offline |" in report
        assert "What the bounds come to" not in report

    def test_they_count_in_the_headline_and_fail_by_name(self) -> None:
        report = study_report(results_of(PAIR, SERVED, FAILED)).decode()
        assert "**1 of 1 pair and 2 under load FAILs.**" in report
        assert f"vit-int8-serving: {LATE}" in section(report, "What FAILs")

    def test_the_tables_of_pairs_hold_none(self) -> None:
        report = study_report(results_of(PAIR, FAILED)).decode()
        for title in ("By model", "By category", "Where launches dominate and precision cannot show", "Coverage"):
            assert "vit" not in section(report, title)

    def test_alone_they_need_no_pair(self) -> None:
        report = study_report(results_of(SERVED)).decode()
        assert "## By model" not in report
        assert "speedup" not in report

    def test_what_decides_an_open_one_is_its_own_suite(self) -> None:
        tiny = make_serving_record("deit-tiny-patch16-224", verdict=Status.INCONCLUSIVE, reason="too few requests")
        assert "pytest bench/test_serving.py --vq-models=deit-tiny" in study_report(results_of(tiny)).decode()


class TestPage:
    def test_they_have_a_section_and_no_row_among_pairs(self) -> None:
        page = render_page(results_of(PAIR, FAILED)).decode()
        results, rest = page.split('<h2 id="serving">')
        assert '<th scope="row">vit</th>' not in results
        assert '<th scope="row">vit</th>' in rest
        assert "FAIL vit-int8-serving" in results
        assert '<td class="FAIL">FAIL</td>' in rest

    def test_without_them_there_is_no_such_section(self) -> None:
        assert 'id="serving"' not in render_page(results_of(PAIR)).decode()

    def test_alone_they_leave_no_table_of_pairs(self) -> None:
        assert 'id="results"' not in render_page(results_of(SERVED)).decode()


class TestComment:
    def test_one_that_fails_is_named_with_its_reason(self) -> None:
        text = comment(results_of(PAIR, FAILED))
        assert "1 FAIL, 1 PASS" in text
        assert "### FAIL under load" in text
        (row,) = [line for line in text.splitlines() if "vit" in line]
        assert f"| FAIL | {LATE} | Server | 200/s | 8.00 ms | 2 % late" in row

    def test_a_job_of_them_has_a_comment_of_its_own(self) -> None:
        assert comment(results_of(PAIR)).splitlines()[0] != comment(results_of(SERVED)).splitlines()[0]

    def test_the_jobs_summary_folds_those_that_pass(self) -> None:
        summary = job_summary(results_of(PAIR, SERVED))
        assert summary is not None
        assert "<summary>1 PASS</summary>" in summary
        assert "<summary>1 PASS under load</summary>" in summary


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_or_an_error_does_nothing(name: str) -> None:
    load = LoadEvidence(SERVING_TERMS, 10, outcomes={name: 3}, messages={name: name})
    results = results_of(make_serving_record(name, verdict=Status.FAIL, reason=name, load=load))
    for text in (study_report(results).decode(), comment(results), render_page(results).decode()):
        assert not any(bad in text for bad in ("<script>alert", "\x1b", "\u202e"))
        assert not any(line.startswith("::") for line in text.splitlines())
