"""Services for tests of load: small, made anew by a fresh process, each with one thing to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pytest_vq import errors
from pytest_vq.errors import QueueFullError, VqError
from pytest_vq.serve.endpoint import SampledService, TorchEndpoint, serve_unbatched
from pytest_vq.serve.open_inference import OpenInferenceEndpoint, ServerModel

SAMPLES = tuple(range(8))


def service(answer: Callable[[int, int], Any], threads: int = 1) -> SampledService:
    """Answers by ``answer(number of the request, sample)``, in threads of its own."""
    executor = ThreadPoolExecutor(threads)
    number = iter(range(10**9))
    return SampledService(SAMPLES, lambda sample: executor.submit(answer, next(number), sample), executor.shutdown)


def doubling() -> SampledService:
    return service(lambda number, sample: 2 * sample)


def stalling(at: int, for_s: float) -> SampledService:
    """Stands still once, for ``for_s``, at request ``at``."""
    return service(lambda number, sample: time.sleep(for_s if number == at else 0.0))


def troubled(silent: int, failing: int, refused: int) -> SampledService:
    """Of its requests, by number, one is never answered, one fails, and one is refused."""
    numbers = iter(range(10**9))
    executor = ThreadPoolExecutor(4)

    def answer(number: int, sample: int) -> int:
        if number == silent:
            threading.Event().wait()
        if number == failing:
            raise ValueError("no such picture\nwith a hint")
        return sample

    def submit(sample: int) -> Future[int]:
        if (number := next(numbers)) == refused:
            raise QueueFullError("64 requests wait already")
        return executor.submit(answer, number, sample)

    return SampledService(SAMPLES, submit, executor.shutdown)


def telling_the_switch_interval() -> SampledService:
    """Fails every request, saying for how many seconds a thread may keep the interpreter."""

    def answer(number: int, sample: int) -> int:
        raise ValueError(f"{sys.getswitchinterval():g} s")

    return service(answer)


def exiting(at: int) -> SampledService:
    """Ends its process, as a crash would, at request ``at``."""
    return service(lambda number, sample: os._exit(139) if number == at else None)


def blocking(for_s: float) -> SampledService:
    """Keeps whoever sends: each submission takes ``for_s``."""

    def submit(sample: int) -> Future[int]:
        time.sleep(for_s)
        future: Future[int] = Future()
        future.set_result(sample)
        return future

    return SampledService(SAMPLES, submit, lambda: None)


def hanging() -> SampledService:
    """Is never built."""
    threading.Event().wait()
    raise AssertionError


def held(fifo: str) -> SampledService:
    """Is never answered. It and a process that it starts keep ``fifo`` open, and say so there when they do."""
    subprocess.Popen(["sh", "-c", 'exec sleep 120 > "$0"', fifo])
    executor = ThreadPoolExecutor(1)

    def answer() -> None:
        with Path(fifo).open("w") as file:
            print("on load", file=file, flush=True)
            time.sleep(120)

    return SampledService(SAMPLES, lambda sample: executor.submit(answer), executor.shutdown)


def unbuildable(name: str, message: str, cause: str | None = None) -> SampledService:
    """Raises the error of that class: one of ours, or one that is made here."""
    kind = getattr(errors, name, None) or type(name, (VqError,), {})
    raise kind(message) from (None if cause is None else ValueError(cause))


def half_built() -> SampledService:
    """Raises an error of others', while a thread that it began works on."""
    ThreadPoolExecutor(1).submit(threading.Event().wait)
    raise ValueError("no such checkpoint")


def empty() -> SampledService:
    return SampledService((), lambda sample: Future(), lambda: None)


def remote(url: str, model: str, connections: int = 4) -> SampledService:
    """A model behind a server that speaks the Open Inference Protocol."""
    endpoint = OpenInferenceEndpoint(ServerModel(url, model, input_name="x"), timeout_s=5.0)
    return serve_unbatched(endpoint, np.arange(8, dtype=np.float32).reshape(8, 1), connections)


def on_gpu() -> SampledService:
    """A model of torch on the GPU."""
    import torch

    model = torch.nn.Linear(16, 4).to("cuda").eval()
    return serve_unbatched(TorchEndpoint(model, "cuda"), np.ones((8, 16), np.float32))
