"""What keeps runs from being merged: each reason names the runs, and what differs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.options import OPTIONS
from pytest_vq.schema.record import Environment
from pytest_vq.schema.shard import Selection, Shard
from pytest_vq.store.run_part import RunPart, StoredRow

# What differs between the shards of one run, or says only where things lie.
_OWN = {"shard", "output", "baselines", "report", "save", "resume"}
_OF_HOSTS = {"kernel", "driver"}  # versions that may differ between the hosts of one run
_RECIPE_FOLDER = re.compile(r"(recipe:)[^,]*/")


def check_alike(parts: Sequence[RunPart]) -> None:
    """Raise ResultsError unless all of ``parts`` were given what makes them parts of one run."""
    first = parts[0]
    spelled = {option.field: f"--{option.name}" for option in OPTIONS}
    for other in parts[1:]:
        for name in sorted({*first.options, *other.options} - _OWN):
            mine, theirs = _compared(first.options.get(name)), _compared(other.options.get(name))
            if mine != theirs:
                raise ResultsError(
                    f"{spelled.get(name, name)} differs: {_shown(mine)} in {first.directory}, {_shown(theirs)} in "
                    f"{other.directory}; what was measured in different ways is not one run"
                )
    _check_shards(parts)


def check_environments(parts: Sequence[RunPart]) -> None:
    """Raise ResultsError unless all processes measured one code, with the same libraries, on one kind of device."""
    known: tuple[Environment, Path] | None = None
    for part in parts:
        for environment in part.environments:
            if known is None:
                known = environment, part.directory
            elif environment is not known[0]:
                _check_environment(*known, environment, part.directory)


def _check_environment(one: Environment, here: Path, other: Environment, there: Path) -> None:
    differing: list[tuple[str, str | None, str | None]] = [("device", one.device_slug, other.device_slug)]
    # Recording a baseline changes the tree itself: "-dirty" alone is no other code.
    mine, theirs = (e.commit and e.commit.removesuffix("-dirty") for e in (one, other))
    differing.append(("commit", mine, theirs))
    names = sorted({*one.versions, *other.versions} - _OF_HOSTS)
    differing += [(name, one.versions.get(name), other.versions.get(name)) for name in names]
    for what, mine, theirs in differing:
        if mine != theirs:
            raise ResultsError(
                f"{what} differs: {_shown(mine)} in {here}, {_shown(theirs)} in {there}; to see what that changes, "
                "compare the runs (pytest-vq compare)"
            )


def _check_shards(parts: Sequence[RunPart]) -> None:
    counts = {part.shard.count: part for part in parts}
    if len(counts) > 1:
        (a, one), (b, other), *_ = counts.items()
        raise ResultsError(f"{one.directory} is one of {a} shards, and {other.directory} one of {b}")
    if 1 in counts:
        return
    seen: dict[Shard, RunPart] = {}
    for part in parts:
        if (twin := seen.setdefault(part.shard, part)) is not part:
            raise ResultsError(
                f"shard {part.shard} is there twice: {twin.directory} and {part.directory}; leave one out"
            )
    _check_cut(parts)


def _check_cut(parts: Sequence[RunPart]) -> None:
    """Shards of one selection, cut by the same durations, hold each pair of it once."""
    known = sorted(
        ((part.selection, part.directory) for part in parts if part.selection is not None),
        key=lambda one: _number(one[0]),
    )
    hint = "give all shards one selection, and one commit with its durations.json"
    for (selection, directory), (following, other) in pairwise(known):
        if (selection.total, selection.digest) != (following.total, following.digest):
            raise ResultsError(
                f"{directory} and {other} are shards of different selections, of {selection.total} and "
                f"{following.total} pairs; {hint}"
            )
        end, adjacent = selection.first + len(selection.here), _number(following) == _number(selection) + 1
        if following.first < end or (adjacent and following.first != end):
            raise ResultsError(
                f"{directory} and {other} were not cut alike: the former ends with pair {end} of {selection.total}, "
                f"the latter begins with pair {following.first + 1}; {hint}"
            )


def _number(selection: Selection) -> int:
    return Shard.parse(selection.shard).number


@dataclass(slots=True)
class TakenPairs:
    """Which run each pair is from: a second one is refused."""

    _from: dict[str, tuple[Path, tuple[object, ...]]] = field(default_factory=dict)  # and what tells measurements apart

    def take(self, directory: Path, rows: Iterable[tuple[str, StoredRow]]) -> None:
        """Take the rows of one run, by their pair's id. Raises ResultsError where an earlier one had the same pair."""
        own = {}
        for pair, row in rows:
            if pair in self._from:
                self._refuse(pair, directory, row)
            own[pair] = directory, _measurement(row)
        self._from |= own

    def _refuse(self, pair: str, directory: Path, row: StoredRow) -> None:
        other, measurement = self._from[pair]
        if measurement == _measurement(row):
            raise ResultsError(f"{other} and {directory} hold the same measurement of {pair}: leave one of them out")
        raise ResultsError(
            f"{other} and {directory} both measured {pair}, with different figures: one run has one row of a pair. "
            "Leave one of them out, or compare them (pytest-vq compare)"
        )


def _measurement(row: StoredRow) -> tuple[object, ...]:
    return row.latency_ms, *row.estimates


def _compared(value: Any) -> Any:
    """Of a recipe its file's name: where that lies differs between hosts, and its SHA-256 is in each row's setup."""
    return _RECIPE_FOLDER.sub(r"\1", value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not given" if value is None else str(value)
