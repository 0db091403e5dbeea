"""``@pytest.mark.vq``: the tolerances of a test's gate."""

from __future__ import annotations

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
    given: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        given |= marker.kwargs
    return Tolerances(**given)


def check_marker(item: pytest.Item, *, of_callable: bool) -> None:
    """Raise ``SelectionError`` for what ``@pytest.mark.vq`` does not take, or means nothing to a callable's test."""
    for marker in item.iter_markers(MARKER):
        unknown = set(marker.kwargs) - set(_NAMES)
        if marker.args or unknown:
            what = f"unknown keyword {min(unknown)!r}" if unknown else "positional arguments"
            raise SelectionError(f"{item.nodeid}: mark.vq has {what}; it takes {', '.join(_NAMES)}")
        meaningless = set(marker.kwargs) - set(_OF_CALLABLES) if of_callable else set()
        if meaningless:
            raise SelectionError(
                f"{item.nodeid}: mark.vq({min(meaningless)}=...) means nothing for vq_gate: a callable has no FP32 "
                f"beside it, no stored weights and no answers that are judged; it takes {', '.join(_OF_CALLABLES)}"
            )
        for name, value in marker.kwargs.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise SelectionError(f"{item.nodeid}: mark.vq({name}={value!r}) is not a number of 0 or more")
