"""A pair under load on the GPU, by ``vq_serve``."""

from __future__ import annotations

from textwrap import dedent

import pytest
from filelock import FileLock
from nets import Ended, run_in

from pytest_vq.device.lock import lock_path

pytestmark = pytest.mark.gpu

CONFTEST = """
    import torch
    from torch import nn

    import pytest_vq


    @pytest_vq.register_model("net", input_shape=(3, 32, 32), head="3")
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1024), nn.GELU(), nn.Linear(1024, 10))
"""
FP32_BYTES = 4 * (3 * 32 * 32 * 1024 + 1024 + 1024 * 10 + 10)
# A bound that is kept whatever else the host does: whether the GPU's answers come back right and are counted is asked.
TEST = """
    import pytest

    @pytest.mark.vq_serving(latency_bound_ms=5000, target_qps=600)
    def test_it(vq_case, vq_serve):
        vq_serve(vq_case, fallback=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    directory = tmp_path_factory.mktemp("served")
    (directory / "conftest.py").write_text(dedent(CONFTEST))
    (directory / "test_traffic.py").write_text(dedent(TEST))
    (directory / "pytest.ini").write_text("[pytest]\nvq_budget = 5.5\n")
    return run_in(directory, "test_traffic.py", "--gpu", "--vq-precisions=int8")


def test_a_bound_that_is_kept_passes(run: Ended) -> None:
    assert run.code == 0, run.output
    (row,) = run.study["records"]
    assert (row["verdict"], row["late_requests"], row["samples"]) == ("PASS", 0, 3300)
    assert row["sqnr_db"] > 20
    assert row["load"]["outcomes"] == {"ok": 3300}


def test_what_fp32_would_cost_beside_it_is_told(run: Ended) -> None:
    (row,) = run.study["records"]
    assert FP32_BYTES <= row["fallback_memory_bytes"] < 2 * FP32_BYTES
    assert 0 < row["fallback_p995_ms"] < 5000


def test_nobody_holds_the_gpu_afterwards(run: Ended) -> None:
    (environment,) = run.study["environments"]
    lock = run.directory / lock_path(environment["device_uuid"]).name
    assert lock.exists()
    with FileLock(lock, timeout=0):  # raises Timeout where somebody does
        pass
