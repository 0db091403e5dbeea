"""The device that measures: what differs between a CPU and an accelerator, gathered in one place."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pytest_vq.device.clock import Clock, EventClock, HostClock
from pytest_vq.device.cpu import computes_bf16
from pytest_vq.device.environment import fingerprint
from pytest_vq.device.lock import device_lock
from pytest_vq.device.memory import AcceleratorMemory, HostMemory, MemoryMeter, release_accelerator
from pytest_vq.device.telemetry import GpuTelemetry, HostTelemetry, Telemetry
from pytest_vq.errors import (
    BuildError,
    DeviceLostError,
    DeviceOutOfMemoryError,
    DeviceUnavailableError,
    VqError,
    first_line,
)
from pytest_vq.precision.fp32 import true_fp32
from pytest_vq.precision.rest import rest_dtype
from pytest_vq.schema.record import Environment
from pytest_vq.schema.spec import PrecisionSpec

# The CPU's allocator, the driver, cuBLAS and cuDNN raise plain RuntimeErrors; their wording is all there is to tell
# them by. The last two are cuDNN 9's names for CUDNN_STATUS_ALLOC_FAILED; its other internal errors are other troubles.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
# What cuBLAS says where it cannot be set up: for want of memory or, with memory left, because something is broken.
_NO_HANDLE = "CUBLAS_STATUS_NOT_INITIALIZED"
_NEARLY_FULL_BYTES = 256 * 2**20  # free; a handle should take some tens of MiB (not measured)


@dataclass(slots=True)
class Held:
    """A device that is, or was, held by this process alone."""

    seconds: float | None = None  # once it was let go


@dataclass(frozen=True, slots=True)
class Device:
    """A device with the instruments that measure on it."""

    torch_device: torch.device
    clock: Clock
    memory: MemoryMeter
    telemetry: Telemetry
    environment: Environment
    rest_dtype: torch.dtype  # of what a quantizing precision leaves unquantized: the fastest type to compute in
    threads: int | None = None  # intra-op threads on the CPU; None where they are left alone

    @property
    def is_accelerator(self) -> bool:
        """True where work is asynchronous and memory is the device's own."""
        return self.torch_device.type != "cpu"

    def rest_for(self, precision: PrecisionSpec) -> torch.dtype:
        """The type of what ``precision`` leaves unquantized here: its own, or the device's."""
        return rest_dtype(precision, self.torch_device, self.rest_dtype)

    @property
    def is_lost(self) -> bool:
        """True where a kernel crashed, whoever launched it: nothing more runs on the device in this process.

        It may be asked without the device's lock: it waits for this process's own kernels and starts none.
        """
        try:
            self.synchronize()
        except RuntimeError:
            return True
        return False

    @contextlib.contextmanager
    def held(self) -> Iterator[Held]:
        """Hold the device, waiting for whoever holds it now.

        Its memory is given back before another process can hold it: there it would count as a neighbour's.
        """
        held = Held()
        with device_lock(self.environment.device_uuid):
            started_s = self.clock.now_s()
            self.telemetry.begin()
            try:
                yield held
            finally:
                self.release()
                held.seconds = self.clock.now_s() - started_s

    def synchronize(self) -> None:
        """Wait until the device is done. What a kernel that was launched earlier did wrong is raised here, by torch."""
        if self.is_accelerator:
            torch.cuda.synchronize()

    @property
    def keeps_profiler(self) -> bool:
        """True where a profiler that once ran in a process stays attached to it: what is timed there later is slower.

        CUPTI, by which torch's profiler sees a GPU, is not finalized when profiling ends: launches take 10-20 % longer
        from then on (pytorch#144455, pytorch#146604, kineto#1539). On a CPU the profiler is a callback that is removed.
        """
        return self.is_accelerator

    def pin_threads(self) -> None:
        """Set the number of threads that rows state: on the CPU, where it is pinned at all."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def release(self) -> None:
        """Give back memory that nothing refers to any more."""
        if self.is_accelerator:
            # On a lost device every call fails; there is nothing to give back, and the error that said so must stand.
            with contextlib.suppress(RuntimeError):
                release_accelerator()
        else:
            gc.collect()


def require_accelerator() -> None:
    """Raise ``DeviceUnavailableError`` saying what is missing, where there is no CUDA device to measure on."""
    if torch.version.cuda is None:
        raise DeviceUnavailableError(
            f"--gpu: this torch ({torch.__version__}) is built without CUDA. Install a CUDA build of torch, "
            "or leave --gpu out to measure on the CPU."
        )
    if not torch.cuda.is_available():
        raise DeviceUnavailableError(
            f"--gpu: torch {torch.__version__} (CUDA {torch.version.cuda}) sees no CUDA device. Check that "
            "`nvidia-smi` lists a GPU, that the driver is new enough for that CUDA, and CUDA_VISIBLE_DEVICES; "
            "or leave --gpu out to measure on the CPU."
        )


def open_device(gpu: bool, threads: int) -> Device:
    """The device to measure on; the CPU runs ``threads`` intra-op threads."""
    if not gpu:
        device = torch.device("cpu")
        # Not FP16: its convolutions are some 30 times slower than FP32's on a CPU.
        rest = torch.bfloat16 if computes_bf16() else torch.float32
        return Device(device, HostClock(), HostMemory(), HostTelemetry(), fingerprint(device), rest, threads)
    require_accelerator()
    device = torch.device("cuda", torch.cuda.current_device())
    environment = fingerprint(device)
    memory, telemetry = AcceleratorMemory(device), GpuTelemetry(environment.device_uuid)
    return Device(device, EventClock(device), memory, telemetry, environment, rest_dtype=torch.float16)


@contextlib.contextmanager
def guarded(device: Device, what: str) -> Iterator[None]:
    """Turn what a device throws into errors that say which pair it was, and give the memory back.

    A traceback keeps alive every tensor its frames refer to: they are cleared, or the next pair would find less memory.
    What the pair before, or the user's builder, changed in torch's settings is set right again: FP32 is FP32 inside.
    """
    device.pin_threads()
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with true_fp32():
            yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        origin = error.__cause__ if isinstance(error, BuildError) and error.__cause__ else error
        out_of_memory = _say_out_of_memory(origin)
        if isinstance(error, VqError) and not out_of_memory:
            raise
        if out_of_memory:
            device.release()
            raise DeviceOutOfMemoryError(
                f"{what}: {out_of_memory} on {device.environment.device_name}: {first_line(origin)}. "
                "Take a smaller batch or model, or free the device for it."
            ) from None
        if device.is_lost:
            raise DeviceLostError(
                f"{what}: a kernel crashed ({first_line(error)}); run it alone with CUDA_LAUNCH_BLOCKING=1 to see "
                "which. The pairs after it are measured in fresh processes."
            ) from error
        raise
    finally:
        torch.set_default_dtype(default_dtype)


def is_device_trouble(error: BaseException) -> bool:
    """True for what the device does to a model, as against what a model does wrong by itself."""
    return bool(_say_out_of_memory(error)) or "CUDA error" in str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """True where ``error`` says, by its type or its words, that memory ran out."""
    return bool(_say_out_of_memory(error))


def _say_out_of_memory(error: BaseException) -> str:
    """How surely ``error`` says that memory ran out, in words; empty where it says something else."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return "out of memory"
    return "most likely out of memory" if _NO_HANDLE in str(error) and _is_nearly_full() else ""


def _is_nearly_full() -> bool:
    """True where the accelerator has hardly any memory left; False where there is none, or it cannot be asked."""
    if not torch.cuda.is_available():
        return False
    try:
        free_bytes, _ = torch.cuda.mem_get_info()
    except RuntimeError:  # a kernel crashed: then that is the reason
        return False
    return free_bytes < _NEARLY_FULL_BYTES
