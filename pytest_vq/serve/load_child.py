"""The fresh process that puts load on what is served: ``python -m ...load_child DIRECTORY DESCRIPTOR``.

It reads ``order.json`` from the directory and leaves ``run.json`` there, or ``error.json`` where an error of ours came
up; whole or not at all. It ends at once, with all that it started, where its parent has closed the other end of the
descriptor's pipe, or has ended.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

from pytest_vq.errors import MeasurementError, VqError
from pytest_vq.files import write_json
from pytest_vq.schema.load_run import LoadPlan
from pytest_vq.serve.builtin_engine import run_builtin
from pytest_vq.serve.endpoint import Service, TellingService
from pytest_vq.serve.load import Order, RaisedError
from pytest_vq.serve.loadgen_engine import run_loadgen
from pytest_vq.serve.parent_watch import end_after_parent

# How long Python lets a model's thread keep the interpreter while the sender waits for it; 5 ms by default, which is
# half of a bound of 10 ms.
_SWITCH_S = 0.0005
_CLOSING_S = 5.0  # at most; a request that is never answered keeps its thread for ever


def main(directory: Path) -> int:
    """Carry out the order in ``directory``, and return its exit code: 1 where something was raised, and printed."""
    try:
        _carry_out(directory)
    except BaseException:  # noqa: BLE001  # left to itself, the interpreter would wait for threads of the service's
        traceback.print_exc()
        return 1
    return 0


def _carry_out(directory: Path) -> None:
    try:
        _put_on_load(directory)
    except VqError as error:
        cause = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
        write_json(directory / "error.json", RaisedError(type(error).__name__, str(error), cause))
        raise


def _put_on_load(directory: Path) -> None:
    import msgspec

    # An interrupt is the parent's: it ends this process. Raised here, it could reach LoadGen, which does not survive.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = msgspec.json.decode((directory / "order.json").read_bytes(), type=Order)
    sys.path += [path for path in order.import_paths if path not in sys.path]
    service: Service = resolve_name(order.served.factory)(**order.served.arguments)
    if service.sample_count < 1:
        raise MeasurementError(f"{order.served.factory} made a service that holds no samples to ask about")
    _warm(service, order.plan)
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()  # what was built lives to the end: no collection during the run looks at it
    if isinstance(service, TellingService):
        service.begin()
    run = (
        run_loadgen(order.plan, service, directory)
        if order.load_engine == "loadgen"
        else run_builtin(order.plan, service)
    )
    if isinstance(service, TellingService):
        run = replace(run, facts=service.facts())
    write_json(directory / "run.json", run)
    _close(service, min(_CLOSING_S, order.plan.query_limit_s))


def _warm(service: Service, plan: LoadPlan) -> None:
    """Send the plan's requests of warm-up, one after the other."""
    for number in range(plan.warmup_requests):
        with suppress(Exception):  # what goes wrong here goes wrong in the run too, and is an outcome there
            wait([service.submit(number % service.sample_count)], plan.query_limit_s)


def _close(service: Service, limit_s: float) -> None:
    closing = threading.Thread(target=service.close, daemon=True)
    closing.start()
    closing.join(limit_s)


if __name__ == "__main__":
    end_after_parent(int(sys.argv[2]))
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not by way of the threads that are still waiting
