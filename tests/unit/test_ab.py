from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, alter, make_record, make_setup

from pytest_vq.cli import ab_command
from pytest_vq.cli.ab_command import compare_sides
from pytest_vq.cli.main import main
from pytest_vq.errors import ResultsError
from pytest_vq.processes.child import Child
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results, Row

RECORD = make_record()


def side(count: int, *records: Record, slower: float = 1.0) -> list[Results]:
    """What ``count`` equal processes of one side leave."""
    taken = [alter(r, latency_q10_ms=9.8 * slower, speedup=2.0 / slower) for r in records or (RECORD,)]
    rows = tuple(Row(record, ENVIRONMENT, (Estimates.of(record, ENVIRONMENT),)) for record in taken)
    return [Results({}, (ENVIRONMENT,), rows, (), "", "", complete=True)] * count


def test_equal_sides_pass_and_a_slower_one_fails() -> None:
    assert [r.verdict for r in compare_sides(side(3), side(3))] == [Status.PASS]
    (failed,) = compare_sides(side(3), side(3, slower=1.1))
    assert failed.verdict is Status.FAIL
    assert "3 rounds side by side" in failed.reason


def test_a_pair_that_one_side_lacks_is_incomparable_and_the_others_are_judged() -> None:
    other = alter(RECORD, model="new-net")
    verdicts = {r.identity.model: r for r in compare_sides(side(3), side(3, RECORD, other))}
    assert verdicts["net"].verdict is Status.PASS
    assert verdicts["new-net"].verdict is Status.INCOMPARABLE
    assert "did not measure it" in verdicts["new-net"].reason


def test_another_protocol_on_one_side_is_incomparable() -> None:
    study = alter(RECORD, setup=make_setup(protocol="study"))
    other = alter(RECORD, model="other")
    verdicts = {r.identity.model: r for r in compare_sides(side(3, study, other), side(3, RECORD, other))}
    assert verdicts["net"].verdict is Status.INCOMPARABLE
    assert "study" in verdicts["net"].reason


def test_another_execution_is_another_pair() -> None:
    compiled = alter(RECORD, execution="compile")
    found = compare_sides(side(3), side(3, RECORD, compiled))
    assert [(str(r.case_id), r.verdict) for r in found] == [
        ("net-int8", Status.PASS),
        ("net-int8+compile", Status.INCOMPARABLE),
    ]


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(ResultsError, match="no pair in common"):
        compare_sides(side(3), side(3, alter(RECORD, model="other")))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the processes: what each of side A and B leaves, and the directories of those that ran, in order."""
    given: dict[str, Any] = {"A": side(1)[0], "B": side(1)[0], "ran": []}

    def fake(child: Child) -> Results:
        assert {"--vq-gate=off", f"--vq-output={child.output}"} < set(child.command)
        given["ran"].append((child.output.name, child.cwd.name))
        return given[child.who.removeprefix("side ")]

    monkeypatch.setattr(ab_command, "run_child", fake)
    return given


def run(tmp_path: Path, *more: str) -> int:
    """The exit code of a comparison of two checkouts, ``one`` and ``two``."""
    pythons = ["--a", sys.executable, "--b", sys.executable]
    roots = ["--a-root", str(tmp_path / "one"), "--b-root", str(tmp_path / "two")]
    return main(["ab", *pythons, *roots, "--output", str(tmp_path / "out"), "--rounds", "3", *more])


def test_the_sides_take_turns_and_change_who_begins(tmp_path: Path, processes: dict[str, Any]) -> None:
    assert run(tmp_path) == 0
    rounds = [("a-1", "one"), ("b-1", "two"), ("b-2", "two"), ("a-2", "one"), ("a-3", "one"), ("b-3", "two")]
    assert processes["ran"] == rounds


def test_a_slower_side_b_is_the_exit_code_and_is_said_why(
    tmp_path: Path, processes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    processes["B"] = side(1, slower=1.1)[0]
    assert run(tmp_path) == 1
    assert "FAIL net-int8: latency (10 % quantile) 9.80 ms → 10.8 ms (+10.0 %" in capsys.readouterr().out


def test_a_doubt_fails_only_a_strict_comparison(tmp_path: Path, processes: dict[str, Any]) -> None:
    processes["B"] = side(1, RECORD, alter(RECORD, model="new-net"))[0]
    assert run(tmp_path) == 0
    assert run(tmp_path, "--strict") == 1


def test_too_few_rounds_are_refused_before_anything_runs(
    tmp_path: Path, processes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--rounds", "2") == 1
    assert "at least 3" in capsys.readouterr().err
    assert processes["ran"] == []
    assert not (tmp_path / "out").exists()


def test_a_python_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "--a", str(tmp_path / "python"), "--b", sys.executable]) == 1
    assert f"{tmp_path / 'python'} is no executable" in capsys.readouterr().err


def test_a_side_that_fails_is_named_with_the_end_of_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"  # in place of an environment's: it knows no word of its command line
    python.write_text('#!/bin/sh\nfor word; do echo "no such file: $word"; done\nexit 4\n')
    python.chmod(0o755)
    command = ["ab", "--a", str(python), "--b", sys.executable, "--a-root", str(tmp_path), "--output"]
    assert main([*command, str(tmp_path / "out"), "--", "there-is-no-such-test.py"]) == 1
    message = capsys.readouterr().err
    assert "side A ended with exit code 4" in message
    assert "no such file: there-is-no-such-test.py" in message
    assert str(tmp_path / "out" / "a-1" / "pytest.log") in message
