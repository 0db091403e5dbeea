"""A converted model made ready to run by a user's function, and whether that is what it must be."""

from __future__ import annotations

from dataclasses import replace

import torch

from pytest_vq.catalog.inputs import ModelInputs, batch_of
from pytest_vq.errors import ExecutionError
from pytest_vq.execution.prepared import Prepared
from pytest_vq.precision.converted import Converted
from pytest_vq.registering import qualname
from pytest_vq.schema.spec import ExecutionSpec


def prepare_own(spec: ExecutionSpec, converted: Converted, example: ModelInputs) -> Prepared:
    """What the user's function of ``spec`` prepared, to be called with as many images as ``example`` has.

    Raises:
        ExecutionError: it is not what such a function must return. What it raises is raised as it is.
    """
    assert not isinstance(spec.prepare, str)
    # Exporters trace: they take no tensors of inference mode, and gradients are of no use to them.
    with torch.inference_mode(mode=False), torch.no_grad():
        prepared: object = spec.prepare(converted, example)
    if not isinstance(prepared, Prepared) or not callable(prepared.call):
        what = "a Prepared whose call cannot be called" if isinstance(prepared, Prepared) else type(prepared).__name__
        raise ExecutionError(
            f"the function {qualname(spec.prepare)} returned {what}; it must return pytest_vq.Prepared(call), whose "
            "call takes and returns what the model does"
        )
    return replace(prepared, batch=batch_of(example)) if prepared.batch is None else prepared
