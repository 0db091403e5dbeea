"""In what order the schemes of a model stand, wherever several of them do. Pure."""

from __future__ import annotations

from pytest_vq.precision.precisions import precision_place
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import EAGER

SchemePlace = tuple[int, str, bool, str]


def scheme_place(precision: str, execution: str = EAGER) -> SchemePlace:
    """Sorts schemes: the catalog's precisions from the widest to the narrowest, then others; eager execution first."""
    return precision_place(precision), precision, execution != EAGER, execution


def setup_place(setup: Setup) -> SchemePlace:
    """The same of the scheme that was measured with ``setup``."""
    return scheme_place(setup.precision, setup.execution)
