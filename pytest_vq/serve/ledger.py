"""The one book of a run: every request that is sent, and how it ended. What ends a request ends it once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from pytest_vq.errors import QueueFullError, first_line
from pytest_vq.schema.load_run import OK, REFUSED, UNANSWERED, UNSENT, LoadPlan
from pytest_vq.serve.endpoint import Service

_LOOKS_PER_S = 20  # how often what is not answered is looked at: limits are seconds


@dataclass(slots=True)
class Entry:
    """One request. ``key`` is what the load generator knows it by."""

    key: int
    sample: int
    sent_ns: int
    outcome: str | None = None  # None: not ended yet


class Ledger:
    """Hands requests to a service, and tells the load generator once of each when it has ended, however that was.

    Nothing is raised to who calls: a load generator in C++ does not survive an exception in its callbacks.
    """

    def __init__(
        self, service: Service, plan: LoadPlan, now_ns: Callable[[], int], complete: Callable[[int], None]
    ) -> None:
        """Args: ``complete`` is told the key of a request that ended, once, from any thread."""
        self._service, self._plan, self._now_ns, self._complete = service, plan, now_ns, complete
        self._lock = threading.Lock()
        self._pending: dict[int, Entry] = {}  # by position, in the order sent
        self._over = threading.Event()
        self._ends_ns = now_ns() + int(plan.run_limit_s * 1e9)
        self._watch = threading.Thread(target=self._end_late_ones, name="vq-limits", daemon=True)
        self.entries: list[Entry] = []
        self.messages: dict[str, str] = {}  # outcome -> what the first error of it said

    def __enter__(self) -> Ledger:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def send(self, requests: Sequence[tuple[int, int]]) -> None:
        """Hand the service ``requests``, pairs of the generator's key and the sample that is asked for."""
        for key, sample in requests:
            entry = Entry(key, sample, self._now_ns())
            with self._lock:
                position = len(self.entries)
                self.entries.append(entry)
                self._pending[position] = entry
            if entry.sent_ns >= self._ends_ns:
                self._end(position, UNSENT)
                continue
            try:
                self._service.submit(sample).add_done_callback(partial(self._answered, position))
            except BaseException as error:  # noqa: BLE001  # whatever a service raises is that request's outcome
                self._failed(position, error)

    def _answered(self, position: int, future: Future[Any]) -> None:
        if future.cancelled():
            self._end(position, "CancelledError")
        elif (error := future.exception()) is None:
            self._end(position, OK)
        else:
            self._failed(position, error)

    def _failed(self, position: int, error: BaseException) -> None:
        outcome = REFUSED if isinstance(error, QueueFullError) else type(error).__name__
        self.messages.setdefault(outcome, first_line(error))
        self._end(position, outcome)

    def _end(self, position: int, outcome: str) -> None:
        with self._lock:
            entry = self._pending.pop(position, None)
            if entry is None:  # it ended before, unanswered; an answer that comes later still must not end it again
                return
            entry.outcome = outcome
        self._complete(entry.key)

    def _end_late_ones(self) -> None:
        """Until the run is over: end what the service has had for too long, and everything when the time is over."""
        limit_ns = int(self._plan.query_limit_s * 1e9)
        while not self._over.wait(1 / _LOOKS_PER_S):
            now_ns = self._now_ns()
            sent_by_ns = now_ns if now_ns >= self._ends_ns else now_ns - limit_ns
            for position in self._sent_by(sent_by_ns):
                self._end(position, UNANSWERED)

    def _sent_by(self, moment_ns: int) -> list[int]:
        """The positions of what was sent by then and has not ended."""
        with self._lock:  # in the order sent: behind the first that still has time, all have
            sent = takewhile(lambda pending: pending[1].sent_ns <= moment_ns, self._pending.items())
            return [position for position, _ in sent]
