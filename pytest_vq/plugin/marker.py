"""``@pytest.mark.vq``: the tolerances of a test's gate."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.schema.verdict import Tolerances

MARKER = "vq"
_NAMES = tuple(f.name for f in fields(Tolerances))


def tolerances_of(item: pytest.Item) -> Tolerances:
    """The tolerances of ``@pytest.mark.vq``; the nearest marker wins, name by name."""
    given: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        given |= marker.kwargs
    return Tolerances(**given)


def check_marker(item: pytest.Item) -> None:
    """Raise ``SelectionError`` for what ``@pytest.mark.vq`` does not take."""
    for marker in item.iter_markers(MARKER):
        unknown = set(marker.kwargs) - set(_NAMES)
        if marker.args or unknown:
            what = f"unknown keyword {min(unknown)!r}" if unknown else "positional arguments"
            raise SelectionError(f"{item.nodeid}: mark.vq has {what}; it takes {', '.join(_NAMES)}")
        for name, value in marker.kwargs.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise SelectionError(f"{item.nodeid}: mark.vq({name}={value!r}) is not a number of 0 or more")
