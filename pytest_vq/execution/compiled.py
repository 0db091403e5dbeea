"""Compiled execution: torch.compile with inductor, the whole forward as one graph for one shape of input.

Three things would make such a row untrue, and are errors or told here. Where torch.compile gives up it runs eagerly,
with a warning at most: the forward must be one graph, and a ninth graph of one forward is an error. It keeps what it
compiled, by class and on the disk: each model starts from nothing, in an empty cache directory, and the row says so
where a cache had something all the same. And it compiles anew where something it relied on has changed: the row counts
that to the end of the measurement.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch._dynamo

from pytest_vq.catalog.inputs import ModelInputs, batch_of, bind_inputs
from pytest_vq.device.device import is_device_trouble
from pytest_vq.errors import ExecutionError, first_line
from pytest_vq.execution.prepared import GraphCounts, Prepared
from pytest_vq.precision.converted import Converted

_COLD, _WARM = "cold", "warm"
_ADVICE = "Measure it eagerly, or run it alone with TORCH_LOGS=graph_breaks,recompiles to see which line of the model"


def prepare(converted: Converted, example: ModelInputs) -> Prepared:
    """The converted module, compiled for inputs of ``example``'s shape, type and device.

    Raises:
        ExecutionError: it could not be compiled as one graph, or torch.compile is switched off.
    """
    torch._dynamo.reset()
    before = _Counters.read()
    with torch.inference_mode():
        bind_inputs(converted.module, example)()  # on some CPUs bitsandbytes packs NF4 weights anew at their first call
    program = torch.compile(converted.module, backend="inductor", fullgraph=True, dynamic=False)
    try:
        with _empty_cache(), compiling():
            bind_inputs(program, example)()
    except BaseException:
        torch._dynamo.reset()
        raise
    finally:
        _stop_compile_workers()
    made = _Counters.read().since(before)
    if made.graphs == 0:
        torch._dynamo.reset()
        raise ExecutionError(
            "torch.compile compiled nothing, so this would be eager execution: look for TORCH_COMPILE_DISABLE or "
            "TORCHDYNAMO_DISABLE in the environment, or torch.compiler.set_stance in the model"
        )

    def count() -> GraphCounts:
        now = _Counters.read().since(before)
        return GraphCounts(now.graphs, now.graph_breaks, now.graphs - made.graphs)

    cache = _WARM if made.cache_hits else _COLD
    # Nothing else of it outlives the model: after a reset no compiled code is kept for any.
    return Prepared(program, compiling, close=torch._dynamo.reset, batch=batch_of(example), cache=cache, counts=count)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """What holds while a compiled model is called, the first time and later: it relies on the one, and fails loudly.

    Inference mode is among what compiled code is guarded by: a call without it would be compiled anew.
    """
    settings = torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, suppress_errors=False)
    with torch.inference_mode(), settings:
        try:
            yield
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            inner = getattr(error, "inner_exception", error)
            if is_device_trouble(inner):  # met while a kernel was tried out: no fault of the model
                raise inner from None
            # torch's own message says that there was a hard failure, and its cause of what kind.
            origin = error.__cause__ if isinstance(error, torch._dynamo.exc.FailOnRecompileLimitHit) else error
            reason = first_line(origin or error)
            raise ExecutionError(f"torch.compile could not make one graph of it ({reason}). {_ADVICE}") from error


@dataclass(frozen=True, slots=True)
class _Counters:
    """torch's own counts, of all that this process compiled."""

    graphs: int
    graph_breaks: int
    cache_hits: int

    @classmethod
    def read(cls) -> _Counters:
        """What they are now."""
        from torch._dynamo.utils import counters

        hits = (("inductor", "fxgraph_cache_hit"), ("aot_autograd", "autograd_cache_hit"))
        return cls(
            graphs=counters["stats"]["unique_graphs"],
            graph_breaks=sum(counters["graph_break"].values()),
            cache_hits=sum(counters[group][name] for group, name in hits),
        )

    def since(self, before: _Counters) -> _Counters:
        """How many more than ``before``."""
        return _Counters(
            self.graphs - before.graphs,
            self.graph_breaks - before.graph_breaks,
            self.cache_hits - before.cache_hits,
        )


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """Compile into an empty directory that is gone afterwards; what was compiled stays loaded."""
    from torch._inductor import utils

    # Its name before torch 2.9, which later versions keep too.
    fresh_cache = getattr(utils, "fresh_cache", None) or utils.fresh_inductor_cache
    failure: ExecutionError | None = None
    own_directory = tempfile.TemporaryDirectory(prefix="pytest-vq-compile-", ignore_cleanup_errors=True)
    with own_directory as directory, fresh_cache(dir=directory):
        try:
            yield
        except ExecutionError as error:
            failure = error  # raised outside: inside, torch logs that it leaves the directory to be looked at
    if failure is not None:
        raise failure


def _stop_compile_workers() -> None:
    """End the processes that compile a GPU's kernels, which would run beside what is timed. A CPU's have none."""
    from torch._inductor.async_compile import shutdown_compile_workers

    shutdown_compile_workers()
