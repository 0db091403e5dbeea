"""A rollout: its way through the stages, who is answered by what, its log, and the command that replays it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_vq.cli.main import main
from pytest_vq.errors import RolloutError
from pytest_vq.serve.rollout import Observation, Rollout, RolloutSettings, Stage
from pytest_vq.serve.rollout_log import RolloutLog, read_rollout

CLEAN = Observation(rows=8)
KEYS = [f"user-{number}" for number in range(4000)]
WAY = [Stage.SHADOW, Stage.CANARY_10, Stage.CANARY_50, Stage.CANARY_90, Stage.FULL]


def at(stage: Stage, settings: RolloutSettings | None = None) -> Rollout:
    """A rollout brought to ``stage`` by clean executions."""
    rollout = Rollout(settings)
    for _ in range(10_000):
        if rollout.stage is stage:
            return rollout
        rollout.observe(CLEAN)
    raise AssertionError(f"{stage} was not reached")


def until_decided(rollout: Rollout, seen: Iterator[Observation], most: int = 20_000):
    for _, one in zip(range(most), seen, strict=False):
        if decision := rollout.observe(one):
            return decision
    return None


def test_clean_executions_lead_through_all_stages() -> None:
    rollout = Rollout()
    decisions = [decision for _ in range(5000) if (decision := rollout.observe(CLEAN))]
    assert [decision.after for decision in decisions] == WAY[1:]
    assert [decision.before for decision in decisions] == WAY[:-1]
    steps = [b.executions - a.executions for a, b in pairwise(decisions)]
    assert min([decisions[0].executions, *steps]) > 500  # each stage must prove it anew
    assert decisions[0].reason == (
        f"less than 1 % failed rows: proven by {decisions[0].executions} executions in SHADOW, and by all so far"
    )


def test_shadow_and_what_is_rolled_back_answer_nobody() -> None:
    rollout = Rollout()
    assert not any(map(rollout.answers, KEYS))
    rollout.roll_back("p99.5 is above the bound")
    assert not any(map(rollout.answers, KEYS))


def test_keys_stick_and_shares_grow_around_them() -> None:
    before: set[str] = set()
    for stage, share in zip(WAY[1:], (0.1, 0.5, 0.9, 1.0), strict=True):
        rollout = at(stage)
        answered = {key for key in KEYS if rollout.answers(key)}
        assert answered == {key for key in KEYS if rollout.answers(key)}
        assert before <= answered
        assert len(answered) / len(KEYS) == pytest.approx(share, abs=0.03)
        before = answered
    salted, plain = at(Stage.CANARY_10, RolloutSettings(salt="another")), at(Stage.CANARY_10)
    assert list(map(salted.answers, KEYS)) != list(map(plain.answers, KEYS))


@pytest.mark.parametrize("stage", WAY)
def test_any_stage_rolls_back_for_good(stage: Stage) -> None:
    rollout = at(stage)
    for _ in range(100):
        rollout.observe(CLEAN)
    broken = Observation(rows=8, failed=8)
    decisions = [rollout.observe(broken) for _ in range(3)]
    assert decisions[:2] == [None, None]
    assert decisions[2] is not None
    assert (decisions[2].before, decisions[2].after) == (stage, Stage.ROLLED_BACK)
    assert decisions[2].reason == "3 executions in a row failed wholly"
    assert until_decided(rollout, iter([CLEAN] * 5000)) is None
    assert rollout.stage is Stage.ROLLED_BACK
    assert rollout.roll_back("again") is None


def test_a_steady_excess_rolls_back_by_the_guards_test() -> None:
    rollout = at(Stage.CANARY_50)
    decision = until_decided(rollout, (Observation(8, failed=number % 2) for number in range(1000)))
    assert decision is not None
    assert decision.after is Stage.ROLLED_BACK
    assert decision.reason.startswith("more than 1 % failed rows: evidence 1")


def test_a_model_at_the_threshold_is_hardly_ever_promoted() -> None:
    promoted = 0
    for seed in range(60):
        draw = random.Random(seed)
        rollout = Rollout()
        for _ in range(1000):
            rollout.observe(Observation(8, failed=8 * (draw.random() < 0.01)))
            if rollout.stage is Stage.CANARY_10:
                promoted += 1
                break
    assert promoted <= 1


def test_a_rate_that_was_low_in_the_shadow_does_not_promote_a_canary() -> None:
    rollout = at(Stage.CANARY_10)
    draw = random.Random(1)
    seen = (Observation(8, failed=int(draw.random() < 0.085)) for _ in range(3000))  # 1.06 % of rows
    decision = until_decided(rollout, seen)
    assert decision is None or decision.after is Stage.ROLLED_BACK


def test_disagreement_and_speed_are_part_of_it_where_they_are_asked_for() -> None:
    settings = RolloutSettings(max_disagreement_rate=0.05, max_slower_rate=0.5)
    blind = Rollout(settings)
    assert until_decided(blind, iter([CLEAN] * 3000)) is None  # in the shadow FP32's answer is there to compare with
    good = until_decided(Rollout(settings), iter([Observation(8, 0, disagreed=0, slower=False)] * 3000))
    assert good is not None
    assert "less than 5 % rows that disagree with FP32; less than 50 % executions slower than FP32" in good.reason
    unlike = until_decided(Rollout(settings), iter([Observation(8, 0, disagreed=2, slower=False)] * 3000))
    assert unlike is not None
    assert unlike.reason.startswith("more than 5 % rows that disagree with FP32")
    slow = until_decided(Rollout(settings), iter([Observation(8, 0, disagreed=0, slower=True)] * 3000))
    assert slow is not None
    assert slow.reason.startswith("more than 50 % executions slower than FP32")


def test_a_canary_without_shadows_goes_on_without_comparison() -> None:
    settings = RolloutSettings(max_disagreement_rate=0.05)
    rollout = Rollout(settings)
    assert until_decided(rollout, iter([Observation(8, 0, disagreed=0)] * 3000)) is not None
    decision = until_decided(rollout, iter([CLEAN] * 3000))
    assert decision is not None
    assert decision.after is Stage.CANARY_50


@pytest.mark.parametrize(
    "make",
    [
        lambda: RolloutSettings(failure_rate_threshold=0.0),
        lambda: RolloutSettings(max_slower_rate=1.0),
        lambda: RolloutSettings(wrong_promotion=0.0),
        lambda: RolloutSettings(failed_in_a_row=0),
        lambda: Observation(rows=0),
        lambda: Observation(rows=8, failed=9),
        lambda: Observation(rows=8, disagreed=-1),
    ],
)
def test_what_makes_no_sense_is_refused(make) -> None:
    with pytest.raises(ValueError):
        make()


def now_utc() -> str:
    return "2026-01-01T00:00:00Z"


def opened(path: Path, **settings) -> RolloutLog:
    return RolloutLog(path, RolloutSettings(**settings), now_utc)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of a rollout that came to 10 % and was rolled back."""
    path = tmp_path / "rollout.jsonl"
    with opened(path) as rollout:
        while rollout.rollout.stage is Stage.SHADOW:
            rollout.observe(CLEAN)
        for _ in range(3):
            rollout.observe(Observation(8, failed=8))
        assert rollout.observe(CLEAN) is None
        assert rollout.roll_back("again") is None
    return path


