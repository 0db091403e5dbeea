"""Which executions there are. A new one is one entry here and one module; importing this loads no torch."""

from __future__ import annotations

import difflib
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from pytest_vq.errors import SelectionError
from pytest_vq.schema.spec import EAGER, ExecutionSpec

if TYPE_CHECKING:
    from pytest_vq.execution.prepared import Prepare

_EXECUTIONS = (ExecutionSpec(EAGER, prepare="pytest_vq.execution.eager:prepare"),)


def all_executions() -> dict[str, ExecutionSpec]:
    """Every execution by name, eager first."""
    return {spec.name: spec for spec in _EXECUTIONS}


def find_execution(name: str) -> ExecutionSpec:
    """The execution called ``name``.

    Raises:
        SelectionError: there is none; the message names the nearest.
    """
    known = all_executions()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, cutoff=0.3) or list(known)
        raise SelectionError(f"no execution {name!r}: did you mean {' or '.join(near)}? There are {', '.join(known)}")
    return known[name]


def load_prepare(spec: ExecutionSpec) -> Prepare:
    """The function that prepares a converted model for ``spec``; imports torch, and what the execution needs."""
    prepare: Prepare = resolve_name(spec.prepare)
    return prepare
