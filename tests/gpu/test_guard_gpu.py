"""The guard on a CUDA device: memory that really runs out, and a kernel that really crashes.

Not run on a GPU yet.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import pytest_vq
from pytest_vq.serve.guard import Cause, GuardedExecution
from pytest_vq.serve.load import Served
from pytest_vq.serve.restarting import RestartingEndpoint

pytestmark = pytest.mark.gpu

# A crash takes the process's device with it: it happens in a process of its own.
CRASH = """
import torch, pytest_vq
from pytest_vq.errors import DeviceLostError

def crashes(x):
    return x[torch.full((1,), 10**6, device="cuda")]

guarded = pytest_vq.guard(crashes, fallback=lambda x: x + 1)
try:
    guarded(torch.zeros(4, 3, device="cuda"))
except DeviceLostError as error:
    print("LOST", guarded.needs_restart, guarded.state, str(error).splitlines()[0])
"""


def test_memory_that_runs_out_is_given_to_fp32() -> None:
    told: list[GuardedExecution] = []
    free_bytes, _ = torch.cuda.mem_get_info()

    def greedy(x: Tensor) -> Tensor:
        kept = [torch.empty(free_bytes // 2, dtype=torch.uint8, device="cuda") for _ in range(4)]
        return x + len(kept)

    def fallback(x: Tensor) -> Tensor:
        taken = torch.empty(free_bytes // 2, dtype=torch.uint8, device="cuda")
        return x + taken.shape[0] * 0 + 1

    guarded = pytest_vq.guard(greedy, fallback=fallback, on_execution=told.append)
    x = torch.zeros(4, 3, device="cuda")
    for _ in range(3):
        assert torch.equal(guarded(x), x + 1)
    assert told[0].cause is Cause.OUT_OF_MEMORY
    assert guarded.state == "OPEN"
    torch.cuda.empty_cache()


def test_a_crashed_kernel_asks_for_a_restart() -> None:
    run = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False)
    assert "LOST True OPEN a kernel crashed" in run.stdout, run.stdout + run.stderr


def test_after_a_crashed_kernel_fp32_answers_in_the_next_process() -> None:
    told: list[str] = []
    endpoint = RestartingEndpoint(Served("restarted:crashing_on_gpu"), on_restart=told.append)
    batch = np.arange(12, dtype=np.float32).reshape(4, 3)
    answer = endpoint.infer(batch)
    again = endpoint.infer(batch)
    endpoint.close()
    np.testing.assert_array_equal(np.stack([answer, again]), np.stack([2 * batch, 2 * batch]))
    (reason,) = told
    assert "a kernel crashed" in reason
