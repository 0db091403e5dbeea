"""The suite's one test, under the slowdown of this directory's conftest."""

from __future__ import annotations

from collections.abc import Callable

from pytest_vq import Record
from pytest_vq.spec import Case

vq_models = "default"


def test_precision(vq_case: Case, vq_bench: Callable[[Case], Record]) -> None:
    """Must fail where the slowdown is larger than what the gate tolerates."""
    vq_bench(vq_case)
