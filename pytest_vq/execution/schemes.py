"""Which schemes are meant, and which of them a device can run. Importing this loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pkgutil import resolve_name

from pytest_vq.device.cpu import computes_bf16
from pytest_vq.errors import SelectionError
from pytest_vq.execution.executions import all_executions, find_execution
from pytest_vq.execution.recipe_schemes import find_recipe, is_recipe, recipes_in
from pytest_vq.precision.precisions import GROUPS, all_precisions, find_precision
from pytest_vq.schema.spec import EAGER, FP32, Scheme, Target
from pytest_vq.wording import listed

STUDY = ("fp32", "fp16", "int8", "int4")  # the published study's, and the default
# The few that are worth comparing with the study's FP32. On an accelerator small batches are bound by launches, which
# graphs take away, and large ones by arithmetic, which narrower types make cheaper.
_BEST_ON_ACCELERATOR = (
    "fp32",
    "bf16",
    "fp16+graph",
    "bf16+graph",
    "bf16+compile+graph",
    "fp8+compile+graph",
    "int8dyn+compile+graph",
)
# On a CPU nothing is launched: what helps is fused arithmetic, fewer bytes and, where it computes in it, BF16.
_BEST_ON_CPU = ("fp32", "fp32+compile", "int8wo", "int8dyn", "int8dyn+compile")
_BEST_WITH_BF16 = ("bf16", "bf16+compile")
_SHOWN = 3  # reasons in a message


@dataclass(frozen=True, slots=True)
class Selected:
    """The schemes to measure, each once and in their own order; and those left out of a group or glob, with why."""

    schemes: tuple[Scheme, ...]
    left_out: Mapping[str, str]  # name -> why this device cannot run it


def all_schemes() -> dict[str, Scheme]:
    """Every precision under every execution, by name: precisions widest first, eager first."""
    schemes = [Scheme(p, e) for p in all_precisions().values() for e in all_executions().values()]
    return {scheme.name: scheme for scheme in schemes}


def find_scheme(name: str) -> Scheme:
    """The scheme called ``name``, a precision or a precision and an execution joined by ``+``.

    The precision may be a recipe: ``recipe:FILE``.

    Raises:
        SelectionError: there is no such precision or execution, and the message names the nearest; or the file is no
            recipe.
    """
    if is_recipe(name):
        return find_recipe(name)
    precision, joined, execution = name.partition("+")
    return Scheme(find_precision(precision), find_execution(execution if joined else EAGER))


def reference_scheme() -> Scheme:
    """Eager FP32, which every other scheme is compared with."""
    return find_scheme(FP32)


def refusal(scheme: Scheme, target: Target) -> str:
    """Why ``target`` cannot run ``scheme``, with what to do; empty where it can."""
    if scheme.precision.program is not None and scheme.execution.name != EAGER:
        return f"{scheme.precision.name} makes a program that runs by itself: take it alone, as {scheme.precision.name}"
    under = scheme.precision.not_under.get(scheme.execution.name)
    if under is not None:
        return under
    for path in (*(part.refusal for part in scheme.precision.parts), scheme.execution.refusal):
        if path is not None:
            refuses: Callable[[Target], str] = resolve_name(path)
            reason = refuses(target)
            if reason:
                return reason
    return ""


def select_schemes(text: str, target: Target) -> Selected:
    """The schemes in ``text`` that ``target`` can run.

    Args:
        text: comma-separated names, globs over names (``*+compile``), recipes (``recipe:FILE``), or groups: ``study``
            (the published study's four precisions), ``best`` (the few worth comparing on that kind of device), ``all``.
        target: the device; what it cannot run is left out of globs and groups.

    Raises:
        SelectionError: a name that does not exist or that ``target`` cannot run, a glob that matches nothing, nothing
            that can be run, or no item at all.
    """
    items = [item for item in (part.strip() for part in text.split(",")) if item]
    if not items:
        raise SelectionError(f"no precision in {text!r}: name some of {_offered()}")
    recipes = recipes_in(items)
    known = all_schemes() | {scheme.name: scheme for scheme in recipes.values()}
    wanted: set[str] = set()
    left_out: dict[str, str] = {}
    for item in items:
        many = None if item in recipes else _many(item, known, target)
        for name in many if many is not None else ((recipes.get(item) or find_scheme(item)).name,):
            reason = refusal(known[name], target)
            if not reason:
                wanted.add(name)
            elif many is None:
                raise SelectionError(f"{name} cannot run here: {reason}")
            else:
                left_out[name] = reason
    if not wanted:
        why = listed([f"{name} ({reason})" for name, reason in left_out.items()], _SHOWN)
        raise SelectionError(f"nothing in {text!r} can run here: {why}")
    schemes = tuple(scheme for name, scheme in known.items() if name in wanted)
    return Selected(schemes, {name: left_out[name] for name in known if name in left_out})


def _many(item: str, known: Mapping[str, Scheme], target: Target) -> tuple[str, ...] | None:
    """The names that a group or a glob stands for; None for the name of one scheme."""
    if item == "all":
        return tuple(known)
    if item == "study":
        return STUDY
    if item == "best":
        if target.is_accelerator:
            return _BEST_ON_ACCELERATOR
        return _BEST_ON_CPU + (_BEST_WITH_BF16 if computes_bf16() else ())
    if not set(item) & set("*?["):
        return None
    found = tuple(name for name in known if fnmatchcase(name, item))
    if not found:
        near = difflib.get_close_matches(item.strip("*?[]"), known, n=3, cutoff=0.3) or list(known)[:3]
        raise SelectionError(f"no scheme matches {item!r}; the nearest are {', '.join(near)}")
    return found


def _offered() -> str:
    executions = ", ".join(f"+{name}" for name in all_executions() if name != EAGER)
    return f"{', '.join(all_precisions())}, each alone or with {executions}; recipe:FILE; or {', '.join(GROUPS)}"
