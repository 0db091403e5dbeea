"""A user's project to try the plugin on: one small model of its own, registered in its conftest.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from textwrap import dedent

# pytester forgets the modules that a run in this process imported, and torch cannot be imported twice: import here,
# once, whatever a run imports.
import pytest
from transformers import ViTForImageClassification  # noqa: F401
from warm_start import WarmStart

import pytest_vq.execution.eager
import pytest_vq.gate.decide
import pytest_vq.measure.bench
import pytest_vq.plugin.reporting
import pytest_vq.precision.bnb
import pytest_vq.precision.bnb_check
import pytest_vq.processes.fresh  # noqa: F401
from pytest_vq.catalog.models import isolated
from pytest_vq.processes import child
from pytest_vq.serve import load

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
            spend(quantized=type(self.body[1]) is not nn.Linear)
            return self.head(self.body(images))


    def spend(quantized):
        pass  # beside its arithmetic a forward costs nothing where time is real


    @pytest_vq.register_model("my-net", input_shape=(3, 16, 16), head="head")
    def build():
        torch.manual_seed(0)
        return Net()
"""

# A machine on which everything takes the time that it is said to take, in every process, whatever else the real one
# does: what the gate finds is then the same every time.
STEADY = """

    import pytest

    from pytest_vq.device.clock import HostClock
    from pytest_vq.device.telemetry import HostTelemetry

    now_ms = 0.0


    def spend(quantized):
        global now_ms
        burden = Path("burden_ms")  # a test writes it to make this model slower
        now_ms += 30.0 if quantized else 20.0
        if burden.exists() and quantized:  # int8 and int4, not the FP32 beside
            now_ms += float(burden.read_text())


    def time_ms(self, call, intervals, calls_per_interval=1):
        global now_ms
        times = []
        for _ in range(intervals):
            started = now_ms
            for _ in range(calls_per_interval):
                before = now_ms
                call()
                if now_ms == before:  # the sentinel, which is no model of ours
                    now_ms += 10.0
            times.append((now_ms - started) / calls_per_interval)
        return times


    def disturbance(self, before, after):
        return "a busy neighbour" if Path("neighbour").exists() else None


    @pytest.fixture(autouse=True, scope="session")
    def steady():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HostClock, "time_ms", time_ms)
            patch.setattr(HostClock, "now_s", lambda self: now_ms / 1e3)
            patch.setattr(HostTelemetry, "disturbance", disturbance)
            yield
"""

TEST = """
    def test_precision(vq_case, vq_bench):
        record = vq_bench(vq_case)
        assert record.model == vq_case.model.name
"""


@pytest.fixture(scope="session")
def warm_start() -> Iterator[WarmStart]:
    """What starts processes that need not import torch first."""
    warm = WarmStart()
    yield warm
    warm.close()


@pytest.fixture
def cold_start() -> None:
    """For a test whose processes are really started as the package starts them."""


@pytest.fixture
def project(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    warm_start: WarmStart,
    request: pytest.FixtureRequest,
) -> Iterator[pytest.Pytester]:
    """The user's project: ``conftest.py`` with ``my-net``, and a test that runs the matrix."""
    if "cold_start" not in request.fixturenames:
        monkeypatch.setattr(child, "subprocess", warm_start)
        monkeypatch.setattr(load, "subprocess", warm_start)
    # The device's lock lies there: no test waits for a benchmark that happens to run on this machine.
    locks = pytester.mkdir("locks")
    monkeypatch.setenv("TMPDIR", str(locks))
    monkeypatch.setattr(tempfile, "tempdir", str(locks))
    # Of the run that this test is part of: its worker, and the job whose summary it writes.
    for name in ("PYTEST_XDIST_WORKER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:randomly\nvq_budget = 0.3\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_my_bench=TEST)
    with isolated():
        yield pytester


@pytest.fixture
def steady(project: pytest.Pytester) -> pytest.Pytester:
    """The project on a machine whose time stands still but for what the models say they take."""
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + dedent(STEADY))
    project.makeini("[pytest]\naddopts = -p no:randomly\nvq_budget = 30\n")  # seconds that cost nothing here
    return project


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
