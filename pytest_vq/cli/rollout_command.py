"""``pytest-vq rollout``: replays a rollout's log, and explains its last decision."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_vq.report.text import plain_table
from pytest_vq.serve.rollout import Stage
from pytest_vq.serve.rollout_log import Event, Replayed, read_rollout
from pytest_vq.wording import count, plain_percent

_UNTIL_NOW = {
    Stage.SHADOW: "the quantized model runs on copies, FP32 answers",
    Stage.ROLLED_BACK: "FP32 answers; only a new rollout, with a log of its own, leads back from here",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``rollout`` takes."""
    parser.add_argument("log", type=Path, metavar="LOG", help="a rollout's log, a line of JSON an event")


def run_rollout(args: argparse.Namespace) -> tuple[str, int]:
    """Return the text to print and the exit code: 1 where the model was rolled back."""
    replayed = read_rollout(args.log)
    rollout = replayed.rollout
    rolled_back = rollout.stage is Stage.ROLLED_BACK
    return "\n".join([*_standing(replayed), "", *_decisions(replayed)]), int(rolled_back)


def _standing(replayed: Replayed) -> list[str]:
    rollout = replayed.rollout
    stage = rollout.stage
    meaning = _UNTIL_NOW.get(stage, f"the quantized model answers {plain_percent(stage.share)} of the keys")
    failed = f"{rollout.failed:,} of {rollout.rows:,} rows failed"
    return [f"{stage}: {meaning}", f"{count(rollout.executions, 'execution')}, {failed}", *rollout.standing()]


def _decisions(replayed: Replayed) -> list[str]:
    events = list(replayed.events)
    if replayed.pending is not None:
        events.append(Event(decided=replayed.pending))
    made = [
        (event.decided, event.at_utc or "not written: the process ended first") for event in events if event.decided
    ]
    if not made:
        return ["no decision yet"]
    rows = [[d.executions, d.before, d.after, when] for d, when in made]
    table = plain_table(rows, ["executions", "from", "to", "time"])
    last = made[-1][0]
    return [
        f"{count(len(rows), 'decision')}, replayed from the log with the same outcome",
        table,
        "",
        f"the last, {last.before} → {last.after}: {last.reason}",
    ]
