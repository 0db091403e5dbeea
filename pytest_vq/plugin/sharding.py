"""``--vq-shard``: which of the selected pairs and callables are this run's, and what it leaves for merging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pytest_vq.plugin.items import deselect
from pytest_vq.plugin.session import VqSession
from pytest_vq.processes.shards import cut, expected_seconds
from pytest_vq.schema.shard import Selection
from pytest_vq.schema.spec import CaseId


@dataclass(frozen=True, slots=True)
class MeasuringTest:
    """A test that measures something, and what."""

    item: pytest.Item
    case_id: CaseId


def keep_shard(session: VqSession, items: list[pytest.Item], selected: Sequence[MeasuringTest]) -> None:
    """Deselect of ``items`` what other shards measure of ``selected``, which stands in catalog order.

    What two tests measure is one pair, in one shard. Tests that measure nothing stay. Raises BaselineError where the
    durations cannot be read.
    """
    shard = session.options.shard
    if shard.is_whole:
        return
    tests: dict[CaseId, list[pytest.Item]] = {}
    for one in selected:
        tests.setdefault(one.case_id, []).append(one.item)
    expected = expected_seconds(list(tests), session.durations)
    seconds = [each * len(same) for each, same in zip(expected, tests.values(), strict=True)]
    here = cut(seconds, shard.count)[shard.number - 1]
    session.selection = Selection.of(shard, [str(case_id) for case_id in tests], here)
    others = {item for place, same in enumerate(tests.values()) if place not in here for item in same}
    session.elsewhere = len(others)
    deselect(items, others)
