"""Precision schemes by name. A new one is one entry here and one handler function; importing this loads no torch.

A handler has the signature ``handler(source, *, device, heads) -> Converted`` (see ``converted``), is named by the
dotted path ``module:function``, and its module is imported when a model is first converted with it.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from pytest_vq.errors import SelectionError
from pytest_vq.schema.spec import FP32, PrecisionSpec

if TYPE_CHECKING:
    from pytest_vq.precision.converted import Handler

# The bounds leave room below what the schemes reach on trained vision transformers: 55, 21 and 16 dB.
_SCHEMES = (
    PrecisionSpec(FP32, "pytest_vq.precision.floating:fp32", min_sqnr_db=None),
    PrecisionSpec("fp16", "pytest_vq.precision.floating:fp16", min_sqnr_db=40.0),
    PrecisionSpec("int8", "pytest_vq.precision.bnb:int8", min_sqnr_db=18.0),
    PrecisionSpec("int4", "pytest_vq.precision.bnb:int4", min_sqnr_db=8.0),
)


def all_precisions() -> dict[str, PrecisionSpec]:
    """Every scheme by name, widest first."""
    return {spec.name: spec for spec in _SCHEMES}


def find_precision(name: str) -> PrecisionSpec:
    """The scheme called ``name``.

    Raises:
        SelectionError: there is none; the message names the nearest.
    """
    schemes = all_precisions()
    if name not in schemes:
        # Half the usual likeness: with names this short, two of four characters are a near miss.
        near = difflib.get_close_matches(name.lower(), schemes, cutoff=0.3) or list(schemes)
        raise SelectionError(f"no precision {name!r}: did you mean {' or '.join(near)}? There are {', '.join(schemes)}")
    return schemes[name]


def select_precisions(text: str) -> list[PrecisionSpec]:
    """The schemes in ``text``, comma-separated names or ``all``, each once and in the registry's order.

    Raises:
        SelectionError: a name that does not exist, or no name at all.
    """
    names = [name for name in (item.strip() for item in text.split(",")) if name]
    if not names:
        raise SelectionError(f"no precision in {text!r}: name some of {', '.join(all_precisions())}, or all")
    wanted = {spec.name for name in names for spec in (_SCHEMES if name == "all" else (find_precision(name),))}
    return [spec for spec in _SCHEMES if spec.name in wanted]


def load_handler(spec: PrecisionSpec) -> Handler:
    """The function that converts a model to ``spec``; imports torch, and whatever library the scheme needs."""
    module, _, function = spec.handler.partition(":")
    handler: Handler = getattr(importlib.import_module(module), function)
    return handler
