"""The command that would tell more of a pair, or callable, as somebody could type it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_vq.catalog.models import all_models
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.options import OPTIONS, Options
from pytest_vq.schema.recipe import PREFIX
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import scheme_name

# What must be as it was for the same pair to be measured the same way again.
_KEPT = ("gpu", "weights", "protocol", "budget", "threads", "baselines")
_OUR_SUITE = "bench"
_OUR_SERVING = "bench/test_serving.py"
_SERVING = "--vq-serving"  # what measures pairs under load, where their tests are not ours


def measure_again(record: Record, options: Mapping[str, Any]) -> str:
    """Measures what ``record`` is of in as many fresh processes as a FAIL needs, as its run's ``options`` were.

    A row under load is always of several processes.
    """
    if record.setup.serving is not None:
        return _command([record], options, {})
    return _command([record], options, {"runs": max(DEFAULT.confirming_look, int(options.get("runs") or 1))})


def record_baselines(records: Iterable[Record], options: Mapping[str, Any]) -> str:
    """Measures the models, or the callables, of ``records`` and stores them, as their run's ``options`` were."""
    return _command(list(records), options, {"save": True})


def put_under_load(pairs: Iterable[Record], options: Mapping[str, Any]) -> str:
    """Measures ``pairs`` under load, in Poisson traffic, as their run's ``options`` were.

    Their batch and budget are left out: a request under load is one image, and seconds that time a pair by itself are
    too few for five processes of load.
    """
    kept = {name: value for name, value in options.items() if name != "budget"}
    return _command(list(pairs), kept, {"batch": (1,)}, under_load=True)


def show_baselines(records: Iterable[Record], device_slug: str, options: Mapping[str, Any]) -> str:
    """Shows with what the baselines of ``records`` on that device were measured; those were measured otherwise."""
    pairs = list(records)
    models = {record.identity.model for record in pairs}
    schemes = {record.setup.scheme for record in pairs}
    words = ["pytest-vq", "baselines", "show", models.pop() if len(models) == 1 else "*", f"--device={device_slug}"]
    words += [f"--precision={schemes.pop()}"] if len(schemes) == 1 else []
    kept = _kept(options)
    words += [f"--baselines={kept['baselines']}"] if "baselines" in kept else []
    return shlex.join(words)


def _command(
    records: Sequence[Record], options: Mapping[str, Any], chosen: Mapping[str, Any], *, under_load: bool = False
) -> str:
    """Of ``records`` that are of one kind: callables are selected by their tests."""
    default, known = Options(), all_models()
    given = _kept(options)
    words = ["pytest"]
    if all(record.setup.is_callable for record in records):
        words += dict.fromkeys(record.id for record in records)
    else:
        chosen = {**_selection(records, options), **chosen}
        is_ours = all(r.identity.model in known and not known[r.identity.model].is_local for r in records)
        if under_load or all(record.setup.serving is not None for record in records):
            words.append(_OUR_SERVING if is_ours else _SERVING)
        elif is_ours:
            words.append(_OUR_SUITE)
    for option in OPTIONS:
        value = {**given, **chosen}.get(option.field)
        if value is not None and value != getattr(default, option.field):
            words += option.spelled(value)
    return shlex.join(words)


def _selection(pairs: Sequence[Record], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that select ``pairs``, whose run had ``options``."""
    return {
        "models": ",".join(dict.fromkeys(record.identity.model for record in pairs)),
        "precisions": ",".join(dict.fromkeys(_scheme_as_given(record, options) for record in pairs)),
        "batch": tuple(sorted({record.setup.batch for record in pairs})),
    }


def _scheme_as_given(record: Record, options: Mapping[str, Any]) -> str:
    """The scheme of ``record`` as it is selected: by its name or, where it is a recipe, by the file in ``options``."""
    setup = record.setup
    if setup.recipe is not None:
        for item in str(options.get("precisions", "")).split(","):
            file = Path(item.removeprefix(PREFIX).removesuffix(f"+{setup.execution}"))
            if item.startswith(PREFIX) and scheme_name(f"recipe-{file.stem}", setup.execution) == setup.scheme:
                return scheme_name(f"{PREFIX}{file}", setup.execution)
    return setup.scheme


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's ``options`` that must be given again."""
    default = Options()
    given = {name: options[name] for name in _KEPT if name in options and options[name] != getattr(default, name)}
    # Stored absolute; the folder of that name at the root is where it is looked for anyway.
    if Path(str(given.get("baselines"))).name == str(default.baselines):
        del given["baselines"]
    return given
