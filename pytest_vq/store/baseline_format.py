"""How one baseline file reads on disk: JSON laid out so that git shows an append as added lines.

Each process's estimates take one line, and commas lead a line instead of ending the one before: appending a process
adds a line and touches no other (while the anchor is still growing, it adds the same line there too). Keys are sorted,
entries too, so equal baselines are equal files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pytest_vq.errors import BaselineError
from pytest_vq.files import file_name, name_in
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned, upgraded_setup

CALLABLES = "callables"  # the folder of those of tests' own code, in a device's
SCHEMA_VERSION = 2  # 1 had neither execution nor type of the rest in its setups
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SUFFIX = ".json"
_SELDOM = ("recipe", "serving")
_POSITIVE = ("samples", "model_size_bytes")


@dataclass(frozen=True, slots=True)
class BaselineFile:
    """The content of ``<device>/<model>.json``, or of ``<device>/callables/<quoted id of a test>.json``."""

    device: str
    device_name: str
    model: str  # or the id of a callable's test
    entries: tuple[Entry, ...]
    schema_version: int = SCHEMA_VERSION


def path_of(root: Path, device_slug: str, name: str) -> Path:
    """The file of a model, or of a test's callable, on a device.

    Names become one path component each: none can lead outside ``root``. Raises BaselineError on a slug that is not a
    plain directory name, and on a name that is empty or not valid Unicode.
    """
    if not name:
        raise BaselineError("a model without a name cannot have a baseline: register it under a name")
    directory = device_directory(root, device_slug)
    try:
        return (directory / CALLABLES if _is_test_id(name) else directory) / file_name(name, _SUFFIX)
    except ValueError as error:
        raise BaselineError(f"baselines of {name!r}: a name that is not valid Unicode ({error})") from error


def _is_test_id(name: str) -> bool:
    """Whether ``name`` is a test's id: pytest joins its parts so, and no model's name has such a mark."""
    return "::" in name


def device_directory(root: Path, device_slug: str) -> Path:
    """The directory of one device's baselines. Raises BaselineError on a slug that is not a plain directory name."""
    if not _SLUG.fullmatch(device_slug):
        raise BaselineError(f"{device_slug!r} is no device slug (letters, digits, '.', '_' and '-'): see {root}")
    return root / device_slug


def baseline_files(directory: Path) -> Iterator[Path]:
    """The files that hold baselines in ``directory``, a device's. Raises OSError where it cannot be read."""
    callables = directory / CALLABLES
    for folder in (directory, *((callables,) if callables.is_dir() else ())):
        yield from (path for path in folder.iterdir() if path.suffix == _SUFFIX and not path.name.startswith("."))


def name_of_file(path: Path) -> str:
    """The model or the test whose baselines ``path`` holds; read from it where its own name was too long for that.

    Raises OSError where it cannot be read, and BaselineError as `decode` does.
    """
    name = name_in(path.name.removesuffix(_SUFFIX))
    return decode(path.read_bytes(), path).model if name is None else name


def encode(stored: BaselineFile) -> bytes:
    """``stored`` as the bytes of its file. Raises BaselineError on figures no baseline can hold (not finite ...)."""
    import msgspec

    _check(stored)
    line = msgspec.json.Encoder(order="sorted").encode
    entries = "\n,".join(_entry_text(entry, line) for entry in sorted(stored.entries, key=lambda e: _order(e.setup)))
    try:
        head = f'"device":{_text(line, stored.device)},\n"device_name":{_text(line, stored.device_name)}'
        tail = f'"model":{_text(line, stored.model)},\n"schema_version":{stored.schema_version}'
    except UnicodeEncodeError as error:
        raise BaselineError(f"baselines of {stored.model!r}: a name that is not valid Unicode ({error})") from error
    return f'{{{head},\n"entries":[\n {entries}\n],\n{tail}}}\n'.encode()


def decode(data: bytes, path: Path) -> BaselineFile:
    """The baselines in ``data``, read from ``path``. Raises BaselineError naming the file, and what to do about it."""
    import msgspec

    restore = f"restore it from git (git checkout -- {path}), or delete it and record anew with --vq-save"
    try:
        raw, version = read_versioned(data, str(path), SCHEMA_VERSION, BaselineError)
    except NotJsonError as error:
        raise BaselineError(f"{error}: truncated, or an unfinished merge? {restore}") from error
    except NoSchemaError as error:
        raise BaselineError(f"{path} is not a baseline file: {error}; {restore}") from error
    try:
        # What is written next is of this version, whatever this was.
        stored = msgspec.convert(_upgraded(raw, version), BaselineFile)
        _check(stored)
    except (msgspec.ValidationError, BaselineError) as error:
        raise BaselineError(f"{path} is not a valid baseline file ({error}); {restore}") from error
    return stored


def _upgraded(raw: dict[str, Any], version: int) -> dict[str, Any]:
    entries = raw.get("entries")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            entry["setup"] = upgraded_setup(entry.get("setup"), version)
    return raw | {"schema_version": SCHEMA_VERSION}


def _check(stored: BaselineFile) -> None:
    setups = [entry.setup for entry in stored.entries]
    if len(set(setups)) != len(setups):
        raise BaselineError(f"two entries of {stored.model} have the same setup")
    for entry in stored.entries:
        if not entry.processes or not entry.anchor.estimates:
            raise BaselineError(f"an entry of {stored.model} at {entry.setup.scheme} has no process or no anchor")
        for estimates in (*entry.anchor.estimates, *entry.processes):
            _check_figures(estimates, f"{stored.model} at {entry.setup.scheme}")


def _check_figures(estimates: Estimates, whose: str) -> None:
    """JSON would turn NaN into "not measured", and the gate takes logarithms: neither may get in."""
    for field in fields(estimates):
        value = getattr(estimates, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BaselineError(f"{whose}: {field.name} is {value}, which is not a figure")
        timed = field.name.endswith("_ms") or field.name.startswith("speedup") or field.name in _POSITIVE
        if timed and value is not None and value <= 0:
            raise BaselineError(f"{whose}: {field.name} is {value}, which is not above 0")


def _entry_text(entry: Entry, line: Any) -> str:
    anchor = entry.anchor
    operators = f'"operators":{_text(line, entry.operators)},\n  ' if entry.operators else ""
    return (
        f'{{"anchor":{{"date_utc":{_text(line, anchor.date_utc)},"estimates":[\n'
        f'{_lines(anchor.estimates, line)}\n  ],"reason":{_text(line, anchor.reason)}}},\n'
        f'  {operators}"processes":[\n{_lines(entry.processes, line)}\n  ],\n'
        f'  "setup":{_setup_text(line, entry.setup)}}}'
    )


def _lines(estimates: tuple[Estimates, ...], line: Any) -> str:
    return "   " + "\n  ,".join(_text(line, one) for one in estimates)


def _text(line: Any, value: Any) -> str:
    encoded: bytes = line(value)
    return encoded.decode()


def _setup_text(line: Any, setup: Setup) -> str:
    """Without what most setups lack: then the line is as it was before there were recipes and serving rows."""
    return _text(line, {name: value for name, value in asdict(setup).items() if name not in _SELDOM or value})


def _order(setup: Setup) -> tuple[str, str, str, int, str, str, int, bool, str, str]:
    threads = -1 if setup.threads is None else setup.threads
    rest, weights = setup.rest or "", setup.weights or ""
    recipe, serving = setup.recipe or "", "" if setup.serving is None else repr(setup.serving)
    protocol, tf32 = setup.protocol, setup.tf32
    return setup.precision, setup.execution, rest, setup.batch, protocol, weights, threads, tf32, recipe, serving
