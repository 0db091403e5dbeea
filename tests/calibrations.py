"""The modules of ``bench/calibration``, which belong to no installed package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def importable_calibrations() -> Iterator[Callable[[str], Any]]:
    """A function from a module's name to the module, while the repository's root can be imported from."""
    root = str(Path(__file__).parents[1])
    sys.path.insert(0, root)
    try:
        yield lambda name: importlib.import_module(f"bench.calibration.{name}")
    finally:
        sys.path.remove(root)
