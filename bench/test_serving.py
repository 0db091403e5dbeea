"""The selected pairs under load: how many requests a second each carries within the bound, and whether it still does.

Left out unless this file is named, or with ``--vq-serving``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_vq import Record
from pytest_vq.schema.spec import Case

vq_models = "default"


@pytest.mark.vq_serving(latency_bound_ms=10, percentile=99.5, max_batch_size=32)
def test_serving(vq_case: Case, vq_serve: Callable[..., Record]) -> None:
    vq_serve(vq_case, scenario="Server")
