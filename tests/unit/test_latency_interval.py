"""What a run knows of a pair's median: the samples of one process, widened by how the run's processes differ."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from factories import ENVIRONMENT, alter, make_outcome, make_record
from scipy.stats import t

from pytest_vq.cli.main import main
from pytest_vq.report.candidates import Candidate, candidates_of
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Record
from pytest_vq.store.results import Row
from pytest_vq.store.results_writer import ResultsWriter


def row(times_ms: Sequence[float], model: str = "net", **columns: Any) -> Row:
    """A pair that processes of these medians measured, each known to 1 %; the first is the row's own."""
    first = times_ms[0]
    known = {"latency_ms": first, "latency_low_ms": 0.99 * first, "latency_high_ms": 1.01 * first}
    return row_of(make_record(model, **(known | columns)), times_ms)


def row_of(record: Record, times_ms: Sequence[float]) -> Row:
    estimates = Estimates.of(record, ENVIRONMENT)
    return Row(record, ENVIRONMENT, tuple(replace(estimates, latency_ms=ms) for ms in times_ms))


def only(*rows: Row) -> Candidate:
    (candidate,) = candidates_of(rows)
    return candidate


def student(times_ms: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of logarithms."""
    logs = [math.log(ms) for ms in times_ms]
    half = float(t.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)


def test_of_one_process_it_is_the_rows_own() -> None:
    assert only(row([10.0])).latency_interval_ms == pytest.approx((9.9, 10.1))
    assert only(row([10.0], latency_low_ms=None, latency_high_ms=None)).latency_interval_ms is None


def test_of_several_it_covers_how_they_differ() -> None:
    times_ms = [10.0, 11.0, 12.0]
    candidate = only(row(times_ms))
    assert candidate.processes == 3
    assert candidate.latency_interval_ms == pytest.approx(student(times_ms))
    assert candidate.latency_interval_ms[1] > 13


def test_it_is_never_narrower_than_the_rows_own() -> None:
    assert only(row([10.0, 10.001, 10.002, 10.001])).latency_interval_ms == pytest.approx((9.9, 10.1))


def test_the_rows_own_figure_is_always_in_it() -> None:
    low, high = only(row([10.0, 20.0, 20.1, 20.2, 20.1], latency_low_ms=None, latency_high_ms=None)).latency_interval_ms
    assert low == 10.0
    assert high > 20


def test_other_pairs_tell_how_much_processes_differ() -> None:
    # Two processes alone know hardly anything of their spread; twelve pairs of three that agree do.
    others = [row([10.0, 10.05, 10.1], f"other-{n}") for n in range(12)]
    alone = only(row([10.0, 10.3])).latency_interval_ms
    beside = next(c for c in candidates_of([row([10.0, 10.3]), *others]) if c.model == "net").latency_interval_ms
    assert alone[1] - alone[0] > 3
    assert beside[1] - beside[0] < 1


def test_rows_of_several_processes_are_one_pair() -> None:
    first, second = row([10.0]), row([12.0])
    candidate = only(first, replace(second, environment=replace(ENVIRONMENT, date_utc="2026-02-01T00:00:00Z")))
    assert (candidate.record.timing.latency_ms, candidate.processes) == (12.0, 2)
    low, high = candidate.latency_interval_ms
    assert low < 10 < 12.12 < high


def test_of_two_setups_the_last_counts() -> None:
    first = row([10.0, 10.0])
    other = alter(first.record, latency_ms=30.0, latency_low_ms=29.0, latency_high_ms=31.0)
    threaded = row_of(replace(other, setup=replace(other.setup, threads=2)), [30.0])
    assert only(first, threaded).latency_interval_ms == (29.0, 31.0)


def test_a_recommendation_asks_the_wider_one_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times_ms = [10.0, 11.0, 12.0]
    measured = row(times_ms)
    writer = ResultsWriter(tmp_path, {})
    writer.add(make_outcome(measured.record, estimates=measured.estimates))
    writer.close()
    assert main(["recommend", str(tmp_path), "--latency-ms", "11", "--format", "json"]) == 3
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    low, high = student(times_ms)
    assert (pair["latency_ms"], pair["processes"]) == (10.0, 3)
    assert (pair["latency_low_ms"], pair["latency_high_ms"]) == pytest.approx((low, high))
    assert pair["checks"][0]["answer"] == "undecided"
    assert main(["recommend", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert f"{low:.2f} ms … {high:.1f} ms" in text
    assert "where several measured a pair (1 pair), of their mean too" in text
