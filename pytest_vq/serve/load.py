"""Puts load on what is served: always in a fresh process, and never for longer than it may take.

A process of its own, because LoadGen keeps what went wrong: an exception that reaches it ends in a crash, and a query
that is never answered keeps it waiting for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_vq import errors
from pytest_vq.errors import MeasurementError, MissingExtraError, SelectionError, VqError
from pytest_vq.processes.command import clean_environment
from pytest_vq.schema.load_run import ENGINES, LoadPlan, LoadRun
from pytest_vq.serve.parent_watch import held_pipe

_CHILD = "pytest_vq.serve.load_child"
_GRACE_S = 15.0  # to end what is under way and to write it down
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Served:
    """How a fresh process gets what is served: it calls ``factory`` with ``arguments``.

    ``factory`` is the path of a function, ``module:function``, that returns a ``Service`` to put load on, or an
    ``Endpoint`` to be restarted. ``arguments`` are JSON: names, ids, addresses. The process finds whatever module this
    one does.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What the fresh process is told."""

    plan: LoadPlan
    served: Served
    load_engine: str
    import_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RaisedError:
    """An error of ours that came up in the fresh process."""

    name: str  # of its class
    message: str
    cause: str  # the traceback of what it was raised from; empty where that is nothing


def choose_engine(name: str | None = None) -> str:
    """The load engine called ``name``, or the one that runs here if not named: LoadGen, and ours where it is missing.

    Raises:
        SelectionError: there is none of that name.
        MissingExtraError: LoadGen was asked for and is not installed.
    """
    installed = find_spec("mlperf_loadgen") is not None
    if name is None:
        return "loadgen" if installed else "builtin"
    if name not in ENGINES:
        raise SelectionError(f"there is no load engine {name!r}, only {', '.join(ENGINES)}")
    if name == "loadgen" and not installed:
        raise MissingExtraError(
            "MLPerf's LoadGen is not installed: pip install 'pytest-vq[serve]', or use the load engine builtin where "
            "it has no wheel"
        )
    return name


def run_load(plan: LoadPlan, served: Served, load_engine: str | None = None) -> LoadRun:
    """What became of every request of ``plan``, sent in a fresh process to what ``served`` describes.

    Raises:
        VqError: what building raised there, by its own class and in its own words.
        MeasurementError: the process crashed, met an error of others', or did not end within the plan's limits.
        SelectionError, MissingExtraError: see `choose_engine`.
    """
    import msgspec

    order = Order(plan, served, choose_engine(load_engine), tuple(sys.path))
    with tempfile.TemporaryDirectory(prefix="pytest-vq-load-") as directory:
        order_file, run_file, error_file = (Path(directory, f"{name}.json") for name in ("order", "run", "error"))
        order_file.write_bytes(msgspec.json.encode(order))
        limit_s = plan.build_limit_s + plan.run_limit_s + _GRACE_S
        log = Path(directory, "output.log")
        ending = _run_to_its_end([sys.executable, "-m", _CHILD, directory], log, limit_s)
        if run_file.exists():
            return msgspec.json.decode(run_file.read_bytes(), type=LoadRun)
        if error_file.exists():
            raise as_raised(msgspec.json.decode(error_file.read_bytes(), type=RaisedError))
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise MeasurementError(f"the process that puts load on {served.factory} {ending}; it printed last:\n{tail}")


def as_raised(raised: RaisedError) -> VqError:
    """The error again, with the traceback of its cause as its cause; a MeasurementError where its class is not ours."""
    kind = vars(errors).get(raised.name)
    if not (isinstance(kind, type) and issubclass(kind, VqError)):
        kind = MeasurementError
    error = kind(raised.message)
    if raised.cause:
        error.__cause__ = MeasurementError(f"in the process that puts on the load:\n{raised.cause}")
    return error


def _run_to_its_end(command: list[str], log: Path, limit_s: float) -> str:
    """How the process ended. Whatever it started ends with it, and it ends with this process."""
    with log.open("wb") as file, held_pipe() as watched:
        process = subprocess.Popen(
            [*command, str(watched)],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[watched],
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"was ended after its limit of {limit_s:g} s"
        finally:
            _end_group(process)
    return f"ended with exit code {code}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # the process and all that it started have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
