"""Memory of a forward on the CPU, as the kernel tells it. (An accelerator's: tests/gpu.)"""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from pytest_vq.device import memory
from pytest_vq.device.memory import HostMemory, MemoryFigures

MIB = 2**20
SLACK = 16 * MIB  # what else a process does meanwhile


def filled(mib: int) -> torch.Tensor:
    return torch.ones(mib * MIB // 4)


@pytest.fixture
def meter() -> HostMemory:
    if not memory._STATUS.is_file():
        pytest.skip("no /proc on this system")
    filled(96).sum()  # the allocator's and the thread pool's first use are not the call's
    return HostMemory()


def test_what_is_held_and_what_a_call_adds_for_a_while(meter) -> None:
    meter.mark()
    held = filled(128)

    def call() -> torch.Tensor:
        return (filled(192) + 1).sum()  # two of them at a time

    figures = meter.measure(call)
    assert held.nbytes == 128 * MIB
    assert figures.resting_bytes == pytest.approx(128 * MIB, abs=SLACK)
    if figures.peak_bytes is not None:  # a kernel that does not let its mark be reset: gVisor
        assert figures.peak_bytes == pytest.approx((128 + 384) * MIB, abs=SLACK)
        assert figures.activation_bytes == pytest.approx(384 * MIB, abs=SLACK)
    assert figures.reserved_bytes is None


def test_an_earlier_peak_does_not_count(meter) -> None:
    filled(512).sum()
    meter.mark()
    figures = meter.measure(lambda: filled(32).sum())
    assert figures.resting_bytes == pytest.approx(0, abs=SLACK)
    assert figures.peak_bytes is None or figures.peak_bytes < 32 * MIB + SLACK


def test_one_call_is_measured_and_not_the_one_before(meter) -> None:
    sizes = iter((512, 32))

    def call() -> torch.Tensor:
        return filled(next(sizes)).sum()

    meter.mark()
    call()
    figures = meter.measure(call)
    assert next(sizes, None) is None
    assert figures.peak_bytes is None or figures.peak_bytes < 32 * MIB + SLACK


def test_what_the_process_gave_back_meanwhile_is_no_negative_growth(meter) -> None:
    ballast = filled(128)
    meter.mark()
    assert ballast.numel()
    del ballast
    figures = meter.measure(lambda: None)
    assert figures.resting_bytes == 0
    assert figures.peak_bytes in (0, None)


def test_what_a_call_returns_is_dropped(meter) -> None:
    meter.mark()
    meter.measure(lambda: filled(128))
    gc.collect()
    again = HostMemory()
    again.mark()
    assert again._before_bytes < meter._before_bytes + 64 * MIB


def test_garbage_in_cycles_is_no_part_of_the_state_before(meter) -> None:
    meter.mark()
    before = meter._before_bytes
    cycle: list[object] = [filled(256)]
    cycle.append(cycle)
    del cycle
    meter.mark()
    assert meter._before_bytes < before + 64 * MIB


def test_without_a_mark_that_can_be_reset_there_is_no_peak(meter, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path)  # a directory cannot be written, not even by root
    meter.mark()
    held = filled(128)
    figures = meter.measure(lambda: None)
    assert held is not None
    assert figures.resting_bytes == pytest.approx(128 * MIB, abs=SLACK)
    assert (figures.peak_bytes, figures.activation_bytes) == (None, None)


def test_figures_that_are_not_there_are_not_subtracted() -> None:
    assert MemoryFigures(10, 25, None).activation_bytes == 15
    assert MemoryFigures(10, None, None).activation_bytes is None
    assert MemoryFigures(None, 25, None).activation_bytes is None


def test_where_there_is_no_such_system_file_it_is_said(monkeypatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpytest\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    with pytest.raises(OSError, match=r"status has no VmRSS$"):
        HostMemory().mark()
