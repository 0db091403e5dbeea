"""A slowdown made on purpose, to see the gate catch it: ``pytest tools/provoke --provoke-slowdown int8=0.10``.

Every forward of a model at a named precision takes that fraction longer: on a GPU the device sleeps, on a CPU the
processor spins. What it computes, stores and allocates stays the same, so only the timed metrics may speak.
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

# The fresh processes in which a suspect is measured again get no options of this file, but they inherit this.
_VARIABLE = "VQ_PROVOKE_SLOWDOWN"
_SLEEP_CYCLES = 10_000_000
_sleep: Callable[[int], None] = torch.cuda._sleep  # spins on the device for so many of its cycles; can be captured


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--provoke-slowdown``."""
    parser.addoption(
        "--provoke-slowdown",
        default=os.environ.get(_VARIABLE, ""),
        metavar="PRECISION=FRACTION[,...]",
        help="slow every forward at these precisions down by a fraction of its own time, e.g. int8=0.10",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what cannot be read, and hand the rest on to fresh processes."""
    text = config.getoption("provoke_slowdown")
    try:
        _parse(text)
    except ValueError:
        raise pytest.UsageError(f"--provoke-slowdown: {text!r} is not like int8=0.10,fp16=0.05") from None
    os.environ[_VARIABLE] = text


@pytest.fixture(autouse=True, scope="session")
def slowed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every conversion to a named precision comes out slower, for all of this session."""
    bench: Any = importlib.import_module("pytest_vq.measure.bench")  # where conversions are called from
    fractions = _parse(request.config.getoption("provoke_slowdown"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "convert", _slowing(bench.convert, fractions))
        yield


def _parse(text: str) -> dict[str, float]:
    parts = (part.split("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(fraction) for name, fraction in parts}


def _slowing(convert: Callable[..., Any], fractions: Mapping[str, float]) -> Callable[..., Any]:
    def slowed_convert(source: nn.Module, spec: Any, *, device: torch.device, **others: Any) -> Any:
        converted = convert(source, spec, device=device, **others)
        if spec.name in fractions:
            slow = _slow_on_gpu if device.type == "cuda" else _slow_on_cpu
            slow(converted.module, fractions[spec.name])
        return converted

    return slowed_convert


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
