"""An earlier run that is taken up again: which of its rows stand, and why others have to be measured anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_vq.errors import SelectionError
from pytest_vq.options import OPTIONS, Option, Options
from pytest_vq.schema.outcome import Outcome
from pytest_vq.schema.record import Environment
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.shard import Shard
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.results import STUDY, Results, Row, read_results
from pytest_vq.store.samples import decode_samples, samples_by_pair

# What may differ between a run and the one that takes it up: nothing of it changes what is measured. (Of --vq-save the
# operators are taken afterwards.)
_FREE = {"gate", "strict", "save", "baselines", "output", "report", "resume"}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How a pair would be measured now; ``cards`` are the devices, by UUID, that this run measures on."""

    setup: Setup
    environment: Environment
    cards: Collection[str]
    method: str | None = None  # of a callable: what is called


class EarlierRun:
    """The rows that a run left in ``directory``, each with its samples.

    Raises ResultsError, naming the file, where they cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._rows: dict[tuple[str | None, CaseId], Row] = {}
        if _has_results(directory):
            self._rows = {row.key: row for row in read_results(directory).rows}
        self._samples = samples_by_pair(directory) if self._rows else {}

    def outcome(self, test: str, pair: CaseId, now: Circumstances) -> Outcome | str | None:
        """What ``test`` handed on, as it was kept; or why that does not stand, in words; None where nothing was."""
        row = self._rows.get((test, pair)) or self._rows.get((None, pair))
        if row is None:
            return None
        dates = {estimates.date_utc for estimates in row.estimates}
        lines = [line for date, line in self._samples.get(row.key, ()) if date in dates]
        if not lines:
            return "its samples are missing"
        return _difference(row, now) or row.outcome(tuple(map(decode_samples, lines)))


def earlier_results(options: Options) -> Results | None:
    """The results that a run with ``options`` takes up; None where it takes up none, or there are none.

    Raises ``SelectionError`` where the run that left them was given other options than this one, and ResultsError
    where they cannot be read.
    """
    if not options.resume or not _has_results(options.output):
        return None
    earlier = read_results(options.output)
    _check_same_options(earlier, options)
    return earlier


def _has_results(directory: Path) -> bool:
    return (directory / STUDY).exists()


def _check_same_options(earlier: Results, options: Options) -> None:
    changed = [option for option in OPTIONS if option.field not in _FREE and _is_changed(option, earlier, options)]
    if changed:
        here = ", ".join(_spelled(option, getattr(options, option.field)) for option in changed)
        there = ", ".join(_spelled(option, _stored(option, earlier.options)) for option in changed)
        raise SelectionError(
            f"--vq-resume: {options.output / STUDY} is of a run with {there}; this one has {here}, and would measure "
            f"something else. Give what that run was given, or begin another one: with another --vq-output, or without "
            f"--vq-resume"
        )


def _is_changed(option: Option, earlier: Results, options: Options) -> bool:
    return bool(_stored(option, earlier.options) != getattr(options, option.field))


def _stored(option: Option, options: Mapping[str, Any]) -> Any:
    """The value of ``option`` there; its default where the option is younger than the run."""
    value = options.get(option.field, getattr(Options(), option.field))
    if option.field == "shard":  # which is stored as its text
        return Shard.parse(str(value))
    return tuple(value) if isinstance(value, list) else value


def _spelled(option: Option, value: Any) -> str:
    return f"no --{option.name}" if value is None or value is False else " ".join(option.spelled(value))


def _difference(row: Row, now: Circumstances) -> str:
    """What is not now as it was when ``row`` was measured, in words; empty where all is."""
    was, environment = row.environment, now.environment
    differences = []
    if was.device_uuid != environment.device_uuid and was.device_uuid not in now.cards:
        differences.append(_card(was) + " → " + _card(environment))
    differences += _changed(was.versions, environment.versions)
    differences += _changed(was.settings, environment.settings)
    differences += _changed({"commit": was.commit}, {"commit": environment.commit})
    differences += _changed(row.record.setup.named(), now.setup.named())
    if now.method is not None:
        differences += _changed({"callable": row.record.identity.method}, {"callable": now.method})
    return ", ".join(differences)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} {_shown(before.get(name))} → {_shown(now.get(name))}" for name in names]


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _card(environment: Environment) -> str:
    return f"{environment.device_name} ({environment.device_uuid})"
