"""What an execution gives back: a converted model that is ready to be called, and a request to it.

An execution is a function ``prepare(converted, example) -> Prepared``, named by the dotted path in its
``ExecutionSpec``. ``converted`` is the verified model on its device, ``example`` the images of the timed request.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_vq.device.clock import Call

if TYPE_CHECKING:
    from torch import Tensor

    from pytest_vq.precision.converted import Converted
    from pytest_vq.schema.spec import Scheme

Context = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to call again and again. What ``context`` sets must hold while it is called, and only then."""

    call: Call
    context: Context = nullcontext

    def __call__(self) -> object:
        """Call it once, in its context."""
        with self.context():
            return self.call()


def _nothing() -> None:
    """What most executions have to give back."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is ready to run. All but ``call`` is optional."""

    call: Callable[[Tensor], object]  # images [batch, channels, height, width] -> what the model returns
    context: Context = nullcontext  # global switches that this execution needs; the timed blocks of others run without
    pool_bytes: int = 0  # memory kept for it beside the model
    close: Callable[[], None] = _nothing

    def request(self, images: Tensor) -> Request:
        """The request that answers ``images``."""
        return Request(partial(self.call, images), self.context)


# ``prepare`` of an execution; and what may be done to what it prepared, scheme by scheme (see ``plugin.provoke``).
Prepare = Callable[["Converted", "Tensor"], Prepared]
Alteration = Callable[["Scheme", Prepared], Prepared]


def unaltered(_: Scheme, prepared: Prepared) -> Prepared:
    """The alteration that changes nothing."""
    return prepared
