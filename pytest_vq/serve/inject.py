"""Faults made on purpose, around any callable model: what a guard must catch, at a rate, by a seed.

``inject.nan(rate=0.02)(model)`` is a model of whose rows 2 % are NaN; ``inject.oom``, ``inject.slow`` and
``inject.exception`` fall on whole executions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch

from pytest_vq.serve.rows import row_count, with_nan

Model = Callable[..., Any]
Fault = Callable[[Model], Model]


class InjectedError(RuntimeError):
    """What ``inject.exception`` raises."""


def nan(rate: float, seed: int = 0) -> Fault:
    """Each row of an answer is NaN, at ``rate``."""
    draw = _drawn(rate, seed)

    def wrap(model: Model) -> Model:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            answer = model(*args, **kwargs)
            struck = [row for row in range(row_count(args, kwargs)) if draw()]
            return with_nan(answer, struck) if struck else answer

        return faulty

    return wrap


def oom(rate: float, seed: int = 0) -> Fault:
    """An execution runs out of memory, at ``rate``."""
    return _raising(rate, seed, lambda: torch.OutOfMemoryError("CUDA out of memory (injected)"))


def exception(rate: float, seed: int = 0) -> Fault:
    """An execution raises, at ``rate``."""
    return _raising(rate, seed, lambda: InjectedError("injected: a kernel refused its arguments"))


def slow(rate: float, delay_s: float, seed: int = 0, sleep: Callable[[float], object] = time.sleep) -> Fault:
    """An execution takes ``delay_s`` longer, at ``rate``."""
    draw = _drawn(rate, seed)

    def wrap(model: Model) -> Model:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            if draw():
                sleep(delay_s)
            return model(*args, **kwargs)

        return faulty

    return wrap


def _raising(rate: float, seed: int, error: Callable[[], Exception]) -> Fault:
    draw = _drawn(rate, seed)

    def wrap(model: Model) -> Model:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            if draw():
                raise error()
            return model(*args, **kwargs)

        return faulty

    return wrap


def _drawn(rate: float, seed: int) -> Callable[[], bool]:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: {rate} is no share of all; give one from 0 to 1")
    numbers = random.Random(seed)
    return lambda: numbers.random() < rate
