"""The user's own precisions: a decorator for what makes them. Importing this loads no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from pytest_vq.errors import RegistrationError
from pytest_vq.precision.precisions import GROUPS, all_precisions, local_precisions
from pytest_vq.registering import check_name_is_free, check_same_function, check_takes, restored
from pytest_vq.schema.spec import CALLABLE, PrecisionSpec

Function = TypeVar("Function", bound=Callable[..., Any])

# What a layer stores passes up to half as much again (see ``bits``): beyond this, FP16 would count as quantized.
MOST_BITS = 10

# A name becomes part of a test id and a file name, an item of a comma-separated list of globs, and of a scheme, whose
# execution follows a "+".
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LIKE_A_BATCH = re.compile(r".*-b\d+")
OF_RECIPES = "recipe-"  # what the precisions of recipes begin with


def register_precision(
    name: str,
    *,
    min_sqnr_db: float,
    max_bits: float | None = None,
    opaque: bool = False,
    method: str = "",
) -> Callable[[Function], Function]:
    """Add a precision of one's own: a decorator for the function that makes it.

    The function is a layer builder, ``(linear, copier) -> torch.nn.Module | str``: it is called with each
    ``torch.nn.Linear`` outside the head (FP32, on the CPU, not to be changed) and returns what replaces it, on
    ``copier.device`` and with what is not quantized in ``copier.dtype``; or a text: why this layer stays.

    With ``opaque`` it converts all of the model, ``(model, inputs, device) -> pytest_vq.Opaque``: ``model`` is a copy
    of the FP32 model, ``inputs`` are those of the timed request; both are FP32, on ``device``.

    Args:
        name: what options, test ids and files call it: letters, digits and ``. _ -``.
        min_sqnr_db: lowest fidelity in dB, against FP32, that passes.
        max_bits: bits that a layer stores for a weight at most, its scales aside; with a layer builder only.
        opaque: the function makes a whole program, whose layers nobody can look into.
        method: what really runs, for the table; by default the name.

    Raises:
        RegistrationError: the name is taken or unusable, ``max_bits`` is missing or out of range, ``min_sqnr_db`` is no
            number, or the function does not take these arguments.
    """
    _check_name(name)
    _check_figures(f"precision {name!r}", min_sqnr_db, max_bits, opaque=opaque)
    spec = PrecisionSpec(name, min_sqnr_db=float(min_sqnr_db), method=method or name, max_bits=max_bits)

    def register(function: Function) -> Function:
        _add(replace(spec, program=function) if opaque else replace(spec, layer=function), function)
        return function

    return register


def isolated() -> AbstractContextManager[None]:
    """Restore the user's precisions on leaving: for tests that register some."""
    return restored(local_precisions)


def check_scheme_part(what: str, name: str) -> None:
    """Refuse a name that cannot be part of a scheme's. Raises RegistrationError."""
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot name a {what}: it becomes part of a test id and a file name, and a + joins precision and "
            "execution, so use at most 100 letters, digits and . _ -, a letter or digit first"
        )
    if _LIKE_A_BATCH.fullmatch(name):
        raise RegistrationError(f"{name!r} cannot name a {what}: test ids end like this for a batch other than 1")


def _add(spec: PrecisionSpec, function: Callable[..., Any]) -> None:
    arguments = ("linear", "copier") if spec.program is None else ("model", "inputs", "device")
    check_takes(f"precision {spec.name!r}", function, arguments, "decorate the one that makes it")
    _check_free(spec.name, function)
    local_precisions[spec.name] = spec


def _check_name(name: str) -> None:
    check_scheme_part("precision", name)
    check_name_is_free("precision", name, GROUPS, "--vq-precisions")
    if name == CALLABLE:
        raise RegistrationError(f"{name!r} cannot name a precision: it stands for a test's own code")
    if name.startswith(OF_RECIPES):
        raise RegistrationError(f"{name!r} cannot name a precision: those of recipes begin with {OF_RECIPES}")


def _check_figures(what: str, min_sqnr_db: object, max_bits: object, *, opaque: bool) -> None:
    if not _is_number(min_sqnr_db):
        raise RegistrationError(f"{what}: min_sqnr_db={min_sqnr_db!r} is no number of dB")
    if opaque:
        if max_bits is not None:
            raise RegistrationError(f"{what}: nobody can look into an opaque program, so max_bits= says nothing there")
        return
    if not _is_number(max_bits) or not 1 <= float(str(max_bits)) <= MOST_BITS:
        raise RegistrationError(
            f"{what}: max_bits={max_bits!r}: say how many bits a weight takes at most in a quantized layer, from 1 to "
            f"{MOST_BITS} (max_bits=8); every layer that the function returns is held to it"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_free(name: str, function: Callable[..., Any]) -> None:
    taken = local_precisions.get(name)
    if taken is None and name in all_precisions():
        raise RegistrationError(f"precision {name!r} is one of the package's; register yours under another name")
    former = None if taken is None else taken.program or taken.layer
    check_same_function("precision", name, former if callable(former) else None, function)
