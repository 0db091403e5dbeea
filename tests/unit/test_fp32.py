"""FP32 is FP32 and TF32 is TF32 whatever was set before, and what was set before is there again afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from textwrap import dedent

import pytest
import torch
from fp32_ways import (
    HAS_NEW_SWITCHES,
    MATMUL,
    NEW_SWITCHES,
    OLD_SWITCHES,
    WAYS,
    Way,
    describe,
    go,
    readings,
    start_afresh,
)

from pytest_vq.errors import MeasurementError
from pytest_vq.precision.fp32 import tf32, true_fp32

TRUE_FP32 = {MATMUL: "highest"} | dict.fromkeys(OLD_SWITCHES, False) | dict.fromkeys(NEW_SWITCHES, "ieee")
# Of the old switches, and of the new ones those of CUDA: the CPU's stay as they are.
ALL_TF32 = {MATMUL: "high"} | dict.fromkeys(OLD_SWITCHES, True)
ALL_TF32 |= {switch: "tf32" if "cud" in switch else "ieee" for switch in NEW_SWITCHES}
new_switches = pytest.mark.skipif(not HAS_NEW_SWITCHES, reason="this torch has only the old switches")


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    start_afresh()
    yield
    start_afresh()


@pytest.mark.parametrize("way", WAYS, ids=describe)
def test_every_switch_is_off_inside_and_reads_as_before_afterwards(way: Way) -> None:
    go(way)
    before = readings()
    with true_fp32():
        assert readings() == {switch: TRUE_FP32[switch] for switch in before}
    assert readings() == before


@pytest.mark.parametrize("way", WAYS, ids=describe)
def test_products_and_convolutions_are_fp32_inside(way: Way) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
    images, kernels = torch.randn(2, 16, 32, 32, generator=generator), torch.randn(16, 16, 3, 3, generator=generator)
    go(way)
    with true_fp32():
        errors = [
            (left @ right).double() - left.double() @ right.double(),
            torch.conv2d(images, kernels).double() - torch.conv2d(images.double(), kernels.double()),
        ]
    assert max(float(error.abs().max()) for error in errors) < 1e-3  # BF16's eight bits give some 0.3, TF32's 0.04


@new_switches
@pytest.mark.parametrize("way", WAYS, ids=describe)
@pytest.mark.parametrize("generic", ["ieee", "tf32"])
def test_what_followed_its_parent_before_follows_it_afterwards(way: Way, generic: str) -> None:
    go(way)
    go((("fp32_precision", generic),))
    expected = readings()
    start_afresh()
    go(way)
    with true_fp32():
        pass
    go((("fp32_precision", generic),))
    assert readings() == expected


def test_what_is_set_inside_is_gone_afterwards() -> None:
    before = readings()
    with true_fp32():
        for way in WAYS:
            go(way)
    assert readings() == before


def test_all_is_put_back_after_an_error_too() -> None:
    go(((MATMUL, "medium"),))
    before = readings()
    with pytest.raises(KeyError), true_fp32():
        raise KeyError
    assert readings() == before


def test_one_inside_another_ends_nothing_early() -> None:
    before = readings()
    with true_fp32():
        with true_fp32():
            pass
        assert readings() == {switch: TRUE_FP32[switch] for switch in before}
    assert readings() == before


@pytest.mark.parametrize("way", WAYS, ids=describe)
def test_tf32_is_on_for_cuda_alone_inside_and_all_reads_as_before_afterwards(way: Way) -> None:
    go(way)
    before = readings()
    with true_fp32():
        expected = readings()
        for _ in range(2):  # a block, and the next
            with tf32():
                assert readings() == {switch: ALL_TF32[switch] for switch in before}
            assert readings() == expected
    assert readings() == before


@pytest.mark.parametrize("way", WAYS, ids=describe)
def test_tf32_by_itself_puts_back_what_it_found(way: Way) -> None:
    go(way)
    before = readings()
    with pytest.raises(KeyError), tf32():
        raise KeyError
    assert readings() == before


def test_fp32_within_tf32_is_fp32() -> None:
    with tf32():
        before = readings()
        with true_fp32():
            assert readings() == {switch: TRUE_FP32[switch] for switch in before}
        with tf32():
            pass
        assert readings() == before


def test_tf32_changes_nothing_that_the_cpu_computes() -> None:
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    with true_fp32():
        expected = left @ right
        with tf32():
            assert torch.equal(left @ right, expected)


# As torch starts, cuDNN's new switches may be in a state that no setter brings back: that needs a fresh process.
@new_switches
def test_a_torch_that_only_one_switch_was_set_in_reads_as_before_too() -> None:
    script = """
        import torch
        from fp32_ways import readings
        from pytest_vq.precision.fp32 import tf32, true_fp32

        torch.backends.fp32_precision = "ieee"
        before = readings()
        with true_fp32():
            inside = readings()
        assert readings() == before, (before, readings())
        assert set(inside.values()) == {"highest", False, "ieee"}, inside
        """
    command, paths = [sys.executable, "-c", dedent(script)], {"PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths, check=False)
    assert run.returncode == 0, run.stderr


def test_a_torch_with_only_the_old_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    go(((MATMUL, "medium"), ("cudnn.allow_tf32", True)))
    if HAS_NEW_SWITCHES:  # 2.8 has none
        monkeypatch.delattr(torch._C, "_get_fp32_precision_getter")
    with true_fp32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cudnn.allow_tf32


def test_a_warning_of_the_old_switches_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch 2.9.0 gives it; a suite may turn warnings into errors."""
    set_matmul = torch._C._set_float32_matmul_precision

    def warn_and_set(precision: str) -> None:
        warnings.warn("Please use the new API settings to control TF32 behavior", UserWarning, stacklevel=2)
        set_matmul(precision)

    monkeypatch.setattr(torch._C, "_set_float32_matmul_precision", warn_and_set)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with true_fp32():
            assert torch.get_float32_matmul_precision() == "highest"
            with pytest.raises(UserWarning, match="mine"):  # what else warns is heard
                warnings.warn("mine", UserWarning, stacklevel=1)


@new_switches
def test_a_torch_that_does_not_take_it_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    set_precision = torch._C._set_fp32_precision_setter

    def set_all_but_convolutions(backend: str, operation: str, precision: str) -> None:
        if operation != "conv":
            set_precision(backend, operation, precision)

    torch.backends.cudnn.conv.fp32_precision = "tf32"
    monkeypatch.setattr(torch._C, "_set_fp32_precision_setter", set_all_but_convolutions)
    monkeypatch.setattr(torch._C, "_set_cudnn_allow_tf32", lambda allowed: None)
    words = r"was told to compute in FP32, but cudnn\.allow_tf32 is True, cuda\.conv\.fp32_precision is 'tf32': "
    with pytest.raises(MeasurementError, match=words), true_fp32():
        pytest.fail("measured")


@new_switches
def test_a_torch_that_does_not_take_tf32_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    set_precision = torch._C._set_fp32_precision_setter
    kept = {"tf32": "ieee"}
    monkeypatch.setattr(torch._C, "_set_fp32_precision_setter", lambda b, o, p: set_precision(b, o, kept.get(p, p)))
    words = r"was told to compute in TF32, but .*cuda\.matmul\.fp32_precision is 'ieee'.*: TF32 rows would not be TF32"
    with true_fp32(), pytest.raises(MeasurementError, match=words), tf32():
        pytest.fail("measured")
