"""Changes for the worse, made on purpose, to see the gate catch them: ``pytest -p pytest_vq.plugin.provoke``.

``--provoke-slowdown int8=0.10`` makes every forward at a precision take that fraction longer: on a GPU the device
sleeps, on a CPU the processor spins. ``--provoke-allocation int8=32`` makes it hold that many MiB more while it runs.
What is computed and stored stays the same, so only the metric meant may speak. A test of a callable asks for the same
by the fixture ``provoked``, under any name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import pytest
import torch

from pytest_vq.plugin.alteration import ALTERATION

Forward = Callable[..., object]  # of tensors, by position or by keyword
Worsen = Callable[[str, Forward], Forward]

_SLEEP_CYCLES = 10_000_000
_sleep: Callable[[int], None] = torch.cuda._sleep  # spins on the device for so many of its cycles
_MIB = 2**20
_PROVOCATIONS = ("slowdown", "allocation")
_WORSEN = pytest.StashKey[Worsen]()


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
    worsen = config.stash[_WORSEN] = worsening(amounts["slowdown"], amounts["allocation"])
    config.stash[ALTERATION] = lambda scheme, prepared: replace(
        prepared, call=worsen(scheme.precision.name, prepared.call)
    )


@pytest.fixture
def provoked(request: pytest.FixtureRequest) -> Worsen:
    """Make a function of one tensor worse, as the options say for a name: ``provoked("matmul", function)``."""
    return request.config.stash[_WORSEN]


def _variable(name: str) -> str:
    return f"VQ_PROVOKE_{name.upper()}"


def _parse(text: str) -> dict[str, float]:
    parts = (part.split("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(amount) for name, amount in parts}


def worsening(slowdowns: Mapping[str, float], allocations: Mapping[str, float]) -> Worsen:
    """What makes the forwards of the names given come out worse, and leaves others as they are."""

    def worsen(name: str, call: Forward) -> Forward:
        if name in allocations:
            call = _hungrier(call, round(allocations[name] * _MIB))
        return _slower(call, slowdowns[name]) if name in slowdowns else call

    return worsen


def _hungrier(call: Forward, size_bytes: int) -> Forward:
    def run(*args: torch.Tensor, **kwargs: torch.Tensor) -> object:
        # Written to, or a CPU would not make it resident.
        held = torch.ones(size_bytes, dtype=torch.uint8, device=_first(args, kwargs).device)
        answer = call(*args, **kwargs)
        del held
        return answer

    return run


def _slower(call: Forward, fraction: float) -> Forward:
    on_gpu = _SlowOnGpu(call, fraction)

    def run(*args: torch.Tensor, **kwargs: torch.Tensor) -> object:
        if _first(args, kwargs).is_cuda:
            return on_gpu(*args, **kwargs)
        started = time.perf_counter()
        answer = call(*args, **kwargs)
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

    def __call__(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> object:
        shape = tuple(_first(args, kwargs).shape)
        # A shape is first seen in a warm call, never in a timed or captured one: there it may synchronize.
        if shape not in self._cycles:
            request_s = _median_s(lambda: self._call(*args, **kwargs))
            sleep_s = _median_s(lambda: _sleep(_SLEEP_CYCLES))
            self._cycles[shape] = round(self._fraction * request_s / sleep_s * _SLEEP_CYCLES)
        answer = self._call(*args, **kwargs)
        _sleep(self._cycles[shape])
        return answer


def _first(args: tuple[torch.Tensor, ...], kwargs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return next(iter((*args, *kwargs.values())))


def _median_s(call: Callable[[], object], calls: int = 30) -> float:
    times = []
    for _ in range(calls):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)
