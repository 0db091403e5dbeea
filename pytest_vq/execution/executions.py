"""Which executions there are. A new one is one entry here and one module; importing this loads no torch."""

from __future__ import annotations

from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from pytest_vq.precision.precisions import find_named
from pytest_vq.schema.spec import EAGER, ExecutionSpec

if TYPE_CHECKING:
    from pytest_vq.execution.prepared import Prepare

_EXECUTIONS = (
    ExecutionSpec(EAGER, prepare="pytest_vq.execution.eager:prepare"),
    ExecutionSpec(
        "compile",
        prepare="pytest_vq.execution.compiled:prepare",
        refusal="pytest_vq.execution.refusals:compile_refusal",
        compiles=True,
    ),
    ExecutionSpec(
        "graph",
        prepare="pytest_vq.execution.graphs:prepare",
        refusal="pytest_vq.execution.refusals:graph_refusal",
    ),
    ExecutionSpec(
        "compile+graph",
        prepare="pytest_vq.execution.graphs:prepare_compiled",
        refusal="pytest_vq.execution.refusals:compiled_graph_refusal",
        compiles=True,
    ),
)


local_executions: dict[str, ExecutionSpec] = {}  # filled by register_execution, while conftest files are imported


def all_executions() -> dict[str, ExecutionSpec]:
    """Every execution by name: ours, eager first, then the user's in the order of registration."""
    return {spec.name: spec for spec in (*_EXECUTIONS, *local_executions.values())}


def find_execution(name: str) -> ExecutionSpec:
    """The execution called ``name``.

    Raises:
        SelectionError: there is none; the message names the nearest.
    """
    return find_named("execution", name, all_executions())


def load_prepare(spec: ExecutionSpec) -> Prepare:
    """The function that prepares a converted model for ``spec``; imports torch, and what the execution needs."""
    if isinstance(spec.prepare, str):
        prepare: Prepare = resolve_name(spec.prepare)
        return prepare
    from pytest_vq.execution.own_prepared import prepare_own

    return partial(prepare_own, spec)
