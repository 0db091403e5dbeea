"""Files that are whole or not there: grown by whole lines, or replaced at once."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError


def append_line(path: Path, line: bytes) -> None:
    """Append ``line`` and wait until it is on the disk. Raises OSError where it does not fit whole."""
    with path.open("ab", buffering=0) as file:
        if file.write(line) != len(line):  # the disk is filling up
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Make ``content`` the file at ``path``, at once. Raises OSError and leaves the old one where that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` (dataclasses, mappings, plain values) to ``path``, replacing it whole, parents made as needed.

    Raises ResultsError where it cannot be written.
    """
    import msgspec

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error
