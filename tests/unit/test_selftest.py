from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_ab import ENVIRONMENT, RECORD

from pytest_vq.cli import selftest_command as selftest
from pytest_vq.cli.main import main
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import Status
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results import Row

OPTIONS = ("--model", "net", "--baseline", "6", "--runs", "2")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """Replace pytest: every run measures the same, and finds what its condition says."""
    taken: list[tuple[str, ...]] = []

    def fake(args, output: Path, name: str, extra: tuple[str, ...]) -> Row:
        taken.append(extra)
        memory = 2**30 if any("alloc" in word for word in extra) else 2**20
        record = replace(RECORD, sentinel_ms=1.0 + 0.001 * len(taken), peak_memory_bytes=memory)
        estimates = Estimates.of(record, ENVIRONMENT)
        if "--vq-save" in extra:
            BaselineStore(output / "baselines").append("cpu", "CPU", [("net", RECORD.setup, estimates)])
        verdict = Status.FAIL if any("slow" in word or "alloc" in word for word in extra) else Status.PASS
        return Row(replace(RECORD, verdict=verdict), ENVIRONMENT, (estimates,))

    monkeypatch.setattr(selftest, "_pytest", fake)
    monkeypatch.chdir(tmp_path)
    return taken


def test_a_gate_that_is_right(runs: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", *OPTIONS]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("unchanged 0 of 2 2 PASS", "5% slower 2 of 2", "32 MiB more 2 of 2", "right every time"):
        assert words in printed
    assert "smallest change of latency that fails here: " in printed
    assert len(runs) == 6 + 2 * 4
    # The kinds take turns: a slow hour of the machine meets them all.
    assert runs[6:10] == runs[10:14]
    assert len(set(runs[6:10])) == 4


def alter(monkeypatch: pytest.MonkeyPatch, change: Callable[[Row], Row]) -> None:
    """Let every run leave its row with a ``change``."""
    honest = selftest._pytest
    monkeypatch.setattr(selftest, "_pytest", lambda *given: change(honest(*given)))


def test_a_gate_that_misses_or_cries_wolf_is_said_to_be_wrong(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(monkeypatch, lambda row: replace(row, record=replace(RECORD, verdict=Status.PASS)))
    assert main(["selftest", *OPTIONS]) == 1
    assert "wrong here" in capsys.readouterr().out


def test_a_gate_that_admits_doubt_is_not_called_wrong(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(monkeypatch, lambda row: replace(row, record=replace(RECORD, verdict=Status.INCONCLUSIVE)))
    assert main(["selftest", *OPTIONS]) == 0
    assert "never wrong, and left 6 comparisons undecided" in capsys.readouterr().out


def test_an_allocation_is_not_found_by_its_slowness(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unseen(row: Row) -> Row:
        return replace(row, estimates=tuple(replace(e, peak_memory_bytes=2**20) for e in row.estimates))

    alter(monkeypatch, unseen)
    assert main(["selftest", *OPTIONS]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "32 MiB more 0 of 2 2 PASS" in printed
    assert "wrong here, 2 times" in printed


def test_what_was_found_before_an_interruption_is_reported(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = selftest._pytest

    def interrupted(*given: object) -> Row:
        if len(runs) == 6 + 4 + 1:
            raise KeyboardInterrupt
        return honest(*given)

    monkeypatch.setattr(selftest, "_pytest", interrupted)
    assert main(["selftest", *OPTIONS]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "unchanged 0 of 2 2 PASS" in printed
    assert "5% slower 1 of 1" in printed


def test_an_earlier_selftest_is_not_mixed_with_a_new_one(
    runs: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", *OPTIONS]) == 0
    assert main(["selftest", *OPTIONS]) == 1
    assert "earlier selftest" in capsys.readouterr().err
