"""What a device throws becomes an error that names the pair, and the next pair finds the device as it was."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cpu import let_cpu_be
from fp32_ways import go, readings, start_afresh

from pytest_vq.device.device import Device, guarded, is_device_trouble, open_device, require_accelerator
from pytest_vq.errors import (
    DeviceLostError,
    DeviceOutOfMemoryError,
    DeviceUnavailableError,
    OutputError,
    PrecisionError,
)

LOST = RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`")


def device(kind: str = "cpu", threads: int | None = None) -> Device:
    nothing: Any = SimpleNamespace()
    environment: Any = SimpleNamespace(device_name="Fake GPU")
    return Device(torch.device(kind), nothing, nothing, nothing, environment, torch.float32, threads)


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA device with much free memory, whose synchronize raises what ``lost`` holds."""
    lost: list[Exception] = []

    def synchronize(*_: object) -> None:
        if lost:
            raise lost[0]

    def mem_get_info() -> tuple[int, int]:
        synchronize()
        return 64 * 2**30, 80 * 2**30

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", synchronize)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    return device("cuda"), lost


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.\nmore words"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
    ids=lambda error: str(error)[:60],
)
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_out_of_memory(cuda, kind: str, error: Exception) -> None:
    with pytest.raises(DeviceOutOfMemoryError) as raised, guarded(device(kind), "vit-int8"):
        raise error
    assert str(raised.value).startswith("vit-int8: out of memory on Fake GPU: ")
    assert str(raised.value).count("\n") == 0
    assert is_device_trouble(error)


@pytest.mark.parametrize(
    "message",
    [
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`",
        "CUDA error: an illegal memory access was encountered",
    ],
)
def test_an_error_that_does_not_speak_of_memory_is_not_said_to(cuda, message: str) -> None:
    gpu, _ = cuda
    error = RuntimeError(message)
    with pytest.raises(RuntimeError) as raised, guarded(gpu, "vit-int8"):
        raise error
    assert raised.value is error


class TestCublasThatCannotBeSetUp:
    """It says the same for want of memory as where something is broken."""

    ERROR = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")

    def test_without_memory_left_it_is_most_likely_for_want_of_it(self, cuda, monkeypatch) -> None:
        gpu, _ = cuda
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * 2**20, 80 * 2**30))
        words = r"^vit-int8: most likely out of memory on Fake GPU: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when "
        with pytest.raises(DeviceOutOfMemoryError, match=words), guarded(gpu, "vit-int8"):
            raise self.ERROR

    def test_with_memory_left_it_is_what_it_is(self, cuda) -> None:
        gpu, _ = cuda
        with pytest.raises(RuntimeError) as raised, guarded(gpu, "vit-int8"):
            raise self.ERROR
        assert raised.value is self.ERROR
        assert is_device_trouble(self.ERROR)  # all the same it is not the model's fault

    def test_after_a_crashed_kernel_the_device_is_lost(self, cuda) -> None:
        gpu, lost = cuda
        lost.append(LOST)
        with pytest.raises(DeviceLostError, match="CUBLAS_STATUS_NOT_INITIALIZED"), guarded(gpu, "vit-int8"):
            raise self.ERROR


def test_out_of_memory_of_the_real_allocators() -> None:
    with pytest.raises(DeviceOutOfMemoryError), guarded(device(), "vit-int8"):
        torch.empty(2**50, dtype=torch.uint8)
    with pytest.raises(DeviceOutOfMemoryError), guarded(device(), "vit-int8"):
        bytearray(2**62)


def test_what_the_frames_held_is_given_back() -> None:
    seen: list[Any] = []

    def forward() -> None:
        held = torch.ones(1000)
        seen.append(weakref.ref(held))
        raise MemoryError

    with pytest.raises(DeviceOutOfMemoryError) as raised, guarded(device(), "vit-int8"):
        forward()
    assert raised.value.__context__ is not None  # the error still hangs on to its traceback
    assert seen[0]() is None


@pytest.mark.parametrize("error", [OutputError("is NaN"), PrecisionError("same bytes"), KeyError("layer")])
def test_any_other_error_passes(cuda, error: Exception) -> None:
    for kind in ("cpu", "cuda"):
        with pytest.raises(type(error)) as raised, guarded(device(kind), "vit-int8"):
            raise error
        assert raised.value is error
    assert not is_device_trouble(error)


def test_a_crashed_kernel_loses_the_device(cuda) -> None:
    gpu, lost = cuda
    assert not gpu.is_lost

    def crash() -> None:
        try:
            with guarded(gpu, "vit-int8"):
                lost.append(LOST)
                raise LOST
        finally:
            gpu.release()  # must not put another error in the place of that one

    with pytest.raises(DeviceLostError, match=r"^vit-int8: a kernel crashed \(CUDA error: device-side assert"):
        crash()
    assert gpu.is_lost
    assert is_device_trouble(LOST)


def test_what_an_earlier_kernel_did_wrong_is_raised_when_it_is_waited_for(cuda) -> None:
    gpu, lost = cuda
    gpu.synchronize()
    lost.append(LOST)
    device("cpu").synchronize()  # nothing to wait for
    with pytest.raises(DeviceLostError, match=r"^vit-int8: a kernel crashed"), guarded(gpu, "vit-int8"):
        gpu.synchronize()


def test_an_error_of_the_model_is_none_of_the_device(cuda) -> None:
    gpu, _ = cuda
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as raised, guarded(gpu, "vit-int8"):
        raise error
    assert raised.value is error


def test_a_cpu_is_never_lost() -> None:
    assert not device().is_lost


def test_fp32_is_fp32_inside() -> None:  # whatever was set before: test_fp32.py
    start_afresh()
    try:
        go((("cuda.matmul.allow_tf32", True), ("cudnn.allow_tf32", True)))
        before = readings()
        with guarded(device(), "vit-fp32"):
            assert set(readings().values()) <= {"highest", False, "ieee"}
        assert readings() == before
    finally:
        start_afresh()


def test_settings_are_put_right_before_a_pair_and_after_it() -> None:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    try:
        torch.set_num_threads(threads + 1)
        torch.set_default_dtype(torch.float64)
        with guarded(device(threads=1), "vit-int8"):
            assert torch.get_num_threads() == 1
            assert torch.get_default_dtype() is torch.float32
            torch.set_default_dtype(torch.float16)
        assert torch.get_default_dtype() is torch.float64  # the user's own tests find what they set
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def test_an_open_cpu() -> None:
    opened = open_device(gpu=False, threads=3)
    assert (opened.torch_device.type, opened.threads, opened.is_accelerator) == ("cpu", 3, False)
    assert opened.environment.device == "cpu"


@pytest.mark.parametrize(
    ("flags", "capability", "dtype"),
    [
        ("avx2 avx512f avx512_bf16", "AVX512", torch.bfloat16),
        ("avx2 avx512f", "AVX512", torch.float32),
        ("avx2", "AVX2", torch.float32),
    ],
)
def test_the_rest_is_bf16_only_where_the_cpu_computes_in_it(monkeypatch, flags, capability, dtype) -> None:
    let_cpu_be(monkeypatch, f"flags\t: {flags}\n", capability)
    assert open_device(gpu=False, threads=1).rest_dtype is dtype


def test_no_gpu_says_what_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceUnavailableError, match="is built without CUDA"):
        require_accelerator()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailableError, match=r"\(CUDA 13\.0\) sees no CUDA device.*nvidia-smi"):
        open_device(gpu=True, threads=1)
