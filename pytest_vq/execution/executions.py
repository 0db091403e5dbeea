"""Which executions there are. A new one is one entry here and one module; importing this loads no torch."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from pytest_vq.precision.precisions import find_named
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
    return find_named("execution", name, all_executions())


def load_prepare(spec: ExecutionSpec) -> Prepare:
    """The function that prepares a converted model for ``spec``; imports torch, and what the execution needs."""
    prepare: Prepare = resolve_name(spec.prepare)
    return prepare
