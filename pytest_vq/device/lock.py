"""One process at a time measures on a device."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


def lock_path(device_uuid: str) -> Path:
    """Where the lock of a device lies: shared by every user and checkout of this machine."""
    return Path(tempfile.gettempdir()) / f"pytest-vq-{re.sub(r'[^A-Za-z0-9-]', '_', device_uuid)}.lock"


@contextlib.contextmanager
def device_lock(device_uuid: str) -> Iterator[None]:
    """Hold the device, waiting for whoever holds it now."""
    with FileLock(lock_path(device_uuid), mode=0o666):
        yield
