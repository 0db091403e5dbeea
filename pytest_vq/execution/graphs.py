"""CUDA graphs: a forward is recorded once and replayed with a single launch, on inputs that are copied in.

The capture is made by hand, of the eager forward or of the compiled one. torch's compiler can capture by itself, but it
then decides on its own when not to, and records again where an output is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pytest_vq.catalog.inputs import ModelInputs, batch_of, bind_inputs, change_tensors, named_tensors
from pytest_vq.device.memory import CallMemory, measure_allocations, private_pool_bytes
from pytest_vq.errors import ExecutionError, first_line
from pytest_vq.execution import compiled, eager
from pytest_vq.execution.prepared import Prepared
from pytest_vq.precision.converted import Converted

# Before a capture: libraries choose and load their kernels and take what they keep, none of which can be recorded.
_WARMUP_CALLS = 3


def prepare(converted: Converted, example: ModelInputs) -> Prepared:
    """The eager forward, captured for inputs of ``example``'s shape.

    Raises:
        ExecutionError: it cannot be captured.
    """
    return _capture(replace(eager.prepare(converted, example), context=torch.inference_mode), example)


def prepare_compiled(converted: Converted, example: ModelInputs) -> Prepared:
    """The compiled forward, captured.

    Raises:
        ExecutionError: it cannot be compiled as one graph, or not be captured.
    """
    return _capture(compiled.prepare(converted, example), example)


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: ModelInputs  # what it reads at each replay
    answer: object  # what it writes at each replay
    memory: CallMemory


def _capture(program: Prepared, example: ModelInputs) -> Prepared:
    """``program``, whose calls replay a recording of it; closing it gives the recording's memory back too."""
    try:
        with program.context():
            recording = _record(program.call, change_tensors(example, torch.clone))
    except BaseException:
        program.close()
        raise
    graph, inputs, answer = recording.graph, recording.inputs, recording.answer
    by_place = [] if isinstance(inputs, dict) else [tensor for _, tensor in named_tensors(inputs)]
    by_name = inputs if isinstance(inputs, dict) else {}

    def replay(*args: Tensor, **kwargs: Tensor) -> object:
        for own, given in zip(by_place, args, strict=True):
            own.copy_(given)
        for name, given in kwargs.items():
            by_name[name].copy_(given)
        graph.replay()
        return answer

    def close() -> None:
        graph.reset()
        program.close()

    return replace(
        program,
        call=replay,
        pool_bytes=private_pool_bytes(graph.pool()),
        close=close,
        batch=batch_of(example),
        recorded=recording.memory,
    )


def _record(call: Callable[..., object], inputs: ModelInputs) -> _Recording:
    """Capture ``call`` on ``inputs``, on a stream of its own: a stream that waits for no one can be captured.

    Its memory is the larger of two figures, which are equal but for the workspace. A capture has to take its own from
    the graph's pool, and may do so only after its peak: what is subtracted would then be too much. The last call before
    it has held one all along.
    """
    device, request = next(named_tensors(inputs))[1].device, bind_inputs(call, inputs)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    answers: list[object] = []

    def capture() -> None:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            answers.append(request())

    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP_CALLS - 1):
            request()
        memory = measure_allocations(device, request)  # which drops the workspaces, too
        try:
            memory = memory.larger(measure_allocations(device, capture))
        except RuntimeError as error:
            _abandon(graph, pool, device)
            # Ending a capture that went wrong is an error too; what came before it tells more.
            origin = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(origin, torch.OutOfMemoryError):
                raise origin from None
            raise _explained(origin) from error
    torch.cuda.current_stream(device).wait_stream(stream)
    return _Recording(graph, inputs, answers[0], memory)


def _abandon(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: torch.device) -> None:
    """Leave the device as usable as it can be after a failed capture; where a kernel crashed, torch raises that here.

    Before torch 2.12 the allocator goes on as if the capture were underway, and refuses to empty its cache
    (pytorch#180395). Where torch ended it itself, ending it again is refused, and changes nothing.
    """
    torch.cuda.synchronize(device)
    graph.reset()
    with contextlib.suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device.index, pool)


def _explained(error: RuntimeError) -> ExecutionError:
    """What a failed capture means."""
    return ExecutionError(
        f"its forward cannot be captured in a CUDA graph ({first_line(error)}): it waits for the GPU, or copies from "
        "the host, as a print, an .item() or a tensor made on the CPU does. Take it out of the forward, or measure "
        "this precision eagerly or with +compile"
    )
