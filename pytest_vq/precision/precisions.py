"""Which precisions there are. A new one is one entry here and one module; importing this loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from pytest_vq.errors import SelectionError
from pytest_vq.schema.spec import FP32, PrecisionSpec

Spec = TypeVar("Spec")

GROUPS = ("study", "best", "all")  # of schemes, where precisions may be named
local_precisions: dict[str, PrecisionSpec] = {}  # filled by register_precision, while conftest files are imported

TF32_SWITCHES = "pytest_vq.precision.fp32:tf32"

_LLM_INT8_WAITS = "LLM.int8 looks for outliers on the host in every layer, which"
_TORCHAO_WAITS = "torchao's eager 8-bit product waits for the GPU in every layer (ao#4872), which"

# The bounds leave room below what the precisions reach. On trained vision transformers that is 55, 21 and 16 dB at
# fp16, int8 and int4. On random models, from DeiT-Tiny and MobileViT to ViT-Huge, it is at least 31 at bf16, 30 at
# int8wo, 27 at int8dyn (22 on a CPU without VNNI), 19 at fp8 and 9.5 at int4wo (its rounding, without its kernel);
# outliers of trained models cost most where activations are rounded to integers with a scale a row. A single layer of
# Gaussian weights must reach half of what it does, far above what a wrong kernel gives (about 0).
_PRECISIONS = (
    PrecisionSpec(FP32, min_sqnr_db=None, dtype="float32"),
    PrecisionSpec(
        "tf32",
        min_sqnr_db=45.0,
        dtype="float32",
        method="torch.float32, multiplied in TF32",
        switches=TF32_SWITCHES,
        refusal="pytest_vq.precision.requirements:tf32_refusal",
    ),
    PrecisionSpec("fp16", min_sqnr_db=40.0, dtype="float16"),
    PrecisionSpec("bf16", min_sqnr_db=27.0, dtype="bfloat16"),
    PrecisionSpec(
        "fp8",
        min_sqnr_db=14.0,
        method="torchao Float8DynamicActivationFloat8Weight, E4M3 per row",
        layer="pytest_vq.precision.torchao_layers:fp8_layer",
        check="pytest_vq.precision.torchao_check:fp8_fault",
        min_layer_sqnr_db=14.0,
        max_bits=8,
        accelerator_rest="bfloat16",  # per row it takes no other type
        refusal="pytest_vq.precision.requirements:fp8_refusal",
    ),
    PrecisionSpec(
        "int8",
        min_sqnr_db=18.0,
        method="bitsandbytes LLM.int8",
        layer="pytest_vq.precision.bnb:int8_layer",
        check="pytest_vq.precision.bnb_check:int8_fault",
        min_layer_sqnr_db=20.0,
        max_bits=8,
        not_under={
            "compile": f"{_LLM_INT8_WAITS} leaves no whole graph to compile: take int8dyn+compile",
            "graph": f"{_LLM_INT8_WAITS} a CUDA graph cannot record: take int8dyn+compile+graph",
            "compile+graph": f"{_LLM_INT8_WAITS} a CUDA graph cannot record: take int8dyn+compile+graph",
        },
    ),
    PrecisionSpec(
        "int8dyn",
        min_sqnr_db=15.0,
        method="torchao Int8DynamicActivationInt8Weight, per row",
        layer="pytest_vq.precision.torchao_layers:int8dyn_layer",
        check="pytest_vq.precision.torchao_check:int8dyn_fault",
        min_layer_sqnr_db=20.0,
        max_bits=8,
        accelerator_rest="bfloat16",
        cpu_rest="float32",  # 1.2 to 1.6 times as fast there as BF16, even where a CPU computes in that
        refusal="pytest_vq.precision.requirements:int8dyn_refusal",
        not_under={"graph": f"{_TORCHAO_WAITS} a CUDA graph cannot record: take int8dyn+compile+graph"},
    ),
    PrecisionSpec(
        "int8wo",
        min_sqnr_db=24.0,
        method="torchao Int8WeightOnly, per row",
        layer="pytest_vq.precision.torchao_layers:int8wo_layer",
        check="pytest_vq.precision.torchao_check:int8wo_fault",
        min_layer_sqnr_db=20.0,
        max_bits=8,
        accelerator_rest="bfloat16",
        cpu_rest="float32",  # 1.2 to 1.6 times as fast there as BF16, even where a CPU computes in that
        refusal="pytest_vq.precision.requirements:int8wo_refusal",
    ),
    PrecisionSpec(
        "int4",
        min_sqnr_db=8.0,
        method="bitsandbytes NF4",
        layer="pytest_vq.precision.bnb:nf4_layer",
        check="pytest_vq.precision.bnb_check:nf4_fault",
        min_layer_sqnr_db=10.0,
        coarser_than="int8",
        max_bits=4,
    ),
    PrecisionSpec(
        "int4wo",
        min_sqnr_db=6.0,
        method="torchao Int4WeightOnly, groups of 128",
        layer="pytest_vq.precision.torchao_layers:int4wo_layer",
        check="pytest_vq.precision.torchao_check:int4wo_fault",
        min_layer_sqnr_db=10.0,
        coarser_than="int8wo",
        max_bits=4,
        accelerator_rest="bfloat16",  # its kernel takes no other type
        refusal="pytest_vq.precision.requirements:int4wo_refusal",
    ),
)


def all_precisions() -> dict[str, PrecisionSpec]:
    """Every precision by name: ours, widest first, then the user's in the order of registration."""
    return {spec.name: spec for spec in (*_PRECISIONS, *local_precisions.values())}


def precision_place(name: str) -> int:
    """Where a table has the precision called ``name``: ours, widest first, then all others in one place.

    So it is the same where the user's are not registered, as in a report that is made of stored results.
    """
    names = [spec.name for spec in _PRECISIONS]
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
