"""Which schemes are meant: ``int8``, ``int8+compile``, or ``all``. Importing this loads no torch."""

from __future__ import annotations

from pytest_vq.errors import SelectionError
from pytest_vq.execution.executions import all_executions, find_execution
from pytest_vq.precision.precisions import all_precisions, find_precision
from pytest_vq.schema.spec import EAGER, FP32, Scheme


def all_schemes() -> dict[str, Scheme]:
    """Every precision under every execution, by name: precisions widest first, eager first."""
    schemes = [Scheme(p, e) for p in all_precisions().values() for e in all_executions().values()]
    return {scheme.name: scheme for scheme in schemes}


def find_scheme(name: str) -> Scheme:
    """The scheme called ``name``, a precision or a precision and an execution joined by ``+``.

    Raises:
        SelectionError: there is no such precision or execution; the message names the nearest.
    """
    precision, joined, execution = name.partition("+")
    return Scheme(find_precision(precision), find_execution(execution if joined else EAGER))


def reference_scheme() -> Scheme:
    """Eager FP32, which every other scheme is compared with."""
    return find_scheme(FP32)


def select_schemes(text: str) -> list[Scheme]:
    """The schemes in ``text``, comma-separated names or ``all``, each once and in their own order.

    Raises:
        SelectionError: a name that does not exist, or no name at all.
    """
    known = all_schemes()
    names = [name for name in (item.strip() for item in text.split(",")) if name]
    if not names:
        raise SelectionError(f"no precision in {text!r}: name some of {', '.join(known)}, or all")
    wanted = {found for name in names for found in (known if name == "all" else (find_scheme(name).name,))}
    return [scheme for name, scheme in known.items() if name in wanted]
