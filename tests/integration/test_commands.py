"""``pytest-vq ab`` and ``selftest``, really run: fresh processes on a small model."""

from __future__ import annotations

import json
import sys

import pytest

from pytest_vq.cli.main import main


def test_ab_finds_a_checkout_that_is_slower(steady, capsys: pytest.CaptureFixture[str]) -> None:
    other = steady.mkdir("other")
    for name in ("conftest.py", "test_my_bench.py"):
        (other / name).write_text((steady.path / name).read_text())
    (other / "pytest.ini").write_text("[pytest]\nvq_budget = 30\n")
    (other / "burden_ms").write_text("10")
    sides = ("--a", sys.executable, "--b", sys.executable, "--b-root", str(other), "--rounds", "3")
    assert main(["ab", *sides, "--", "test_my_bench.py", "--vq-precisions=int8", "-p", "no:randomly"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL my-net-int8: latency (10 % quantile) 30.0 ms → 40.0 ms (+33.3 %" in printed
    assert sorted(path.name for path in (steady.path / "vq-ab").iterdir()) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]


def test_selftest_measures_unchanged_and_changed_code(project, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", "vit-digits", "--precision", "fp16", "--baseline", "1", "--runs", "1", "--budget", "0.2")
    main(["selftest", *options, "--slowdowns", "9", "--allocation", "0"])  # what it finds is this machine's affair
    printed = capsys.readouterr().out
    assert "vit-digits fp16, 1 baseline processes" in printed
    rows = json.loads((project.path / "vq-selftest" / "selftest.json").read_text())
    assert {name: len(taken) for name, taken in rows.items()} == {"unchanged": 1, "900% slower": 1}
    assert all(taken[0]["latency_ms"] > 0 and taken[0]["verdict"] for taken in rows.values())
