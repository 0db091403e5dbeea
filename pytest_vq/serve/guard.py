"""A quantized model that falls back to FP32: whatever goes wrong in it, its callers get FP32's answer.

What fails (an exception, rows that are NaN or infinite, memory that runs out, a call that takes too long) is answered
by FP32, row by row where only rows failed. What took too long is late already, and is not trusted more than the rest.
A circuit breaker (`pytest_vq.serve.breaker`) counts all that, and takes the quantized model out of service where too
much fails; after a while a few probes find out whether it may come back.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from pytest_vq.device.device import is_device_trouble, is_out_of_memory
from pytest_vq.errors import DeviceLostError, first_line
from pytest_vq.serve.breaker import BreakerSettings, CircuitBreaker, Permit, State, Transition
from pytest_vq.serve.rows import bad_rows, put_rows, row_count, take_rows

Model = Callable[..., Any]


class Cause(StrEnum):
    """Why rows of a quantized model's answer were not used."""

    EXCEPTION = "exception"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class GuardedExecution:
    """What became of one call: told to ``on_execution``, for metrics and for a rollout's log."""

    rows: int
    failed: int  # of the quantized model's rows, that FP32 could answer; 0 where it was not called
    answered_by_fp32: int  # rows
    cause: Cause | None  # None where nothing failed
    quantized_s: float | None  # None where the breaker let nothing through


@dataclass(frozen=True, slots=True)
class _Attempt:
    answer: Any
    failed: Sequence[int]
    cause: Cause | None
    duration_s: float


class Guarded:
    """A callable that takes and returns what the quantized model does. May be called from several threads at once."""

    def __init__(
        self,
        quantized: Model,
        fallback: Model,
        breaker: CircuitBreaker,
        clock: Callable[[], float],
        on_execution: Callable[[GuardedExecution], object] | None,
    ) -> None:
        self._quantized, self._fallback, self._breaker = quantized, fallback, breaker
        self._clock, self._on_execution = clock, on_execution
        self._lock = threading.Lock()
        self.needs_restart = False  # a kernel crashed: nothing more runs on the device in this process

    @property
    def state(self) -> State:
        """CLOSED, OPEN or HALF_OPEN, as the last call left it."""
        return self._breaker.state

    @property
    def fallback_bytes(self) -> int | None:
        """The memory that the fallback's weights and buffers keep occupied; None where it is no module."""
        return held_bytes(self._fallback) if isinstance(self._fallback, nn.Module) else None

    def force_open(self, reason: str = "forced open") -> None:
        """Let FP32 answer from now on, for good: so that what the fallback costs can be measured."""
        with self._lock:
            self._breaker.open_for_good(self._clock(), reason)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The quantized model's answer, or FP32's. Raises what FP32 raises, and DeviceLostError."""
        rows = row_count(args, kwargs)
        with self._lock:
            permit = self._breaker.permit(self._clock()) if rows else None
        if permit is None:
            answer = self._fallback(*args, **kwargs)
            self._tell(GuardedExecution(rows, 0, rows, None, None))
            return answer
        try:
            attempt = self._attempt(args, kwargs, rows)
        except BaseException:  # a probe that was interrupted must not be waited for
            with self._lock:
                self._breaker.forget(permit)
            raise
        if not attempt.failed:
            self._settle(permit, rows, 0, attempt)
            return attempt.answer
        return self._mended(permit, attempt, args, kwargs)

    def _attempt(self, args: Sequence[Any], kwargs: dict[str, Any], rows: int) -> _Attempt:
        """What the quantized model makes of it. Nothing of a failure is kept, or its tensors would stay in memory."""
        started_s = self._clock()
        try:
            answer = self._quantized(*args, **kwargs)
            failed = bad_rows(answer, rows)
        except Exception as error:  # noqa: BLE001  # whatever a model raises, its callers are to get an answer
            traceback.clear_frames(error.__traceback__)
            out_of_memory = is_out_of_memory(error)
            if not out_of_memory and is_device_trouble(error) and device_is_lost():
                self._give_up(error)
            if out_of_memory and torch.cuda.is_available():
                torch.cuda.empty_cache()  # FP32 needs what the failed call left to the allocator
            cause = Cause.OUT_OF_MEMORY if out_of_memory else Cause.EXCEPTION
            return _Attempt(None, range(rows), cause, self._clock() - started_s)
        duration_s = self._clock() - started_s
        slow_s = self._breaker.settings.slow_call_duration_threshold
        if slow_s is not None and duration_s > slow_s:
            return _Attempt(answer, range(rows), Cause.SLOW, duration_s)
        return _Attempt(answer, failed, Cause.NON_FINITE if failed else None, duration_s)

    def _mended(self, permit: Permit, attempt: _Attempt, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The attempt's answer with FP32's in the place of what failed."""
        rows = row_count(args, kwargs)
        try:
            answer, unanswerable = self._replaced(attempt, args, kwargs, rows)
        except Exception as error:
            with self._lock:
                if is_device_trouble(error):
                    self._breaker.record(permit, rows, len(attempt.failed), self._clock())
                else:  # an input that FP32 cannot take either says nothing of the quantized model
                    self._breaker.forget(permit)
            raise
        self._settle(permit, rows, len(set(attempt.failed) - unanswerable), attempt)
        return answer

    def _replaced(
        self, attempt: _Attempt, args: Sequence[Any], kwargs: dict[str, Any], rows: int
    ) -> tuple[Any, set[int]]:
        """The mended answer, and the rows that FP32 cannot answer either."""
        failed = list(attempt.failed)
        if len(failed) < rows:
            taken, named = take_rows(args, kwargs, failed)
            theirs = self._fallback(*taken, **named)
            try:
                return put_rows(attempt.answer, failed, theirs), {failed[at] for at in bad_rows(theirs, len(failed))}
            except TypeError:  # the two answer so differently that rows cannot be exchanged
                del theirs
        theirs = self._fallback(*args, **kwargs)
        return theirs, set(bad_rows(theirs, rows))

    def _settle(self, permit: Permit, rows: int, blamed: int, attempt: _Attempt) -> None:
        with self._lock:
            self._breaker.record(permit, rows, blamed, self._clock())
        answered = len(attempt.failed)
        self._tell(GuardedExecution(rows, blamed, answered, attempt.cause, attempt.duration_s))

    def _tell(self, execution: GuardedExecution) -> None:
        if self._on_execution is not None:
            self._on_execution(execution)

    def _give_up(self, error: Exception) -> None:
        """Say that this process is lost; whoever started it starts another, in which FP32 answers first."""
        self.needs_restart = True
        self.force_open("a kernel crashed")
        raise DeviceLostError(
            f"a kernel crashed ({first_line(error)}) and took the device with it: nothing more runs on it in this "
            'process. Start a fresh one with guard(..., state="OPEN"), in which FP32 answers first.'
        ) from error


