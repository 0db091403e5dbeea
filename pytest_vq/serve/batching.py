"""Dynamic batching: requests that wait are answered together, by one thread a device.

Triton's words and meaning (NVIDIA Triton Inference Server, "Dynamic Batcher"): at most ``max_batch_size`` requests are
executed together; a batch that is not full waits for more until its oldest request has waited for
``max_queue_delay_microseconds``. The default is 0, and then nobody waits while the device is idle: a request to an
idle device goes at once, alone, and what comes while it is busy goes together as soon as it is free. A delay above 0
keeps an idle device waiting for fuller batches; it spares work, and costs an idle server's latency.

`BatchingPolicy` decides and knows no clock. `Batcher` runs it on a thread, ``serve/virtual_server.py`` in virtual time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pytest_vq.errors import BatcherClosedError, MeasurementError, QueueFullError
from pytest_vq.schema.served import ExecutedBatch

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class BatchingPolicy:
    """When what waits is executed, and how much of it."""

    max_batch_size: int
    max_queue_delay_microseconds: int = 0
    max_queue_size: int = 1024  # requests that wait; one more is refused

    def __post_init__(self) -> None:
        for name, least in (("max_batch_size", 1), ("max_queue_delay_microseconds", 0), ("max_queue_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is less than {least}")

    def admits(self, waiting: int) -> bool:
        """Whether one more request may wait beside so many."""
        return waiting < self.max_queue_size

    def due_s(self, waiting: int, oldest_s: float) -> float:
        """From when on an idle device executes what waits, the oldest since ``oldest_s``, on any clock."""
        if waiting >= self.max_batch_size:
            return oldest_s
        return oldest_s + self.max_queue_delay_microseconds / 1e6

    def batch_of(self, waiting: int) -> int:
        """How many of those that wait, oldest first, are executed together."""
        return min(waiting, self.max_batch_size)


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    since_s: float
    future: Future[Answer]


class Batcher(Generic[Request, Answer]):
    """Executes requests in batches on a thread of its own; a context manager that closes it at the end.

    Args:
        execute: the requests of a batch, oldest first -> their answers in that order. An exception is raised to the
            callers of that batch alone.
        policy: when, and how many.
        on_batch: told of every batch that was answered, on the batcher's thread; what it raises reaches its callers.
    """

    def __init__(
        self,
        execute: Callable[[list[Request]], Sequence[Answer]],
        policy: BatchingPolicy,
        on_batch: Callable[[ExecutedBatch], object] | None = None,
    ) -> None:
        self._execute, self._policy, self._on_batch = execute, policy, on_batch
        self._queue: deque[_Waiting[Request, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="vq-batcher", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Future[Answer]:
        """The answer to come. Raises QueueFullError and BatcherClosedError instead of letting it wait in vain."""
        with self._changed:
            if self._closed:
                raise BatcherClosedError("this batcher is closed: send to an open one")
            if not self._policy.admits(len(self._queue)):
                waiting = self._policy.max_queue_size
                raise QueueFullError(f"{waiting} requests wait already (max_queue_size): send fewer, or later")
            future: Future[Answer] = Future()
            self._queue.append(_Waiting(request, time.monotonic(), future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Take no more requests, answer those that wait, without any delay, and end the thread. Waits for it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while batch := self._next_batch():
            # One that its caller gave up is not executed.
            batch = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if batch:
                self._answer(batch)

    def _next_batch(self) -> list[_Waiting[Request, Answer]]:
        """The next requests to execute, once they are due; none when the batcher is closed and nobody waits."""
        with self._changed:
            while True:
                if self._queue:
                    due_s = self._policy.due_s(len(self._queue), self._queue[0].since_s)
                    left_s = 0.0 if self._closed else due_s - time.monotonic()
                    if left_s <= 0:
                        return [self._queue.popleft() for _ in range(self._policy.batch_of(len(self._queue)))]
                    self._changed.wait(left_s)
                elif self._closed:
                    return []
                else:
                    self._changed.wait()

    def _answer(self, batch: list[_Waiting[Request, Answer]]) -> None:
        started_s = time.monotonic()
        try:
            answers: Sequence[Any] = self._execute([waiting.request for waiting in batch])
            _check_answers(len(batch), len(answers))
            took_s = time.monotonic() - started_s
            if self._on_batch is not None:
                self._on_batch(ExecutedBatch(tuple(started_s - waiting.since_s for waiting in batch), took_s))
        except BaseException as error:  # noqa: BLE001  # whatever it is, a caller must not wait for ever
            for waiting in batch:
                waiting.future.set_exception(error)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.future.set_result(answer)


def _check_answers(requests: int, answers: int) -> None:
    if requests != answers:
        raise MeasurementError(f"a batch of {requests} requests got {answers} answers; one each is due")
