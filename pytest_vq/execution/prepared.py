"""What an execution gives back: a converted model that is ready to be called, and a request to it.

An execution is a function ``prepare(converted, example) -> Prepared``, named by the dotted path in its
``ExecutionSpec``. ``converted`` is the verified model on its device, ``example`` the inputs of the timed request: a
tensor, a tuple of tensors, or a dict of keyword arguments (see ``catalog.inputs``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vq.catalog.inputs import ModelInputs, bind_inputs
from pytest_vq.device.clock import Call

if TYPE_CHECKING:
    from pytest_vq.device.memory import CallMemory
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


@dataclass(frozen=True, slots=True)
class GraphCounts:
    """What a compiler made of one model so far."""

    graphs: int
    graph_breaks: int
    recompiles: int  # graphs made anew, because the first did not fit a call


def _nothing() -> None:
    """What most executions have to give back."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is ready to run. All but ``call`` is optional.

    What ``call`` returns may be overwritten by the next call, as a CUDA graph's output is: it is copied where it is
    kept (see ``Workload.answer``).
    """

    call: Callable[..., object]  # takes and returns what the model does: images [batch, channels, height, width], say
    context: Context = nullcontext  # global switches that this execution needs; the timed blocks of others run without
    pool_bytes: int = 0  # memory kept for it beside the model
    close: Callable[[], None] = _nothing
    batch: int | None = None  # images that a call must have, where it was made for that many; None: any number
    cache: str | None = None  # of what was compiled: "cold" where all of it was made anew, "warm" where not
    counts: Callable[[], GraphCounts] | None = None  # where it was compiled
    recorded: CallMemory | None = None  # what a forward took while it was recorded, where calls replay it

    def request(self, inputs: ModelInputs) -> Request:
        """The request that answers ``inputs``."""
        return Request(bind_inputs(self.call, inputs), self.context)


# ``prepare`` of an execution; and what may be done to what it prepared, scheme by scheme (see ``plugin.provoke``).
Prepare = Callable[["Converted", ModelInputs], Prepared]
Alteration = Callable[["Scheme", Prepared], Prepared]


def unaltered(_: Scheme, prepared: Prepared) -> Prepared:
    """The alteration that changes nothing."""
    return prepared
