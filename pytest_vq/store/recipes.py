"""Recipes on disk: read with a check of everything, and written whole."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pytest_vq.errors import SelectionError
from pytest_vq.files import write_json
from pytest_vq.schema.recipe import SCHEMA_VERSION, Recipe
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned

MAX_BYTES = 2**20
_KNOWN = tuple(f.name for f in fields(Recipe))


@dataclass(frozen=True, slots=True)
class StoredRecipe:
    """A recipe as it was read, and the SHA-256 of the file's bytes, in hexadecimal digits."""

    recipe: Recipe
    sha256: str


def read_recipe(path: Path) -> StoredRecipe:
    """The recipe in the file at ``path``.

    Raises:
        SelectionError: it cannot be read, is longer than 1 MiB, is not JSON, of a newer schema, or no valid recipe;
            the message names the file.
    """
    import msgspec

    data = _read(path)
    try:
        raw, _ = read_versioned(data, f"the recipe {path}", SCHEMA_VERSION, SelectionError)
    except NotJsonError as error:
        raise SelectionError(f"{error}: write it anew with pytest-vq choose") from error
    except NoSchemaError as error:
        raise SelectionError(f"{path} is not a recipe: {error}; pytest-vq choose writes recipes") from error
    unknown = sorted(set(raw) - set(_KNOWN))
    if unknown:
        raise SelectionError(f"{path} is not a valid recipe: it has no field {unknown[0]!r}, only {', '.join(_KNOWN)}")
    try:
        recipe = msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise SelectionError(f"{path} is not a valid recipe: {error}") from error
    return StoredRecipe(recipe, hashlib.sha256(data).hexdigest())


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write ``recipe`` to ``path``, replacing it whole; what was not asked for or measured is left out.

    Raises ResultsError where it cannot be written.
    """
    content = {name: _without_none(value) for name, value in asdict(replace(recipe, environment=None)).items()}
    written = {name: value for name, value in content.items() if value is not None}
    write_json(path, written if recipe.environment is None else written | {"environment": recipe.environment})


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SelectionError(f"cannot read the recipe {path}: {reason}") from error
    if len(data) > MAX_BYTES:
        raise SelectionError(f"{path} is not a recipe: it is longer than 1 MiB, which none is")
    return data


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if part is not None}
    return value
