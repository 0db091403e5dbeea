"""Where a plugin puts what it alters of all that is run (see ``provoke``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vq.execution.prepared import Alteration

ALTERATION: pytest.StashKey[Alteration] = pytest.StashKey()
