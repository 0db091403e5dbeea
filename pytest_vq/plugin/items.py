"""What a test measures, if it measures anything; and tests that are taken out of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pytest_vq.plugin import xdist
from pytest_vq.schema.spec import Case, CaseId


def measured_by(item: pytest.Item) -> CaseId | None:
    """What ``item`` measures, if it measures anything: a pair, or a callable."""
    if uses(item, "vq_gate"):
        return CaseId.of_callable(xdist.id_without_group(item))
    case = case_of(item)
    return None if case is None else replace(case.case_id, serving=uses(item, "vq_serve"))


def case_of(item: pytest.Item) -> Case | None:
    """The pair that ``item`` measures, if it measures one. A test of a callable may have pairs as its parameters."""
    if uses(item, "vq_gate"):
        return None
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("vq_case") if callspec else None
    return case if isinstance(case, Case) else None


def uses(item: pytest.Item, fixture: str) -> bool:
    """Whether it has ``fixture`` as an argument, or a fixture that has."""
    return fixture in getattr(item, "fixturenames", ())


def deselect(items: list[pytest.Item], gone: Iterable[pytest.Item]) -> None:
    """Take ``gone`` out of ``items``, and tell pytest, which counts them."""
    left = set(gone)
    if left:
        items[0].config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
