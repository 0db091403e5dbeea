from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vq.cli.ab_command import compare, run_ab
from pytest_vq.cli.main import main
from pytest_vq.errors import ResultsError
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Coverage, Environment, Record, Setup
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results, Row

SETUP = Setup(precision="int8", batch=1, protocol="adaptive", weights="random", threads=1, tf32=False)
ENVIRONMENT = Environment("cpu", "CPU", "cpu", "CPU-1", {"torch": "2.13.0"}, {}, "abc", "2026-11-23T00:00:00Z")
EMPTY = dict.fromkeys(Record.__dataclass_fields__)
RECORD = Record(
    **EMPTY
    | {
        "model": "net",
        "category": "local",
        "architecture": "Net",
        "parameters": 10,
        "precision": "int8",
        "method": "LLM.int8",
        "device": "CPU",
        "batch": 1,
        "weights": "random",
        "latency_ms": 10.0,
        "latency_low_ms": 9.9,
        "latency_high_ms": 10.1,
        "latency_q10_ms": 9.8,
        "samples": 100,
        "stop_reason": "interval",
        "speedup": 2.0,
        "speedup_low": 1.99,
        "speedup_high": 2.01,
        "model_size_bytes": 1000,
        "quantized_layers": 1,
        "eligible_layers": 1,
        "sqnr_db": 30.0,
        "setup": SETUP,
        "coverage": Coverage(1, 1),
        "telemetry": {},
        "reason": "",
    }
)


def side(count: int, *records: Record, slower: float = 1.0) -> list[Results]:
    taken = [replace(r, latency_q10_ms=9.8 * slower, speedup=2.0 / slower) for r in records or (RECORD,)]
    rows = tuple(Row(record, ENVIRONMENT, (Estimates.of(record, ENVIRONMENT),)) for record in taken)
    return [Results({}, (ENVIRONMENT,), rows, (), "", "", complete=True)] * count


def test_equal_sides_pass_and_a_slower_one_fails() -> None:
    assert [r.verdict for r in compare(side(3), side(3))] == [Status.PASS]
    (failed,) = compare(side(3), side(3, slower=1.1))
    assert failed.verdict is Status.FAIL
    assert "3 rounds side by side" in failed.reason


def test_a_pair_that_one_side_lacks_is_incomparable_and_the_others_are_judged() -> None:
    other = replace(RECORD, model="new-net")
    verdicts = {r.model: r for r in compare(side(3), side(3, RECORD, other))}
    assert verdicts["net"].verdict is Status.PASS
    assert verdicts["new-net"].verdict is Status.INCOMPARABLE
    assert "did not measure it" in verdicts["new-net"].reason


def test_another_protocol_on_one_side_is_incomparable() -> None:
    study = replace(RECORD, setup=replace(SETUP, protocol="study"))
    other = replace(RECORD, model="other")
    verdicts = {r.model: r for r in compare(side(3, study, other), side(3, RECORD, other))}
    assert verdicts["net"].verdict is Status.INCOMPARABLE
    assert "study" in verdicts["net"].reason


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(ResultsError, match="no pair in common"):
        compare(side(3), side(3, replace(RECORD, model="other")))


def arguments(tmp_path: Path, **given: object) -> argparse.Namespace:
    usual = {
        "a": Path(sys.executable),
        "b": Path(sys.executable),
        "a_root": tmp_path,
        "b_root": tmp_path,
        "rounds": 3,
        "output": tmp_path / "out",
        "strict": False,
        "pytest_args": ["-p", "no:benchmark"],
    }
    return argparse.Namespace(**usual | given)


def test_too_few_rounds_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="at least 3"):
        run_ab(arguments(tmp_path, rounds=2))
    assert not (tmp_path / "out").exists()


def test_a_python_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "--a", str(tmp_path / "python"), "--b", sys.executable]) == 1
    assert f"{tmp_path / 'python'} is no executable" in capsys.readouterr().err


def test_a_side_that_fails_is_named_with_the_end_of_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ab", "--a", sys.executable, "--b", sys.executable, "--a-root", str(tmp_path), "--output"]
    assert main([*command, str(tmp_path / "out"), "--", "there-is-no-such-test.py"]) == 1
    message = capsys.readouterr().err
    assert "side A ended with exit code 4" in message
    assert "there-is-no-such-test.py" in message
