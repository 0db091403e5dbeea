"""Fresh processes without the three seconds that each takes to import torch and bitsandbytes.

One process imports them, and computes nothing. Every pytest that is asked of it, and every process that puts load on a
service, is a fork of it: a process of its own, with the command line, directory, environment, output and open files
that it would have had, and nothing in it that another run left. How such processes are really started is tested where
tests ask for ``cold_start``.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PYTHON = (sys.executable, "-m")
PYTEST, LOAD = (*PYTHON, "pytest"), (*PYTHON, "pytest_vq.serve.load_child")
_MESSAGE_BYTES = 200_000  # at most
_FREE_FROM = 100  # file descriptors from here on are nobody's


class WarmStart:
    """What stands in for the module ``subprocess`` where children are run: those start warm, all else as ever."""

    DEVNULL, STDOUT, TimeoutExpired = subprocess.DEVNULL, subprocess.STDOUT, subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._socket = self._theirs = None
        self.started = 0  # processes, so far

    def run(self, command: Sequence[str], **given: Any) -> subprocess.CompletedProcess[bytes]:
        """``subprocess.run`` as ``processes.child`` calls it."""
        if tuple(command[: len(PYTEST)]) != PYTEST:
            return subprocess.run(command, **given)
        assert given.keys() == {"cwd", "env", "stdin", "stdout", "stderr", "pass_fds", "check"}, given
        assert (given["stdin"], given["stderr"], given["check"]) == (self.DEVNULL, self.STDOUT, False)
        code = self.start(command, given["cwd"], given["env"], [given["stdout"].fileno()] * 2, given["pass_fds"])
        return subprocess.CompletedProcess(command, code)

    def Popen(self, command: Sequence[str], **given: Any) -> Any:  # noqa: N802  # it is called so there
        """``subprocess.Popen`` as ``serve.load`` calls it."""
        if tuple(command[: len(LOAD)]) != LOAD:
            return subprocess.Popen(command, **given)
        assert given.keys() == {"env", "stdin", "stdout", "stderr", "pass_fds", "start_new_session"}
        assert (given["stdin"], given["stderr"], given["start_new_session"]) == (self.DEVNULL, self.STDOUT, True)
        return self._begin(command, Path.cwd(), given["env"], [given["stdout"].fileno()] * 2, given["pass_fds"])

    def start(self, *given: Any) -> int:
        """The exit code of a command that is begun as ``_begin`` says."""
        return self._begin(*given).wait()

    def _begin(
        self,
        command: Sequence[str],
        cwd: Path | str,
        env: Mapping[str, str],
        outputs: Sequence[int],
        kept_open: Sequence[int] = (),
    ) -> WarmProcess:
        """``command``, begun; it writes to the file descriptors ``outputs``."""
        if self._server is None:
            self._serve()
        request = {
            "module": command[len(PYTHON)],
            "arguments": list(map(str, command[len(PYTHON) + 1 :])),
            "cwd": str(Path(cwd).absolute()),
            "env": dict(env),
            "kept_open": list(kept_open),
        }
        message = json.dumps(request).encode()
        assert len(message) < _MESSAGE_BYTES
        socket.send_fds(self._socket, [message], [*outputs, *kept_open])
        process = WarmProcess(command, self._socket)
        self.started += 1
        return process

    def close(self) -> None:
        """End the process that starts the others."""
        if self._server is not None:
            self._socket.close()
            self._server.wait()

    def _serve(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MESSAGE_BYTES)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )


class WarmProcess:
    """One that was started warm: of ``subprocess.Popen``, what is used of it."""

    def __init__(self, command: Sequence[str], told: socket.socket) -> None:
        self._command, self._told = command, told
        self.returncode: int | None = None
        self.pid = self._hear()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises TimeoutExpired."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = self._hear()
            except TimeoutError:
                raise subprocess.TimeoutExpired(self._command, timeout or 0.0) from None
            finally:
                self._told.settimeout(None)
        return self.returncode

    def _hear(self) -> int:
        answer = self._told.recv(100)
        assert answer, "the process that starts others has ended"
        return int(answer)


def serve(descriptor: int) -> None:
    """Fork for every request that comes by ``descriptor``, until it is closed; in a fork: be what it asks for."""
    import bitsandbytes  # noqa: F401
    import pytest  # noqa: F401
    import torch._dynamo  # noqa: F401

    gc.collect()
    gc.freeze()
    gc.unfreeze = lambda: None  # as in the process that runs the tests: see conftest.py

    with socket.socket(fileno=descriptor) as requests:
        while True:
            message, files, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 16)
            if not message:
                return
            child = os.fork()
            if child == 0:
                break
            for file in files:
                os.close(file)
            requests.send(str(child).encode())
            requests.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    become(json.loads(message), files)


def become(request: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """Become what ``python -m`` would have been, down to its exit."""
    if request["module"] != "pytest":
        os.setsid()  # whoever ends it ends all of its session
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, _FREE_FROM) for file in files]
    wanted = [1, 2, *request["kept_open"]]
    for source, target in zip(moved, wanted, strict=True):
        os.dup2(source, target)
    os.closerange(_FREE_FROM, _FREE_FROM + 100)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    raise SystemExit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
