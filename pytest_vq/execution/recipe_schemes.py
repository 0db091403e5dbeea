"""Recipes as schemes: ``recipe:FILE``, or ``recipe:FILE+compile``. Importing this loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pytest_vq.errors import SelectionError
from pytest_vq.execution.executions import all_executions, find_execution
from pytest_vq.precision.recipe_precision import precision_of
from pytest_vq.schema.recipe import PREFIX
from pytest_vq.schema.spec import EAGER, Scheme
from pytest_vq.store.recipes import read_recipe

# A file's stem becomes part of a test id, and its scheme an item of a comma-separated list.
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_recipe(name: str) -> bool:
    """True for what names the file of a recipe."""
    return name.startswith(PREFIX)


def find_recipe(name: str) -> Scheme:
    """The scheme called ``name``: ``recipe:FILE``, alone or with an execution.

    Raises:
        SelectionError: the file cannot be read, or is no recipe for this version and these precisions.
    """
    path, execution = _split(name)
    if not _STEM.fullmatch(path.stem):
        raise SelectionError(
            f"{str(path)!r} cannot be a recipe's file: its name without the suffix becomes part of test ids, so use at "
            "most 100 letters, digits and . _ -, a letter or digit first"
        )
    stored = read_recipe(path)
    try:
        precision = precision_of(stored.recipe, f"recipe-{path.stem}", stored.sha256)
    except SelectionError as error:
        raise SelectionError(f"the recipe {path}: {error}") from error
    return Scheme(precision, find_execution(execution))


def recipes_in(items: Iterable[str]) -> dict[str, Scheme]:
    """The recipes among ``items``, by what they were called there.

    Raises:
        SelectionError: as ``find_recipe``; or two of them would bear one name.
    """
    found = {item: find_recipe(item) for item in items if is_recipe(item)}
    named: dict[str, Scheme] = {}
    for item, scheme in found.items():
        if named.setdefault(scheme.precision.name, scheme).precision != scheme.precision:
            raise SelectionError(f"two recipes are called {scheme.precision.name}: rename the file of {item}")
    return found


def _split(name: str) -> tuple[Path, str]:
    """The file and the execution; a file's name may hold a ``+`` itself."""
    path = name.removeprefix(PREFIX)
    for execution in sorted(all_executions(), key=len, reverse=True):
        if path.endswith(f"+{execution}"):
            return Path(path.removesuffix(f"+{execution}")), execution
    return Path(path), EAGER
