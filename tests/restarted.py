"""Models for tests of an endpoint that restarts: each with one fault, made anew in a process of its own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pytest_vq.errors import DeviceLostError, QueueFullError
from pytest_vq.serve.endpoint import TorchEndpoint

FAULTY = 13.0  # a batch that begins with it meets the fault; others are answered


def _die_of(number: signal.Signals) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no dump of it in the working directory
    os.kill(os.getpid(), number)
    threading.Event().wait()


def _raise(error: Exception) -> None:
    raise error


FAULTS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(7),
    "crash": lambda: _die_of(signal.SIGSEGV),
    "kill": lambda: _die_of(signal.SIGKILL),
    "lost": lambda: _raise(DeviceLostError("a kernel crashed\nwith a hint")),
    "hang": lambda: threading.Event().wait(),
    "error": lambda: _raise(ValueError("no such picture\nwith a hint")),
    "busy": lambda: _raise(QueueFullError("64 requests wait already")),
}


class Model:
    """Answers twice the batch: as a quantized model does where it begins CLOSED, a quarter off; else as FP32 does."""

    def __init__(self, state: str, closed: str | None = None) -> None:
        self.is_quantized, self.closed = state == "CLOSED", closed

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return 2 * batch + (0.25 if self.is_quantized else 0.0)

    def close(self) -> None:
        if self.closed is not None:
            Path(self.closed).touch()


class Faulty(Model):
    """Meets ``fault`` at some batches: the quantized one, or ``always``. Before that, it makes the file ``reached``."""

    def __init__(self, fault: str, state: str, always: bool, reached: str | None) -> None:
        super().__init__(state)
        self.fault = FAULTS[fault] if always or self.is_quantized else None
        self.reached = reached

    def infer(self, batch: np.ndarray) -> np.ndarray:
        if self.fault is not None and batch.flat[0] == FAULTY:
            if self.reached is not None:
                Path(self.reached).touch()
            self.fault()
        return super().infer(batch)


class Telling(Model):
    """Answers with its process's id, and with whether that has loaded pytest and torch."""

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return np.array([[os.getpid(), "pytest" in sys.modules, "torch" in sys.modules]])


class Counting(Model):
    """Answers each batch with the number of other calls under way added to it."""

    under_way = 0

    def infer(self, batch: np.ndarray) -> np.ndarray:
        others, self.under_way = self.under_way, self.under_way + 1
        time.sleep(0.005)
        self.under_way -= 1
        return batch + others


class Short(Model):
    """Answers with a row too few."""

    def infer(self, batch: np.ndarray) -> np.ndarray:
        return batch[1:]


def model(fault: str, *, state: str, always: bool = False, reached: str | None = None) -> Model:
    return Faulty(fault, state, always, reached)


def telling(*, state: str, closed: str | None = None) -> Model:
    return Telling(state, closed)


def counting(*, state: str) -> Model:
    return Counting(state)


def short(*, state: str) -> Model:
    return Short(state)


def poisoned(*, state: str) -> Model:
    """Its device is lost, and what it raises does not say so. What looks after that sees a torch made for it."""
    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
    sys.modules["pytest_vq.serve.guard"] = SimpleNamespace(device_is_lost=lambda: True)
    return model("error", state=state)


def with_helper(fifo: str, *, state: str) -> Model:
    """Starts a process that would run for ever, and keeps ``fifo`` open."""
    subprocess.Popen(["sh", "-c", 'exec sleep infinity > "$0"', fifo])
    return Model(state)


def failing_again(fault: str, *, state: str) -> Model:
    """Can be made once only."""
    if state == "OPEN":
        raise OSError("no such checkpoint\nwith a hint")
    return model(fault, state=state)


def unbuildable(*, state: str) -> Model:
    raise ValueError("no such checkpoint")


def endless(*, state: str) -> Model:
    threading.Event().wait()
    raise AssertionError


def guarded(*, state: str) -> TorchEndpoint:
    """A guarded model of torch whose quantized half crashes a kernel, as far as that can be told without a GPU."""
    import pytest_vq
    from pytest_vq.serve import guard

    guard.device_is_lost = lambda: True

    def crashes(batch: object) -> object:
        raise RuntimeError("CUDA error: device-side assert triggered\nhints follow")

    return TorchEndpoint(pytest_vq.guard(crashes, fallback=lambda batch: 2 * batch, state=state))


def crashing_on_gpu(*, state: str) -> TorchEndpoint:
    """A guarded model on the GPU whose quantized half reads beyond its table: the kernel asserts on the device."""
    import torch

    import pytest_vq

    def crashes(batch: torch.Tensor) -> torch.Tensor:
        return batch[torch.full((len(batch),), 10**6, device="cuda")]

    return TorchEndpoint(pytest_vq.guard(crashes, fallback=lambda batch: 2 * batch, state=state), "cuda")
