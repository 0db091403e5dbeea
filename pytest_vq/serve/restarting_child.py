"""The process that holds a model for `pytest_vq.serve.restarting`: ``python -m ...restarting_child DESCRIPTOR``.

It talks with its parent over the socket of that descriptor. The first message orders a model, each later one is a
batch; each is replied to by a pair, what the reply is and its content. It ends where the socket is closed, and so where
its parent has ended, however that came about.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pkgutil import resolve_name
from typing import Any

from pytest_vq.errors import DeviceLostError, QueueFullError, first_line
from pytest_vq.serve.endpoint import Endpoint
from pytest_vq.serve.parent_watch import end_after_parent

# What a reply is. The content of an answer is an array; of a model that was built, nothing; of all else, words.
BUILT, ANSWER, REFUSED, RAISED, LOST = "built", "answer", "refused", "raised", "lost"


def main(descriptor: int) -> None:
    """Make the model that is ordered, and answer batches until the socket is closed."""
    with socket.socket(fileno=descriptor) as parent, parent.makefile("rb") as messages:
        factory, arguments, state, closing_s, import_paths = json.loads(pickle.load(messages))
        end_after_parent(descriptor, closing_s)
        sys.path += [path for path in import_paths if path not in sys.path]
        made: list[Endpoint] = []
        reply = _reply(BUILT, lambda: made.append(resolve_name(factory)(**arguments, state=state)))
        with suppress(EOFError, OSError):  # the parent has hung up, or has ended
            while True:
                parent.sendall(pickle.dumps(reply, pickle.HIGHEST_PROTOCOL))
                batch = pickle.load(messages)
                reply = _reply(ANSWER, partial(_answer, made[0], batch))
        for endpoint in made:
            endpoint.close()


def _answer(endpoint: Endpoint, batch: Any) -> Any:
    import numpy as np

    # An array, whatever the model gave: the parent need not have the model's libraries to read it.
    return np.asarray(endpoint.infer(batch))


def _reply(kind: str, call: Callable[[], Any]) -> tuple[str, Any]:
    """What ``call`` returns, as a reply of ``kind``, or what it raises, as one in words."""
    try:
        return kind, call()
    except QueueFullError as error:
        return REFUSED, first_line(error)
    except Exception as error:  # noqa: BLE001  # whatever a model raises, it is the parent's to know
        traceback.print_exc()  # the reply says no more than its first line
        words = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error, DeviceLostError) or _is_device_lost():
            return LOST, f"lost its device ({words})"
        return RAISED, words


def _is_device_lost() -> bool:
    """True where a kernel crashed, and nobody said so: it may have been FP32's, whose errors the guard lets through."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    from pytest_vq.serve.guard import device_is_lost

    return device_is_lost()


if __name__ == "__main__":
    main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # not by way of threads of the model's that never end