def test_every_decision_replays_from_the_log(log: Path) -> None:
    replayed = read_rollout(log)
    decided = [event.decided for event in replayed.events]
    assert [one.after for one in decided if one] == [Stage.CANARY_10, Stage.ROLLED_BACK]
    assert replayed.rollout.stage is Stage.ROLLED_BACK
    assert replayed.pending is None


def test_the_command_explains_the_last_decision(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(log)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("ROLLED_BACK: FP32 answers; only a new rollout")
    assert "2 decisions, replayed from the log with the same outcome" in out
    assert "2026-01-01T00:00:00Z" in out
    assert out.endswith("the last, CANARY_10 → ROLLED_BACK: 3 executions in a row failed wholly\n")


def test_the_command_says_how_far_an_undecided_rollout_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path / "log") as rollout:
        for _ in range(100):
            rollout.observe(CLEAN)
    assert main(["rollout", str(tmp_path / "log")]) == 0
    first, second, third, *_, last = capsys.readouterr().out.splitlines()
    assert first == "SHADOW: the quantized model runs on copies, FP32 answers"
    assert second == "100 executions, 0 of 800 rows failed"
    assert "that fewer do 1.7" in third
    assert "of 400 each" in third
    assert last == "no decision yet"


def test_a_rollout_goes_on_where_its_log_ends(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with opened(whole) as rollout:
        for _ in range(900):
            rollout.observe(CLEAN)
    for _ in range(3):
        with opened(parts) as rollout:
            for _ in range(300):
                rollout.observe(CLEAN)
    assert parts.read_bytes() == whole.read_bytes()
    with pytest.raises(RolloutError, match="other settings"):
        opened(parts, failure_rate_threshold=0.02)


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    with opened(tmp_path / "log"), pytest.raises(RolloutError, match="another process writes"):
        opened(tmp_path / "log")
    opened(tmp_path / "log").close()


def test_what_a_killed_process_left_is_mended(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # the decision was being written
    assert read_rollout(log).pending is not None
    opened(log).close()
    assert log.read_bytes() == b"".join(lines)


def test_a_decision_that_was_not_written_is_explained(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert main(["rollout", str(log)]) == 1
    assert "not written: the process ended first" in capsys.readouterr().out


def changed(lines: list[str], number: int, line: str) -> list[str]:
    return [*lines[: number - 1], line, *lines[number:]]


def test_damage_is_named_with_its_line(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = log.read_text().splitlines()
    decision = next(number for number, line in enumerate(lines, start=1) if "decided" in line)
    event = json.loads(lines[decision - 1])
    event["decided"]["after"] = "FULL"
    cases = {
        "line 5: Input data was truncated": changed(lines, 5, '{"observed":'),
        "line 6: Expected `int`": changed(lines, 6, '{"observed":{"rows":"8"}}'),
        "line 7: failed: 9 of 8 rows": changed(lines, 7, '{"observed":{"rows":8,"failed":9}}'),
        "line 8: a line has one of": changed(lines, 8, "{}"),
        f"line {decision}: the lines above it lead to SHADOW → CANARY_10": changed(lines, decision, json.dumps(event)),
        "line 9: the lines above it lead to no decision": [*lines[:8], lines[decision - 1], *lines[8:]],
        f"line {decision}: the lines above it lead to SHADOW": [*lines[: decision - 1], *lines[decision:]],
        "line 1: no settings of a rollout": lines[1:],
        "schema version 2": changed(lines, 1, '{"schema_version":2,"rollout":{}}'),
        "line 1: failure_rate_threshold": changed(
            lines, 1, '{"schema_version":1,"rollout":{"failure_rate_threshold":7}}'
        ),
    }
    for message, content in cases.items():
        log.write_text("\n".join(content) + "\n")
        assert main(["rollout", str(log)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("pytest-vq: error: ")
        assert message in err


def test_logs_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(tmp_path / "absent")]) == 1
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "empty").touch()
    assert main(["rollout", str(tmp_path / "empty")]) == 1
    assert "is empty" in capsys.readouterr().err
    assert main(["rollout", str(tmp_path)]) == 1
    assert "cannot read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["rollout"])
    assert stop.value.code == 2


def test_what_the_page_on_serving_shows_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        if named := re.match(r"# (\w+\.py)\n", block):
            Path(named[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, "docs/serving.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "CANARY_50"
    assert main(["rollout", "rollout.jsonl"]) == 0
    assert "the quantized model answers 50 % of the keys" in capsys.readouterr().out
