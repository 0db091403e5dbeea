"""Which models there are: the catalog's own table, the user's registered models, and the choice among both."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_vq.catalog.own_functions import check_floors, check_functions
from pytest_vq.errors import RegistrationError, SelectionError
from pytest_vq.registering import check_name_is_free, check_same_function, check_takes, qualname, restored
from pytest_vq.schema.spec import MakeInputs, MakeLabelled, ModelSpec, TakeOutput

if TYPE_CHECKING:
    from torch import nn

DATA = Path(__file__).parent / "data"
DIGITS = "vit-digits"  # the one model whose trained weights and labelled images are shipped
GROUPS = ("study", "local", "all", "default")
CPU_PARAMETERS = 25_000_000  # on the CPU the default selection stops here

# A name becomes a test id, a file name, and an item of a comma-separated list of globs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_local: dict[str, ModelSpec] = {}  # filled by register_model, which runs while conftest files are imported

Builder = TypeVar("Builder", bound="Callable[[], nn.Module]")


@functools.cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """The rows of ``data/models.json``, by model name, in the study's order."""
    rows = json.loads((DATA / "models.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in rows}


@functools.cache
def _catalog() -> Mapping[str, ModelSpec]:
    return {name: _spec(row) for name, row in table().items()}


def _spec(row: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        name=row["name"],
        category=row["category"],
        architecture=row["architecture"],
        input_shape=(row["channels"], row["image_size"], row["image_size"]),
        parameters=row["parameters"],
        heads=tuple(row["heads"]),
        checkpoint=row["checkpoint"],
        revision=row["revision"],
        min_sqnr_db=dict(row["min_sqnr_db"]),
    )


# The study's models, in its order.
STUDY: tuple[str, ...] = tuple(name for name in table() if name != DIGITS)


def all_models() -> dict[str, ModelSpec]:
    """Every model by name: the study's in its order, ``vit-digits``, then the user's in the order of registration."""
    return {**_catalog(), **_local}


def find_model(name: str) -> ModelSpec:
    """The model called ``name``. Raises SelectionError, naming the nearest, when there is none."""
    known = all_models()
    if name not in known:
        raise SelectionError(_no_match(name, list(known)))
    return known[name]


def register_model(  # noqa: PLR0913  # each is a keyword of its own to whoever registers a model
    name: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    inputs: MakeInputs | None = None,
    output: TakeOutput | None = None,
    labelled: MakeLabelled | None = None,
    head: str | None = None,
    min_sqnr_db: Mapping[str, float] | None = None,
) -> Callable[[Builder], Builder]:
    """Add a model of one's own: a decorator for the function () -> its ``torch.nn.Module``, FP32, on the CPU.

    Args:
        name: what options, test ids and files call it: letters, digits and ``. _ + -``.
        input_shape: channels, height and width of one image; no batch axis.
        inputs: instead of it, (batch, generator) -> what the model is called with: a tensor, a tuple, or a dict of
            keyword arguments; FP32 or integers, on the CPU, the batch first in each.
        output: what the model returns -> the tensor ``[batch, ...]`` that precisions are compared by.
        labelled: () -> inputs as above and labels (INT64 ``[n]``): fidelity is then judged on these, and accuracy too.
        head: dotted name of the module that every precision leaves unquantized (usually the classifier).
        min_sqnr_db: precision -> lowest fidelity in dB that passes, where the default does not suit this model.

    Raises:
        RegistrationError: the name is taken or unusable, or what is given is not as above.
    """
    _check_name(name)
    shape = _check_inputs(name, input_shape, inputs)
    check_floors(name, min_sqnr_db)
    check_functions(name, inputs, output, labelled)
    heads, floors = (head,) if head else (), dict(min_sqnr_db or {})
    spec = ModelSpec(name, "local", "", shape, parameters=None, heads=heads, min_sqnr_db=floors)
    spec = replace(spec, inputs=inputs, output=output, labelled=labelled)

    def register(build: Builder) -> Builder:
        check_takes(f"model {name!r}", build, (), "decorate the one that builds the model")
        _check_free(name, build)
        _local[name] = replace(spec, architecture=qualname(build), build=build)
        return build

    return register


def isolated() -> AbstractContextManager[None]:
    """Restore the user's registered models on leaving: for tests that register some."""
    return restored(_local)


def select_models(text: str, *, accelerator: bool) -> list[ModelSpec]:
    """The models named by ``text``, in catalog order and without duplicates.

    Args:
        text: comma-separated names, globs, or groups: ``study`` (the 16), ``local`` (the user's), ``all``, and
            ``default``, which is the study and ``vit-digits`` on an accelerator, and the catalog's models of at most
            25M parameters on the CPU.
        accelerator: what ``default`` means.

    Raises:
        SelectionError: an item matches nothing, or there is no item.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise SelectionError(f"no model is named in {text!r}: name some, or a group ({', '.join(GROUPS)})")
    chosen = {name for item in items for name in _matches(item, accelerator)}
    return [spec for name, spec in all_models().items() if name in chosen]


def _matches(item: str, accelerator: bool) -> list[str]:
    known = all_models()
    if item in GROUPS:
        return _group(item, accelerator)
    found = [name for name in known if name == item] or [name for name in known if fnmatchcase(name, item)]
    if not found:
        raise SelectionError(_no_match(item, [*known, *GROUPS]))
    return found


def _group(group: str, accelerator: bool) -> list[str]:
    if group == "all":
        return list(all_models())
    if group == "local":
        if not _local:
            raise SelectionError(
                "no model is registered locally: decorate a function that returns it in conftest.py with "
                '@pytest_vq.register_model("my-net", input_shape=(3, 224, 224), head="head")'
            )
        return list(_local)
    if group == "study":
        return list(STUDY)
    return [name for name, spec in _catalog().items() if accelerator or (spec.parameters or 0) <= CPU_PARAMETERS]


def _no_match(item: str, valid: list[str]) -> str:
    plain = item.strip("*?[]!")
    starting = [name for name in valid if plain and name.startswith(plain)]
    close = difflib.get_close_matches(plain, valid, n=3, cutoff=0.3)
    near = list(dict.fromkeys([*starting, *close]))[:3] or valid[:3]
    return f"no model matches {item!r}; the nearest are {', '.join(near)} (pytest-vq models lists the catalog)"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot name a model: it becomes part of a test id and a file name, so use at most 100 letters, "
            "digits and . _ + -, a letter or digit first"
        )
    check_name_is_free("model", name, GROUPS, "--vq-models")


def _check_inputs(name: str, shape: object, inputs: object) -> tuple[int, int, int] | None:
    """The shape of an image; None where ``inputs`` stands instead."""
    if inputs is not None:
        if shape is not None:
            raise RegistrationError(f"model {name!r}: inputs= stands instead of input_shape=; give one of the two")
        return None
    sizes = shape if isinstance(shape, tuple | list) else ()
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise RegistrationError(
            f"model {name!r}: input_shape={shape!r} is not three positive integers (channels, height, width; "
            "no batch axis); for other inputs give inputs= instead: a function (batch, generator) -> what the model "
            "is called with"
        )
    return sizes[0], sizes[1], sizes[2]


def _check_free(name: str, build: Callable[[], nn.Module]) -> None:
    if name in _catalog():
        raise RegistrationError(f"model {name!r} is already in the catalog; register yours under another name")
    taken = _local.get(name)
    check_same_function("model", name, None if taken is None else taken.build, build)
