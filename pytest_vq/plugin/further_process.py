"""A further process of ``--vq-runs``: ``pytest -p pytest_vq.plugin.further_process``.

It leaves pairs under load out. A row of theirs is made of several fresh processes already, and takes minutes.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_vq.plugin.items import deselect, uses

_LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Deselect the tests of pairs under load, once the shard was cut: it must be the first process's."""
    yield
    gone = [item for item in items if uses(item, "vq_serve")]
    deselect(items, gone)
    config.stash[_LEFT_OUT] = len(gone)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End well where nothing else was selected: who hands tests out to workers cannot know that beforehand."""
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.stash.get(_LEFT_OUT, 0):
        session.exitstatus = pytest.ExitCode.OK
