from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_vq.measure.sentinel import sentinel

CPU, META = torch.device("cpu"), torch.device("meta")  # the latter computes nothing, and gets a GPU's work


class Launches(TorchDispatchMode):
    """Counts the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def launched(device: torch.device) -> list[str]:
    call = sentinel(device)
    with torch.inference_mode(), Launches() as launches:
        call()
    return launches.names


def test_it_is_the_same_work_in_every_process_whatever_the_seed() -> None:
    torch.manual_seed(1)
    first = sentinel(CPU)()
    torch.manual_seed(2)
    call = sentinel(CPU)
    assert torch.equal(call(), first)
    assert torch.equal(call(), first)


def test_it_is_a_block_in_fp32_of_values_that_stay_ordinary() -> None:
    before = torch.get_rng_state()
    output = sentinel(CPU)()
    assert torch.equal(torch.get_rng_state(), before)  # a user's own draws do not depend on it
    assert (output.shape, output.dtype) == ((1, 197, 192), torch.float32)
    assert 1e-3 < float(output.abs().mean()) < 10


def test_on_a_gpu_a_hundred_tiny_launches_come_before_the_block() -> None:
    names = launched(META)
    assert names[:100] == ["aten.neg.default"] * 100
    assert "aten.neg.default" not in names[100:]
    assert len(names) < 150


def test_on_a_cpu_it_is_the_block_alone() -> None:
    assert "aten.neg.default" not in launched(CPU)
