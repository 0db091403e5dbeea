"""Eager execution: the module is called as it is."""

from __future__ import annotations

from pytest_vq.catalog.inputs import ModelInputs
from pytest_vq.execution.prepared import Prepared
from pytest_vq.precision.converted import Converted


def prepare(converted: Converted, _: ModelInputs) -> Prepared:
    """The converted module itself."""
    return Prepared(converted.module)
