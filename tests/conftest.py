"""What all tests share: a collector that does not look through the libraries, and through all tests, again and again.

A full collection takes 0.3 s in a process that has collected these tests, and to measure one pair takes three of them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

# Two workers share two cores: with two threads each, torch's would wait for each other, and use both cores for that.
# Set before torch is imported, and inherited by the processes of the tests. A test that needs threads sets them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_TOO_MANY = 400_000  # objects frozen by tests, some of them garbage, that are worth a look through everything
_unfreeze = gc.unfreeze
_frozen_at_first = 0


def _freeze_all() -> None:
    global _frozen_at_first
    _unfreeze()
    gc.collect()
    gc.freeze()
    _frozen_at_first = gc.get_freeze_count()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take the libraries and the tests out of all later collections."""
    _freeze_all()


@pytest.fixture(autouse=True, scope="module")
def frozen(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is frozen stays frozen, whatever thaws it: what a test froze and dropped is let go of between modules.

    On a GPU it would be memory that the next test finds taken: there, frozen objects are thawed.
    """
    if request.path.parent.name == "gpu":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)
        yield
    if gc.get_freeze_count() > _frozen_at_first + _TOO_MANY:
        _freeze_all()


@pytest.fixture
def real_unfreeze(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``gc.unfreeze`` as Python has it, for a test of what is frozen."""
    monkeypatch.setattr(gc, "unfreeze", _unfreeze)
    yield
    _freeze_all()
