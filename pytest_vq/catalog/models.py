"""Which models there are: the catalog's own table, the user's registered models, and the choice among both."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_vq.errors import RegistrationError, SelectionError, first_line
from pytest_vq.schema.spec import ModelSpec

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


def register_model(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    head: str | None = None,
    min_sqnr_db: Mapping[str, float] | None = None,
) -> Callable[[Builder], Builder]:
    """Add a model of one's own to the catalog: a decorator for the function that builds it.

    The function takes no arguments and returns a ``torch.nn.Module`` with its weights, in FP32 on the CPU.

    Args:
        name: what options, test ids and files call it: letters, digits and ``. _ + -``.
        input_shape: channels, height and width of one image; no batch axis.
        head: dotted name of the module that every precision leaves unquantized (usually the classifier).
        min_sqnr_db: precision -> lowest fidelity in dB that passes, where the default does not suit this model.

    Raises:
        RegistrationError: the name is taken, reserved or unusable, the shape is not three positive integers, or
            the function cannot be called without arguments.
    """
    _check_name(name)
    _check_shape(name, input_shape)

    def register(build: Builder) -> Builder:
        _check_builder(name, build)
        _check_free(name, build)
        _local[name] = ModelSpec(
            name=name,
            category="local",
            architecture=_qualname(build),
            input_shape=(input_shape[0], input_shape[1], input_shape[2]),
            parameters=None,
            heads=(head,) if head else (),
            min_sqnr_db=dict(min_sqnr_db or {}),
            build=build,
        )
        return build

    return register


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Restore the user's registered models on leaving: for tests that register some."""
    before = dict(_local)
    try:
        yield
    finally:
        _local.clear()
        _local.update(before)


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
    return f"no model matches {item!r}; the nearest are {', '.join(near)} (pytest-vq models lists them all)"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot name a model: it becomes part of a test id and a file name, so use at most 100 letters, "
            "digits and . _ + -, a letter or digit first"
        )
    if name in GROUPS:
        raise RegistrationError(f"{name!r} cannot name a model: --vq-models {name} already means a group of models")


def _check_shape(name: str, shape: object) -> None:
    sizes = shape if isinstance(shape, tuple | list) else ()
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise RegistrationError(
            f"model {name!r}: input_shape={shape!r} is not three positive integers (channels, height, width; "
            "no batch axis)"
        )


def _check_builder(name: str, build: object) -> None:
    if not callable(build):
        raise RegistrationError(f"model {name!r}: {build!r} is not a function; decorate the one that builds the model")
    try:
        inspect.signature(build).bind()
    except TypeError as error:
        raise RegistrationError(
            f"model {name!r}: {_qualname(build)} must take no arguments ({first_line(error)})"
        ) from error


def _check_free(name: str, build: Callable[[], nn.Module]) -> None:
    if name in _catalog():
        raise RegistrationError(f"model {name!r} is already in the catalog; register yours under another name")
    taken = _local.get(name)
    # A conftest imported twice registers the same function again; only another function is a clash.
    if taken is not None and taken.build is not None and _origin(taken.build) != _origin(build):
        raise RegistrationError(
            f"two models are registered as {name!r}: {' '.join(_origin(taken.build))} and {' '.join(_origin(build))}"
        )


def _qualname(build: object) -> str:
    return str(getattr(build, "__qualname__", None) or repr(build))


def _origin(build: Callable[[], nn.Module]) -> tuple[str, str]:
    code = getattr(inspect.unwrap(build), "__code__", None)
    # Without source code of its own (a partial, an instance) only the very same object is the same function.
    return (code.co_filename, _qualname(build)) if code is not None else (repr(build), str(id(build)))
