"""Workers on real GPUs: each is given one that CUDA accepts, and those that share one do not disturb each other."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from nets import Ended, run_in

from pytest_vq.device.visible import VARIABLE, visible_gpus

pytestmark = pytest.mark.gpu

CONFTEST = """
    import os
    from pathlib import Path

    import torch
    from torch import nn

    import pytest_vq


    def make(seed):
        torch.manual_seed(seed)
        layers = nn.Linear(3 * 64 * 64, 4096), nn.GELU(), nn.Linear(4096, 4096), nn.Linear(4096, 10)
        return nn.Sequential(nn.Flatten(), *layers)


    @pytest_vq.register_model("net-a", input_shape=(3, 64, 64), head="4")
    def net_a():
        return make(0)


    @pytest_vq.register_model("net-b", input_shape=(3, 64, 64), head="4")
    def net_b():
        with Path("seen").open("a") as file:
            print(os.environ["CUDA_VISIBLE_DEVICES"], file=file)
        return make(1)
"""
TEST = """
    def test_precision(vq_case, vq_bench):
        vq_bench(vq_case)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    directory = tmp_path_factory.mktemp("nets")
    (directory / "conftest.py").write_text(dedent(CONFTEST))
    (directory / "test_nets.py").write_text(dedent(TEST))
    (directory / "pytest.ini").write_text("[pytest]\nvq_budget = 2\n")
    return run_in(directory, "--gpu", "-n", "2", "--vq-precisions=fp32,fp16,int8", "--vq-gate=off")


def test_nvml_and_cuda_count_the_same_gpus() -> None:
    names = visible_gpus(os.environ)
    assert names
    if not any(name.startswith("MIG-") for name in names):  # of slices CUDA shows one at a time
        assert len(names) == torch.cuda.device_count()


def test_two_workers_measure_all_pairs(run: Ended) -> None:
    assert run.code == 0, run.output
    assert len(run.pairs) == 6


def test_each_sees_one_gpu_that_cuda_accepts(run: Ended) -> None:
    seen = set((run.directory / "seen").read_text().split())
    assert seen <= set(visible_gpus(os.environ))


def test_a_worker_that_waits_is_no_busy_neighbour(run: Ended) -> None:
    disturbed = [row["disturbance"] for row in run.study["records"] if row["disturbance"]]
    assert [reason for reason in disturbed if "neighbour" in reason] == []


def test_an_outer_list_of_gpus_is_kept_to(tmp_path: Path) -> None:
    first = visible_gpus(os.environ)[0]
    for name, text in (("conftest.py", CONFTEST), ("test_nets.py", TEST)):
        (tmp_path / name).write_text(dedent(text))
    (tmp_path / "pytest.ini").write_text("[pytest]\nvq_budget = 1\n")
    words = ("--gpu", "-n", "auto", "--vq-models=net-b", "--vq-precisions=fp16", "--vq-gate=off")
    ended = run_in(tmp_path, *words, environment={VARIABLE: first})
    assert ended.code == 0, ended.output
    assert set((tmp_path / "seen").read_text().split()) == {first}
