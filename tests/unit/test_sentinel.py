from __future__ import annotations

import torch

from pytest_vq.measure.sentinel import sentinel

CPU = torch.device("cpu")


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
