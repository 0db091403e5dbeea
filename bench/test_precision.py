"""The suite: every selected model at every selected precision, measured, recorded and gated."""

from __future__ import annotations

from collections.abc import Callable

from pytest_vq import Record
from pytest_vq.schema.spec import Case

# Also beside models of one's own: a GPU measures the study's 16 and vit-digits, a CPU those up to 25M parameters.
vq_models = "default"


def test_precision(vq_case: Case, vq_bench: Callable[[Case], Record]) -> None:
    vq_bench(vq_case)
