"""Changes for the worse, made on purpose, to see the gate catch them: ``pytest -p pytest_vq.plugin.provoke``.

``--provoke-slowdown int8=0.10`` makes every forward at a precision take that fraction longer: on a GPU the device
sleeps, on a CPU the processor spins. ``--provoke-allocation int8=32`` makes it hold that many MiB more while it runs.
What is computed and stored stays the same, so only the metric meant may speak.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import pytest
import torch

from pytest_vq.execution.prepared import Alteration, Prepared
from pytest_vq.plugin.session import ALTERATION
from pytest_vq.schema.spec import Scheme

Forward = Callable[[torch.Tensor], object]

_SLEEP_CYCLES = 10_000_000
_sleep: Callable[[int], None] = torch.cuda._sleep  # spins on the device for so many of its cycles
_MIB = 2**20
_PROVOCATIONS = ("slowdown", "allocation")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what can be provoked."""
    group = parser.getgroup("vq-provoke", "pytest-vq: changes made on purpose, to see the gate catch them")
    for name, unit, meaning in (
        ("slowdown", "FRACTION", "slow every forward at these precisions down by a fraction of its own time"),
        ("allocation", "MIB", "let every forward at these precisions hold so many MiB more"),
    ):
        metavar = f"PRECISION={unit}[,...]"
        inherited = os.environ.get(_variable(name), "")
        group.addoption(f"--provoke-{name}", default=inherited, metavar=metavar, help=meaning)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what cannot be read, and hand the rest on to the fresh processes in which suspects are measured again."""
    amounts: dict[str, dict[str, float]] = {}
    for name in _PROVOCATIONS:
        text = config.getoption(f"provoke_{name}")
        try:
            amounts[name] = _parse(text)
        except ValueError:
            raise pytest.UsageError(f"--provoke-{name}: {text!r} is not like int8=0.10,fp16=0.05") from None
        os.environ[_variable(name)] = text
    config.stash[ALTERATION] = worsened(amounts["slowdown"], amounts["allocation"])


def _variable(name: str) -> str:
    return f"VQ_PROVOKE_{name.upper()}"


def _parse(text: str) -> dict[str, float]:
    parts = (part.split("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(amount) for name, amount in parts}


def worsened(slowdowns: Mapping[str, float], allocations: Mapping[str, float]) -> Alteration:
    """The alteration by which every forward of the precisions named comes out worse."""

    def alter(scheme: Scheme, prepared: Prepared) -> Prepared:
        name, call = scheme.precision.name, prepared.call
        if name in allocations:
            call = _hungrier(call, round(allocations[name] * _MIB))
        if name in slowdowns:
            call = _slower(call, slowdowns[name])
        return replace(prepared, call=call)

    return alter


def _hungrier(call: Forward, size_bytes: int) -> Forward:
    def run(images: torch.Tensor) -> object:
        # Written to, or a CPU would not make it resident.
        held = torch.ones(size_bytes, dtype=torch.uint8, device=images.device)
        answer = call(images)
        del held
        return answer

    return run


def _slower(call: Forward, fraction: float) -> Forward:
    on_gpu = _SlowOnGpu(call, fraction)

    def run(images: torch.Tensor) -> object:
        if images.is_cuda:
            return on_gpu(images)
        started = time.perf_counter()
        answer = call(images)
        now = time.perf_counter()
        until = now + fraction * (now - started)
        while time.perf_counter() < until:
            pass
        return answer

    return run


class _SlowOnGpu:
    """A forward after which the GPU sleeps for a fraction of the forward's own time."""

    def __init__(self, call: Forward, fraction: float) -> None:
        self._call = call
        self._fraction = fraction
        self._cycles: dict[tuple[int, ...], int] = {}  # input shape -> the GPU's own cycles to sleep after a forward

    def __call__(self, images: torch.Tensor) -> object:
        shape = tuple(images.shape)
        # A shape is first seen in a warm call, never in a timed or captured one: there it may synchronize.
        if shape not in self._cycles:
            request_s = _median_s(lambda: self._call(images))
            sleep_s = _median_s(lambda: _sleep(_SLEEP_CYCLES))
            self._cycles[shape] = round(self._fraction * request_s / sleep_s * _SLEEP_CYCLES)
        answer = self._call(images)
        _sleep(self._cycles[shape])
        return answer


def _median_s(call: Callable[[], object], calls: int = 30) -> float:
    times = []
    for _ in range(calls):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)
