"""Which precisions there are. A new one is one entry here and one module; importing this loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from pytest_vq.errors import SelectionError
from pytest_vq.schema.spec import FP32, PrecisionSpec

Spec = TypeVar("Spec")

# The bounds leave room below what the precisions reach on trained vision transformers: 55, 21 and 16 dB. A single layer
# of Gaussian weights must reach half of what it does, far above what a wrong kernel gives (about 0).
_PRECISIONS = (
    PrecisionSpec(FP32, min_sqnr_db=None, dtype="float32"),
    PrecisionSpec("fp16", min_sqnr_db=40.0, dtype="float16"),
    PrecisionSpec(
        "int8",
        min_sqnr_db=18.0,
        method="bitsandbytes LLM.int8",
        layer="pytest_vq.precision.bnb:int8_layer",
        check="pytest_vq.precision.bnb_check:int8_fault",
        min_layer_sqnr_db=20.0,
    ),
    PrecisionSpec(
        "int4",
        min_sqnr_db=8.0,
        method="bitsandbytes NF4",
        layer="pytest_vq.precision.bnb:nf4_layer",
        check="pytest_vq.precision.bnb_check:nf4_fault",
        min_layer_sqnr_db=10.0,
        coarser_than="int8",
    ),
)


def all_precisions() -> dict[str, PrecisionSpec]:
    """Every precision by name, widest first."""
    return {spec.name: spec for spec in _PRECISIONS}


def precision_place(name: str) -> int:
    """Where a table has the precision called ``name``: widest first, and behind all of them what is not there."""
    names = list(all_precisions())
    return names.index(name) if name in names else len(names)


def find_precision(name: str) -> PrecisionSpec:
    """The precision called ``name``.

    Raises:
        SelectionError: there is none; the message names the nearest.
    """
    return find_named("precision", name, all_precisions())


def find_named(what: str, name: str, known: Mapping[str, Spec]) -> Spec:
    """The one of ``known`` called ``name``; ``what`` is what messages call it.

    Raises:
        SelectionError: there is none; the message names the nearest.
    """
    if name not in known:
        # Half the usual likeness: with names this short, two of four characters are a near miss.
        near = difflib.get_close_matches(name.lower(), known, cutoff=0.3) or list(known)
        raise SelectionError(f"no {what} {name!r}: did you mean {' or '.join(near)}? There are {', '.join(known)}")
    return known[name]