def held_bytes(module: nn.Module) -> int:
    """The memory that the weights and buffers of ``module`` keep occupied; what several share counts once."""
    held = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def device_is_lost() -> bool:
    """True where nothing more runs on the accelerator in this process."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def guard(  # noqa: PLR0913  # it is called once, by keyword
    quantized: Model,
    *,
    fallback: Model,
    failure_rate_threshold: float = 0.01,
    slow_call_duration_threshold: float | None = None,
    wait_duration_in_open_state: float = 60.0,
    permitted_number_of_calls_in_half_open_state: int = 10,
    state: State | str = State.CLOSED,
    clock: Callable[[], float] = time.monotonic,
    on_transition: Callable[[Transition], object] | None = None,
    on_execution: Callable[[GuardedExecution], object] | None = None,
) -> Guarded:
    """``quantized``, with FP32's answer in the place of what fails in it.

    Args:
        quantized: called with a batch, the batch the first axis of every tensor; returns a tensor, or a tuple, list or
            mapping of them.
        fallback: the FP32 model, called alike.
        failure_rate_threshold: the share of rows that may fail; FP32 takes over where more than that do.
        slow_call_duration_threshold: seconds from which on a call counts as failed; by default none is too slow.
        wait_duration_in_open_state: seconds of FP32 until the quantized model is tried again.
        permitted_number_of_calls_in_half_open_state: probes that must be good, one after the other, to go back to it.
        state: to begin in; OPEN in a process that takes the place of one whose device was lost.
        clock: seconds that only go forward.
        on_transition: told of every change of state, while the guard is locked: it must not call it.
        on_execution: told what became of every call. What either raises reaches the caller.

    Raises ValueError for a setting that makes no sense.
    """
    settings = BreakerSettings(
        failure_rate_threshold,
        slow_call_duration_threshold,
        wait_duration_in_open_state,
        permitted_number_of_calls_in_half_open_state,
    )
    breaker = CircuitBreaker(settings, State(state), clock(), on_transition)
    return Guarded(quantized, fallback, breaker, clock, on_execution)
