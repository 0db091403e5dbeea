"""Changes for the worse, made on purpose, to see the gate catch them: ``pytest -p pytest_vq.plugin.provoke``.

``--provoke-slowdown int8=0.10`` makes every forward at a precision take that fraction longer: on a GPU the device
sleeps, on a CPU the processor spins. ``--provoke-allocation int8=32`` makes it hold that many MiB more while it runs.
What is computed and stored stays the same, so only the metric meant may speak.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn

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
    for name in _PROVOCATIONS:
        text = config.getoption(f"provoke_{name}")
        try:
            _parse(text)
        except ValueError:
            raise pytest.UsageError(f"--provoke-{name}: {text!r} is not like int8=0.10,fp16=0.05") from None
        os.environ[_variable(name)] = text


def _variable(name: str) -> str:
    return f"VQ_PROVOKE_{name.upper()}"


@pytest.fixture(autouse=True, scope="session")
def provoked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every conversion to a named precision comes out worse, for all of this session."""
    bench: Any = importlib.import_module("pytest_vq.measure.bench")  # where conversions are called from
    slowdowns, allocations = (_parse(request.config.getoption(f"provoke_{name}")) for name in _PROVOCATIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "convert", _worsening(bench.convert, slowdowns, allocations))
        yield


def _parse(text: str) -> dict[str, float]:
    parts = (part.split("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(amount) for name, amount in parts}


def _worsening(
    convert: Callable[..., Any], slowdowns: Mapping[str, float], allocations: Mapping[str, float]
) -> Callable[..., Any]:
    def worse_convert(source: nn.Module, spec: Any, *, device: torch.device, **others: Any) -> Any:
        converted = convert(source, spec, device=device, **others)
        if spec.name in slowdowns:
            slow = _slow_on_gpu if device.type == "cuda" else _slow_on_cpu
            slow(converted.module, slowdowns[spec.name])
        if spec.name in allocations:
            _hold_more(converted.module, round(allocations[spec.name] * _MIB), device)
        return converted

    return worse_convert


def _hold_more(module: nn.Module, size_bytes: int, device: torch.device) -> None:
    held: list[torch.Tensor] = []
    # Written to, or a CPU would not make it resident.
    module.register_forward_pre_hook(lambda *_: held.append(torch.ones(size_bytes, dtype=torch.uint8, device=device)))
    module.register_forward_hook(lambda *_: held.clear())


def _slow_on_cpu(module: nn.Module, fraction: float) -> None:
    started = 0.0

    def before(*_: object) -> None:
        nonlocal started
        started = time.perf_counter()

    def after(*_: object) -> None:
        now = time.perf_counter()
        until = now + fraction * (now - started)
        while time.perf_counter() < until:
            pass

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _slow_on_gpu(module: nn.Module, fraction: float) -> None:
    cycles_of: dict[tuple[int, ...], int] = {}  # input shape -> the GPU's own cycles to sleep after a forward
    calibrating = False

    def after(_: nn.Module, inputs: tuple[torch.Tensor, ...], __: object) -> None:
        nonlocal calibrating
        if calibrating:
            return
        shape = tuple(inputs[0].shape)
        # A shape is first seen in a warm call, never in a timed or captured one: there it may synchronize.
        if shape not in cycles_of:
            calibrating = True
            try:
                request_s = _median_s(lambda: module(*inputs))
            finally:
                calibrating = False
            sleep_s = _median_s(lambda: _sleep(_SLEEP_CYCLES))
            cycles_of[shape] = round(fraction * request_s / sleep_s * _SLEEP_CYCLES)
        _sleep(cycles_of[shape])

    module.register_forward_hook(after)


def _median_s(call: Callable[[], object], calls: int = 30) -> float:
    times = []
    for _ in range(calls):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)
