"""A pytest of its own process, and what it leaves: how fresh processes, both sides of an A/B and selftests are run."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pytest_vq.errors import MeasurementError
from pytest_vq.store.results import Results, read_results

_TAIL_LINES = 15


def run_child(
    command: Sequence[str],
    *,
    who: str,
    cwd: Path,
    output: Path,
    environment: Mapping[str, str] | None = None,
    accepted: Collection[int] = (0,),
) -> Results:
    """The results that ``command`` leaves in ``output``; what it prints is kept there in ``pytest.log``.

    Raises ``MeasurementError`` naming ``who``, with the end of that output, on any exit code but those accepted.
    """
    output.mkdir(parents=True, exist_ok=True)
    log = output / "pytest.log"
    with log.open("wb") as file:
        run = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if run.returncode not in accepted:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise MeasurementError(f"{who} ended with exit code {run.returncode}; {log} ends with:\n{tail}")
    return read_results(output)
