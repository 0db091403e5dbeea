"""``@pytest.mark.vq``: the tolerances of a test's gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.schema.verdict import Tolerances

MARKER = "vq"
_NAMES = tuple(f.name for f in fields(Tolerances))
_OF_CALLABLES = ("latency_tolerance", "memory_tolerance")


def tolerances_of(item: pytest.Item) -> Tolerances:
    """The tolerances of ``@pytest.mark.vq``; the nearest marker wins, name by name."""
    return Tolerances(**keywords_of(item, MARKER))


def keywords_of(item: pytest.Item, name: str) -> dict[str, Any]:
    """What the markers called ``name`` of a test say; the nearest wins, keyword by keyword."""
    given: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(name))):
        given |= marker.kwargs
    return given


def check_keywords(item: pytest.Item, marker: pytest.Mark, names: Sequence[str]) -> None:
    """Raise ``SelectionError`` where ``marker`` has anything but keywords of these ``names``."""
    unknown = set(marker.kwargs) - set(names)
    if marker.args or unknown:
        what = f"unknown keyword {min(unknown)!r}" if unknown else "positional arguments"
        raise SelectionError(f"{item.nodeid}: mark.{marker.name} has {what}; it takes {', '.join(names)}")


def check_marker(item: pytest.Item, *, of_callable: bool) -> None:
    """Raise ``SelectionError`` for what ``@pytest.mark.vq`` does not take, or means nothing to a callable's test."""
    for marker in item.iter_markers(MARKER):
        check_keywords(item, marker, _NAMES)
        meaningless = set(marker.kwargs) - set(_OF_CALLABLES) if of_callable else set()
        if meaningless:
            raise SelectionError(
                f"{item.nodeid}: mark.vq({min(meaningless)}=...) means nothing for vq_gate: a callable has no FP32 "
                f"beside it, no stored weights and no answers that are judged; it takes {', '.join(_OF_CALLABLES)}"
            )
        for name, value in marker.kwargs.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise SelectionError(f"{item.nodeid}: mark.vq({name}={value!r}) is not a number of 0 or more")
