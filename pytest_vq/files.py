"""Files that are whole or not there, grown by whole lines or replaced at once; and locks kept apart from them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from pytest_vq.errors import ResultsError, VqError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LONGEST_NAME = 200  # bytes; file systems allow 255, and what is staged beside a file has a longer name
_BUFFER_BYTES = 2**20
Content = bytes | Sequence[bytes | memoryview]  # of a file: whole, or piece after piece
_CUT, _DIGEST = "+", 16  # what stands between a name's beginning and its digest, of so many digits: it is quoted itself


def file_name(name: str, suffix: str = "", *, kept: str = "") -> str:
    """The one file name that stands for ``name``, whatever that is; `name_in` reads it back.

    It is quoted as in an address, all but letters, digits, ``_.-~`` and ``kept``. Of one that would be longer than
    every file system allows, the beginning is left, and a digest of the whole tells it from others. Raises ValueError
    for a name that is not valid Unicode.
    """
    quoted = quote(name, safe=kept)
    if quoted.startswith("."):  # a hidden file, or a directory
        quoted = "%2E" + quoted[1:]
    room = _LONGEST_NAME - len(suffix)
    if len(quoted) > room:
        ending = _CUT + hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        quoted = quoted[: room - len(ending)] + ending
    return quoted + suffix


def name_in(file: str) -> str | None:
    """The name that ``file``, without its suffix, stands for; None where only the beginning of it is left."""
    return None if _CUT in file else unquote(file)


def append_line(path: Path, line: bytes) -> None:
    """Append ``line`` and wait until it is on the disk. Raises OSError where it does not fit whole."""
    with path.open("ab", buffering=0) as file:
        if file.write(line) != len(line):  # the disk is filling up
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def stage(path: Path, content: Content) -> Path:
    """Put ``content`` on the disk beside ``path``, with its permissions, ready to replace it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a process that was killed
        with temporary.open("xb", buffering=_BUFFER_BYTES) as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
    except OSError:
        discard(temporary)
        raise
    return temporary


def discard(temporary: Path) -> None:
    """Remove what `stage` left, if it is still there."""
    with suppress(OSError):  # gone already, or the very error being raised
        temporary.unlink()


def replace_file(path: Path, content: bytes) -> None:
    """Make ``content`` the file at ``path``, at once. Raises OSError and leaves the old one where that fails."""
    temporary = stage(path, content)
    try:
        temporary.replace(path)
    finally:
        discard(temporary)


def replace_together(contents: Mapping[Path, Content]) -> None:
    """Make ``contents`` the files at their paths, one after another. Folders are made as needed.

    All are on the disk before the first of them is seen. Raises OSError where one cannot be written: then what was
    there before is still there.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = stage(path, content)
        for path, temporary in staged.items():
            temporary.replace(path)
    finally:
        for temporary in staged.values():
            discard(temporary)


def write_together(directory: Path, contents: Mapping[str, Content]) -> list[Path]:
    """Write ``contents``, by their path in ``directory``, as `replace_together` does, and return where they are.

    Raises ResultsError where one cannot be written.
    """
    files = {directory / name: content for name, content in contents.items()}
    try:
        replace_together(files)
    except OSError as error:
        where = error.filename or directory
        raise ResultsError(f"cannot write to {where}: {error.strerror or error}") from error
    return list(files)


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


def lock_of(directory: Path, purpose: str) -> BaseFileLock:
    """The lock of ``directory``, by its resolved path. It lies in the system's temporary directory.

    Processes with different ``TMPDIR``, or on different machines, do not see each other's.
    """
    import filelock

    key = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    return filelock.FileLock(Path(tempfile.gettempdir()) / f"pytest-vq-{purpose}-{key}.lock", mode=0o666)


def acquire(lock: BaseFileLock, error: type[VqError], busy: str, timeout_s: float = 0.0) -> None:
    """Take ``lock``, waiting at most ``timeout_s``. Raises ``error``, saying ``busy`` where another holds it."""
    import filelock

    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout as raised:
        raise error(busy) from raised
    except OSError as raised:
        raise error(f"cannot take the lock {lock.lock_file}: {raised}; set TMPDIR elsewhere") from raised
