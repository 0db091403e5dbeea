"""The user's own executions: a decorator for what prepares a model to run. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from pytest_vq.errors import RegistrationError
from pytest_vq.execution.executions import all_executions, local_executions
from pytest_vq.precision.own_precisions import check_scheme_part
from pytest_vq.registering import check_same_function, check_takes, restored
from pytest_vq.schema.spec import ExecutionSpec

Function = TypeVar("Function", bound=Callable[..., Any])


def register_execution(name: str) -> Callable[[Function], Function]:
    """Add an execution of one's own: a decorator for the function that makes a converted model ready to run.

    It takes ``converted``, whose ``module`` is the verified model on its device, and the inputs of the timed request (a
    tensor, a tuple, or a dict of keyword arguments), and returns ``pytest_vq.Prepared(call, context, pool_bytes,
    close)``, the last three optional. ``call`` takes and returns what the model does, for that batch.

    Args:
        name: what follows the ``+`` in a scheme's name: letters, digits and ``. _ -``.

    Raises:
        RegistrationError: the name is taken or unusable, or the function does not take these arguments.
    """
    check_scheme_part("execution", name)

    def register(function: Function) -> Function:
        check_takes(f"execution {name!r}", function, ("converted", "inputs"), "decorate the one that prepares a model")
        taken = local_executions.get(name)
        if taken is None and name in all_executions():
            raise RegistrationError(f"execution {name!r} is one of the package's; register yours under another name")
        former = None if taken is None or isinstance(taken.prepare, str) else taken.prepare
        check_same_function("execution", name, former, function)
        local_executions[name] = ExecutionSpec(name, function)
        return function

    return register


def isolated() -> AbstractContextManager[None]:
    """Restore the user's executions on leaving: for tests that register some."""
    return restored(local_executions)
