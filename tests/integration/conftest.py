"""A user's project to try the plugin on: one small model of its own, registered in its conftest.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator

# pytester forgets the modules that a run in this process imported, and torch cannot be imported twice: import here,
# once, whatever a run imports.
import bitsandbytes  # noqa: F401
import pytest
from transformers import ViTForImageClassification  # noqa: F401

import pytest_vq.gate.decide
import pytest_vq.measure.bench
import pytest_vq.plugin.reporting
import pytest_vq.precision.bnb
import pytest_vq.precision.floating  # noqa: F401
from pytest_vq.catalog.models import isolated

CONFTEST = """
    import time
    from pathlib import Path

    import torch
    from torch import nn

    import pytest_vq


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 256), nn.GELU(), nn.Linear(256, 256))
            self.head = nn.Linear(256, 10)

        def forward(self, images):
            burden = Path("burden_ms")  # a test writes it to make this model slower
            if burden.exists() and images.dtype == torch.bfloat16:  # int8 and int4, not the FP32 beside
                time.sleep(float(burden.read_text()) / 1e3)
            return self.head(self.body(images))


    @pytest_vq.register_model("my-net", input_shape=(3, 16, 16), head="head")
    def build():
        torch.manual_seed(0)
        return Net()
"""

TEST = """
    def test_precision(vq_case, vq_bench):
        record = vq_bench(vq_case)
        assert record.model == vq_case.model.name
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.Pytester]:
    """The user's project: ``conftest.py`` with ``my-net``, and a test that runs the matrix."""
    # The device's lock lies there: no test waits for a benchmark that happens to run on this machine.
    locks = pytester.mkdir("locks")
    monkeypatch.setenv("TMPDIR", str(locks))
    monkeypatch.setattr(tempfile, "tempdir", str(locks))
    pytester.makeini("[pytest]\naddopts = -p no:randomly\nvq_budget = 0.3\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_my_bench=TEST)
    with isolated():
        yield pytester


@pytest.fixture
def rows(project: pytest.Pytester):
    """Read ``results.csv``: a list of dicts, one a pair."""
    import csv

    def read(directory: str = "vq-results") -> list[dict[str, str]]:
        with (project.path / directory / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def study(project: pytest.Pytester):
    """Read ``study.json``."""

    def read(directory: str = "vq-results") -> dict[str, object]:
        return json.loads((project.path / directory / "study.json").read_text())

    return read
