"""A pytest of its own process, and what it leaves: how fresh processes, both sides of an A/B and selftests are run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_vq.errors import MeasurementError
from pytest_vq.store.results import Results, read_results

_TAIL_LINES = 15
# Where GitHub takes a job's summary: whoever started the child writes it, once.
_OF_THE_PARENT = {"GITHUB_STEP_SUMMARY"}


@dataclass(frozen=True, slots=True)
class Child:
    """One pytest to run: who it is in messages, its command, and where it runs and leaves its results."""

    who: str
    command: Sequence[str]
    cwd: Path
    output: Path
    environment: Mapping[str, str] | None = None  # this process's where it is None
    kept_open: tuple[int, ...] = ()  # file descriptors of this process that it has too


def run_child(child: Child, accepted: Collection[int] = (0,)) -> Results:
    """The results that ``child`` leaves. Raises ``MeasurementError`` as `require_success` does."""
    require_success(child, accepted)
    return read_results(child.output)


def require_success(child: Child, accepted: Collection[int] = (0,)) -> None:
    """Run ``child``; what it prints is kept beside its results in ``pytest.log``.

    Raises ``MeasurementError`` naming it, with the end of what it printed, on any exit code but those accepted.
    """
    code = run_to_its_end(child)
    if code not in accepted:
        tail = "\n".join(last_lines(child))
        raise MeasurementError(f"{child.who} ended with exit code {code}; {_log(child)} ends with:\n{tail}")


def run_to_its_end(child: Child) -> int:
    """The exit code of ``child``, whatever it is; what it prints is kept beside its results in ``pytest.log``."""
    child.output.mkdir(parents=True, exist_ok=True)
    environment = os.environ if child.environment is None else child.environment
    with _log(child).open("wb") as file:
        run = subprocess.run(
            child.command,
            cwd=child.cwd,
            env={name: value for name, value in environment.items() if name not in _OF_THE_PARENT},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=child.kept_open,
            check=False,
        )
    return run.returncode


def last_lines(child: Child, count: int = _TAIL_LINES) -> list[str]:
    """At most ``count`` lines, the last that ``child`` printed."""
    return _log(child).read_text(errors="replace").splitlines()[-count:]


def _log(child: Child) -> Path:
    return child.output / "pytest.log"
