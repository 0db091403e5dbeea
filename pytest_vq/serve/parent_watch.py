"""A process that ends where its parent has ended, however that came about: an orphan would keep the device busy.

The parent holds one end of a pipe or a socket, and the system closes it whatever the parent dies of.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_pipe() -> Iterator[int]:
    """A descriptor for a child to inherit and watch. The other end is this process's, until the block is left."""
    watched, held = os.pipe()
    try:
        yield watched
    finally:
        os.close(watched)
        os.close(held)


def end_after_parent(descriptor: int, patience_s: float = 0.0) -> None:
    """From now on, end this process and its group ``patience_s`` after the other end of ``descriptor`` is closed.

    The process must have been started in a session of its own: whoever else were in its group would end with it.
    """
    os.set_inheritable(descriptor, False)  # what is started here must not keep a socket open
    # In a thread, because a call that hangs would not notice.
    threading.Thread(target=_wait_and_end, args=(descriptor, patience_s), name="vq-parent", daemon=True).start()


def _wait_and_end(descriptor: int, patience_s: float) -> None:
    poller = select.poll()
    poller.register(descriptor, 0)  # no event but the one that always counts: the other end has gone
    poller.poll()
    time.sleep(patience_s)
    os.killpg(0, signal.SIGKILL)
