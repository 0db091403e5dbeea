"""A model in a process of its own, which is restarted where it crashes: FP32 answers first in the new one.

A kernel that crashes poisons its process, and so may a signal or a call without an end. The batch at hand is asked
once more in the next process, so that whoever asked gets an answer and never sees the fault.

Not the standard library's pool of processes: its worker outlives a parent that was killed, it says nothing of how a
worker ended, and it ends none that hangs (``kill_workers`` is of Python 3.14).
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vq.errors import EndpointError, QueueFullError, first_line
from pytest_vq.processes.command import clean_environment
from pytest_vq.serve.breaker import State
from pytest_vq.serve.endpoint import checked_rows
from pytest_vq.serve.load import Served
from pytest_vq.serve.restarting_child import BUILT, LOST, RAISED, REFUSED

if TYPE_CHECKING:
    from numpy import ndarray

_CHILD = "pytest_vq.serve.restarting_child"
_KILLED_S = 30.0  # for a killed process to be gone; one that a driver holds may never be
_EXIT_S = 1.0  # for a process that let go of its socket to end by itself, so that its exit code can be told


@dataclass(frozen=True, slots=True)
class RestartSettings:
    """How long the process may take, and how often it is started again."""

    timeout_s: float = 10.0  # for an answer, from when the batch was handed over
    build_timeout_s: float = 600.0  # for making the model
    closing_s: float = 5.0  # for the model to close, and for a call that outlives the parent
    max_restarts: int = 3
    within_s: float = 600.0  # the restarts that count are those of the last so many seconds

    def __post_init__(self) -> None:
        for name in ("timeout_s", "build_timeout_s", "closing_s", "within_s"):
            if not (seconds := getattr(self, name)) > 0:
                raise ValueError(f"{name}: {seconds} is not above 0 seconds")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts: {self.max_restarts} is less than 0")


class _Reply(NamedTuple):
    kind: str
    content: Any  # an array where it is an answer, else what happened, in words


class RestartingEndpoint:
    """An `Endpoint` whose model lives in a process of its own. Calls of several threads go one after the other."""

    def __init__(
        self,
        served: Served,
        settings: RestartSettings | None = None,
        *,
        on_restart: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the process and wait until its model is made.

        Args:
            served: its function makes an `Endpoint` there, called with the arguments and with ``state``, "CLOSED" in
                the first process and "OPEN" in all later ones: to be handed on to `pytest_vq.guard`.
            settings: limits of time, and of restarts.
            on_restart: told why, before each, while the endpoint is locked: it must not call it. What it raises
                reaches the caller.
            clock: seconds that only go forward, by which restarts are counted.

        Raises EndpointError where the model cannot be made.
        """
        self._served, self._settings = served, settings or RestartSettings()
        self._on_restart, self._clock = on_restart, clock
        self._lock = threading.Lock()
        self._restarts_s: deque[float] = deque()
        self._process: _Process | None = None
        self._lost_because = ""
        self._is_closed = False
        reply = self._start(State.CLOSED)
        if reply.kind != BUILT:
            raise EndpointError(f"{served.factory}: {reply.content}")

    def infer(self, batch: ndarray[Any, Any]) -> ndarray[Any, Any]:
        """See ``Endpoint.infer``. An exception of the model's is an EndpointError with its class and message."""
        request = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            reply = self._ask(request)
            if reply.kind == LOST:
                first, reply = reply, self._ask(request)
                if reply.kind == LOST:
                    raise EndpointError(
                        f"{self._served.factory} failed twice on one batch of {len(batch)}: {first.content}; then, "
                        f'started again with state="OPEN", {reply.content}. See whether FP32 alone answers this batch.'
                    )
        if reply.kind == REFUSED:
            raise QueueFullError(f"{self._served.factory}: {reply.content}")
        if reply.kind == RAISED:
            raise EndpointError(f"the model of {self._served.factory} raised {reply.content}")
        answer: ndarray[Any, Any] = reply.content
        return checked_rows(answer, len(batch), f"the model of {self._served.factory}")

    def close(self) -> None:
        """End the process. A call that waits for it ends with an EndpointError."""
        self._is_closed = True
        if (process := self._process) is not None:
            process.hang_up()  # outside the lock, which a call that waits for the process holds
        with self._lock:
            self._end(self._settings.closing_s)

    def _ask(self, request: bytes) -> _Reply:
        """What the process replies, started again if there is none. One that is lost is ended."""
        self._check_open()
        if self._process is None:
            self._count_restart()
            if (reply := self._start(State.OPEN)).kind != BUILT:
                return reply
        return self._exchange(request, self._settings.timeout_s)

    def _start(self, state: State) -> _Reply:
        """Start a process, whose model begins in ``state``, and wait until it is built or has failed."""
        settings, served = self._settings, self._served
        order = json.dumps([served.factory, dict(served.arguments), state, settings.closing_s, sys.path])
        try:
            self._process = _Process()
        except OSError as error:
            return _Reply(LOST, f"no process could be started ({first_line(error)})")
        reply = self._exchange(pickle.dumps(order), settings.build_timeout_s)
        if reply.kind == BUILT:
            return reply
        self._end(0.0)
        self._lost_because = f"the model could not be made: {reply.content}"
        return _Reply(LOST, self._lost_because)

    def _exchange(self, message: bytes, timeout_s: float) -> _Reply:
        """What the process replies to ``message``. It is ended where it is lost, and where waiting is interrupted."""
        assert self._process is not None
        reply = _Reply(LOST, "a call was interrupted before it was answered")  # the next would get its answer
        try:
            self._check_open()  # again: it may have been closed before this process was known
            reply = self._process.exchange(message, timeout_s)
        finally:
            if reply.kind == LOST:
                self._lost_because = reply.content
                self._end(0.0)
        if reply.kind == LOST:
            self._check_open()  # where it was closed meanwhile, that is why
        return reply

    def _count_restart(self) -> None:
        """Note a restart, and tell of it. Raises EndpointError where there were too many."""
        now_s, settings = self._clock(), self._settings
        while self._restarts_s and now_s - self._restarts_s[0] >= settings.within_s:
            self._restarts_s.popleft()
        if len(self._restarts_s) >= settings.max_restarts:
            raise EndpointError(
                f"{self._served.factory} is not started again: that was done {len(self._restarts_s)} times within "
                f"{settings.within_s:g} s already (max_restarts). Last, {self._lost_because}"
            )
        self._restarts_s.append(now_s)
        if self._on_restart is not None:
            self._on_restart(self._lost_because)

    def _check_open(self) -> None:
        if self._is_closed:
            raise EndpointError(f"the endpoint of {self._served.factory} was closed: make a new one for it")

    def _end(self, patience_s: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(patience_s)


class _Process:
    """The process that holds the model, and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _CHILD, str(theirs.fileno())],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # what it starts can be ended with it, and ^C is for the parent
            )
        self._replies = self._socket.makefile("rb")

    def exchange(self, message: bytes, timeout_s: float) -> _Reply:
        """What it replies to ``message``; LOST, with how it ended, where it does not."""
        who = f"process {self._process.pid}"
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(message)
            reply = _Reply(*pickle.load(self._replies))
        except TimeoutError:
            return _Reply(LOST, f"{who} did not answer within {timeout_s:g} s and was ended")
        except (EOFError, OSError, pickle.UnpicklingError):
            return _Reply(LOST, f"{who} {self._ending()}")
        return reply if reply.kind != LOST else _Reply(LOST, f"{who} {reply.content}")

    def hang_up(self) -> None:
        """Have it close, and whoever waits for a reply stop waiting."""
        with suppress(OSError):  # it has hung up itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self, patience_s: float) -> None:
        """End it and all that it started, and wait until it is gone, so that its memory is free.

        Raises EndpointError where it does not go.
        """
        self.hang_up()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        with suppress(ProcessLookupError):  # it has ended, with all that it started
            os.killpg(self._process.pid, signal.SIGKILL)
        self._replies.close()
        self._socket.close()
        try:
            self._process.wait(_KILLED_S)
        except subprocess.TimeoutExpired:
            raise EndpointError(
                f"process {self._process.pid} was killed and is not gone after {_KILLED_S:g} s: see dmesg for why"
            ) from None

    def _ending(self) -> str:
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return "closed its connection and was ended"
        if code >= 0:
            return f"ended by itself with exit code {code}"
        hint = "; so does Linux where memory runs out" if -code == signal.SIGKILL else ""
        return f"was ended by signal {-code} ({signal.strsignal(-code)}{hint})"
