"""What users register by name, and the functions that they register. Importing this loads no torch."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pytest_vq.errors import RegistrationError, first_line


def check_name_is_free(what: str, name: str, groups: Collection[str], option: str) -> None:
    """Refuse a name that stands for a group already. Raises RegistrationError.

    Args:
        what: what is registered: ``model``.
        name: its name.
        groups: the names that are taken so.
        option: the option that names are given to.
    """
    if name in groups:
        raise RegistrationError(f"{name!r} cannot name a {what}: {option} {name} already means a group of {what}s")


def check_takes(what: str, function: object, arguments: Collection[str], meaning: str) -> None:
    """Refuse what cannot be called with as many ``arguments``, by position. Raises RegistrationError.

    Args:
        what: what it belongs to: ``model 'my-net'``.
        function: what was given.
        arguments: their names, for the message.
        meaning: what the function is for: ``the one that builds the model``.
    """
    if not callable(function):
        raise RegistrationError(f"{what}: {function!r} is not a function; {meaning}")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        takes = f"the arguments ({', '.join(arguments)})" if arguments else "no arguments"
        raise RegistrationError(f"{what}: {qualname(function)} must take {takes} ({first_line(error)})") from error


def check_same_function(what: str, name: str, taken: Callable[..., Any] | None, function: Callable[..., Any]) -> None:
    """Refuse a second function of one name. Raises RegistrationError, naming both.

    A conftest imported twice registers the same function again; only another function is a clash.
    """
    if taken is not None and origin(taken) != origin(function):
        both = f"{' '.join(origin(taken))} and {' '.join(origin(function))}"
        raise RegistrationError(f"two {what}s are registered as {name!r}: {both}")


@contextlib.contextmanager
def restored(registered: dict[str, Any]) -> Iterator[None]:
    """Put ``registered`` back on leaving, whatever was registered meanwhile."""
    before = dict(registered)
    try:
        yield
    finally:
        registered.clear()
        registered.update(before)


def qualname(function: object) -> str:
    """What a function is called in messages."""
    return str(getattr(function, "__qualname__", None) or repr(function))


def origin(function: Callable[..., Any]) -> tuple[str, str]:
    """Where a function is from; of two that are the same, the same."""
    if isinstance(function, type):  # a class, which makes what it is called for
        return str(getattr(sys.modules.get(function.__module__), "__file__", function.__module__)), qualname(function)
    code = getattr(inspect.unwrap(function), "__code__", None)
    # Without source code of its own (a partial, an instance) only the very same object is the same function.
    return (code.co_filename, qualname(function)) if code is not None else (repr(function), str(id(function)))
