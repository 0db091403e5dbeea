"""From a recipe to the precision that it is. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_vq.errors import SelectionError
from pytest_vq.precision.precisions import find_precision
from pytest_vq.schema.recipe import Recipe
from pytest_vq.schema.spec import Mix, PrecisionSpec

# Held-out inputs answered as the recipe promises; a few others may lie below that by what a prediction may err.
PREDICTION_MARGIN_DB = 1.5


def precision_of(recipe: Recipe, name: str, sha256: str | None = None) -> PrecisionSpec:
    """The precision called ``name`` that gives each layer what ``recipe`` says.

    Raises:
        SelectionError: it names a precision that there is not, or that no layer or rest can have.
    """
    rest = find_precision(recipe.rest)
    if rest.dtype is None or rest.switches is not None:
        raise SelectionError(f"{name}: the rest cannot be {rest.name}: it takes a precision that only casts, as bf16")
    layers = {layer: layer_precision(precision) for layer, precision in recipe.layers.items()}
    spec = PrecisionSpec(
        name, min_sqnr_db=None, mix=Mix(layers, rest, recipe.model, sha256), not_under=_not_under(layers)
    )
    return PrecisionSpec(name, _floor_db(recipe, spec.parts), mix=spec.mix, not_under=spec.not_under)


def layer_precision(name: str) -> PrecisionSpec:
    """The precision called ``name``, which a single layer can have.

    Raises:
        SelectionError: there is none, or it is one of a whole process or program.
    """
    spec = find_precision(name)
    if spec.switches is not None:
        raise SelectionError(f"{name} is switched on for all that runs: no layer can have it by itself")
    if spec.dtype is None and spec.layer is None:
        raise SelectionError(f"{name} makes a whole program of a model: no layer can have it by itself")
    return spec


def _not_under(layers: Mapping[str, PrecisionSpec]) -> dict[str, str]:
    """Execution -> why a layer's precision does not run so."""
    return {execution: why for spec in layers.values() for execution, why in spec.not_under.items()}


def _floor_db(recipe: Recipe, parts: tuple[PrecisionSpec, ...]) -> float | None:
    """The lower bound of its fidelity: by what it was chosen for, else the lowest of its parts'."""
    if recipe.chosen_for is not None and recipe.chosen_for.min_sqnr_db is not None:
        return recipe.chosen_for.min_sqnr_db - PREDICTION_MARGIN_DB
    return min((part.min_sqnr_db for part in parts if part.min_sqnr_db is not None), default=None)
