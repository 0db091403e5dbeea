from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
from factories import ENVIRONMENT, MIB, alter, make_record

from pytest_vq.cli import selftest_command
from pytest_vq.cli.main import main
from pytest_vq.processes.child import Child
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import Status
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results import Results, Row

OPTIONS = ("--model", "net", "--baseline", "6", "--runs", "2")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """Replace the processes: each measures the same, and finds what is done to it. Returns what is done to each."""
    taken: list[tuple[str, ...]] = []

    def fake(child: Child, accepted: Collection[int]) -> Results:
        changes = tuple(word for word in child.command if word.startswith("--provoke-"))
        taken.append(changes)
        memory = 1024 * MIB if any("allocation" in word for word in changes) else MIB
        record = make_record(sentinel_ms=1.0 + 0.001 * len(taken), peak_memory_bytes=memory)
        estimates = Estimates.of(record, ENVIRONMENT)
        if "--vq-save" in child.command:
            store = BaselineStore(child.cwd / "baselines")
            store.append(ENVIRONMENT.device_slug, ENVIRONMENT.device_name, [("net", record.setup, estimates)])
        record = alter(record, verdict=Status.FAIL if changes else Status.PASS)
        return results_of(Row(record, ENVIRONMENT, (estimates,)))

    monkeypatch.setattr(selftest_command, "run_child", fake)
    monkeypatch.chdir(tmp_path)
    return taken


def results_of(row: Row) -> Results:
    return Results({}, (row.environment,), (row,), (), "", "", complete=True)


def change_rows(monkeypatch: pytest.MonkeyPatch, change: Callable[[Row], Row]) -> None:
    """Let every process leave its row with a ``change``."""
    honest = selftest_command.run_child
    monkeypatch.setattr(
        selftest_command, "run_child", lambda child, accepted: results_of(change(honest(child, accepted).rows[0]))
    )


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command printed, its columns a space apart."""
    return " ".join(capsys.readouterr().out.split())


def test_a_gate_that_is_right(runs: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", *OPTIONS]) == 0
    text = printed(capsys)
    for words in ("unchanged 0 of 2 2 PASS", "5% slower 2 of 2", "32 MiB more 2 of 2", "right every time"):
        assert words in text
    assert "smallest change of latency that fails here: " in text
    assert len(runs) == 6 + 2 * 4
    # The kinds take turns: a slow hour of the machine meets them all.
    assert runs[6:10] == runs[10:14]
    assert len(set(runs[6:10])) == 4


def test_a_callable_takes_the_place_of_the_model(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[str] = []
    honest = selftest_command.run_child

    def noted(child: Child, accepted: Collection[int]) -> Results:
        commands.append(" ".join(child.command))
        return honest(child, accepted)

    monkeypatch.setattr(selftest_command, "run_child", noted)
    assert main(["selftest", "--callable", *OPTIONS]) == 0
    assert "a callable, 6 baseline processes" in printed(capsys)
    assert set(runs) == {
        (),
        ("--provoke-slowdown=callable=0.05",),
        ("--provoke-slowdown=callable=0.1",),
        ("--provoke-allocation=callable=32",),
    }
    # Its test asks for what is provoked, be it nothing: the plugin is there in every run, once.
    assert all(command.count("-p pytest_vq.plugin.provoke") == 1 for command in commands)
    assert "vq_gate(provoked(" in Path("vq-selftest/test_selftest.py").read_text()
    assert not any("--vq-models" in command for command in commands)


def test_a_gate_that_misses_or_cries_wolf_is_said_to_be_wrong(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change_rows(monkeypatch, lambda row: replace(row, record=alter(row.record, verdict=Status.PASS)))
    assert main(["selftest", *OPTIONS]) == 1
    assert "wrong here" in printed(capsys)


def test_a_gate_that_admits_doubt_is_not_called_wrong(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change_rows(monkeypatch, lambda row: replace(row, record=alter(row.record, verdict=Status.INCONCLUSIVE)))
    assert main(["selftest", *OPTIONS]) == 0
    assert "never wrong, and left 6 comparisons undecided" in printed(capsys)


def test_an_allocation_is_not_found_by_its_slowness(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unseen(row: Row) -> Row:
        return replace(row, estimates=tuple(replace(e, peak_memory_bytes=MIB) for e in row.estimates))

    change_rows(monkeypatch, unseen)
    assert main(["selftest", *OPTIONS]) == 1
    text = printed(capsys)
    assert "32 MiB more 0 of 2 2 PASS" in text
    assert "wrong here, 2 times" in text


def test_what_was_found_before_an_interruption_is_reported(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = selftest_command.run_child

    def interrupted(child: Child, accepted: Collection[int]) -> Results:
        if len(runs) == 6 + 4 + 1:
            raise KeyboardInterrupt
        return honest(child, accepted)

    monkeypatch.setattr(selftest_command, "run_child", interrupted)
    assert main(["selftest", *OPTIONS]) == 0
    text = printed(capsys)
    assert "unchanged 0 of 2 2 PASS" in text
    assert "5% slower 1 of 1" in text


def test_an_earlier_selftest_is_not_mixed_with_a_new_one(
    runs: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", *OPTIONS]) == 0
    assert main(["selftest", *OPTIONS]) == 1
    assert "earlier selftest" in capsys.readouterr().err


def test_a_process_that_measured_nothing_is_an_error(
    runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Results({}, (), (), (), "", "", complete=True)
    monkeypatch.setattr(selftest_command, "run_child", lambda child, accepted: nothing)
    assert main(["selftest", *OPTIONS]) == 1
    assert "measured nothing; see " in capsys.readouterr().err
