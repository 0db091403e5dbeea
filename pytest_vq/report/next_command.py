"""The command that would tell more of a pair, as somebody could type it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_vq.catalog.models import all_models
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.options import OPTIONS, Options
from pytest_vq.schema.record import Record

# What must be as it was for the same pair to be measured the same way again.
_KEPT = ("gpu", "weights", "protocol", "budget", "threads", "baselines")
_OUR_SUITE = "bench"


def measure_again(record: Record, options: Mapping[str, Any]) -> str:
    """Measures the pair of ``record`` in as many fresh processes as a FAIL needs, as its run's ``options`` were."""
    setup = record.setup
    chosen = {"models": record.identity.model, "precisions": setup.scheme, "batch": (setup.batch,)}
    return _command([record], options, chosen | {"runs": max(DEFAULT.confirming_look, int(options.get("runs") or 1))})


def record_baselines(records: Iterable[Record], options: Mapping[str, Any]) -> str:
    """Measures the models of ``records`` and stores them, as their run's ``options`` were."""
    pairs = list(records)
    models = ",".join(dict.fromkeys(record.identity.model for record in pairs))
    schemes = ",".join(dict.fromkeys(record.setup.scheme for record in pairs))
    batches = tuple(sorted({record.setup.batch for record in pairs}))
    return _command(pairs, options, {"models": models, "precisions": schemes, "batch": batches, "save": True})


def _command(records: Iterable[Record], options: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    default, known = Options(), all_models()
    given = {name: options[name] for name in _KEPT if name in options and options[name] != getattr(default, name)}
    # Stored absolute; the folder of that name at the root is where it is looked for anyway.
    if Path(str(given.get("baselines"))).name == str(default.baselines):
        del given["baselines"]
    words = ["pytest"]
    if all(record.identity.model in known and not known[record.identity.model].is_local for record in records):
        words.append(_OUR_SUITE)
    for option in OPTIONS:
        value = {**given, **chosen}.get(option.field)
        if value is not None and value != getattr(default, option.field):
            words += option.spelled(value)
    return shlex.join(words)
