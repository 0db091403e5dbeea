"""What measuring each pair took: ``durations.json`` beside the baselines, committed with them.

Shards are cut by it. Seconds are kept for a kind of device, ``cpu`` or ``cuda``, and not for each card: a selection
must be cut alike on hosts whose cards differ. They only balance, so they are rounded, and stay where they changed
little: each change of the file is one for somebody to read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_vq.errors import BaselineError
from pytest_vq.files import acquire, lock_of, replace_file
from pytest_vq.schema.record import Environment, Record
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned

DURATIONS = "durations.json"
SCHEMA_VERSION = 1
_LOCK_TIMEOUT_S = 60.0
_DIGITS = 2
_KEPT_WITHIN = 1.25  # seconds that changed by less than this factor stay as they are

Durations = Mapping[str, Mapping[str, float]]  # kind of device -> id of a pair or callable -> seconds


@dataclass(frozen=True, slots=True)
class _Stored:
    schema_version: int
    durations_s: dict[str, dict[str, float]]


def read_durations(root: Path) -> Durations:
    """The durations beside the baselines in ``root``; none where none were kept.

    Raises BaselineError for a file that cannot be read, or is of a newer version.
    """
    import msgspec

    path = root / DURATIONS
    restore = f"restore it from git (git checkout -- {path}), or delete it: --vq-save writes it anew"
    try:
        raw, _ = read_versioned(path.read_bytes(), str(path), SCHEMA_VERSION, BaselineError)
        stored = msgspec.convert(raw, _Stored)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BaselineError(f"cannot read {path}: {error.strerror or error}") from error
    except NotJsonError as error:
        raise BaselineError(f"{error}: truncated, or an unfinished merge? {restore}") from error
    except (NoSchemaError, msgspec.ValidationError) as error:
        raise BaselineError(f"{path} does not hold durations: {error}; {restore}") from error
    for known in stored.durations_s.values():
        for pair, seconds in known.items():
            if not (math.isfinite(seconds) and seconds > 0):
                raise BaselineError(f"{path}: {seconds} s is no duration, of {pair}; {restore}")
    return stored.durations_s


def record_durations(root: Path, measured: Iterable[tuple[Record, Environment]]) -> None:
    """Keep what measuring those rows took, beside what is kept of others.

    Raises BaselineError where the file cannot be read or written.
    """
    taken = [(environment.device, record.id, seconds_of(record)) for record, environment in measured]
    path = root / DURATIONS
    lock, held = lock_of(root, "durations"), f"another process has held the lock of {path} for {_LOCK_TIMEOUT_S:.0f} s"
    acquire(lock, BaselineError, f"{held}; wait for it, or end it", _LOCK_TIMEOUT_S)
    try:
        before = read_durations(root)
        kept = {kind: dict(known) for kind, known in before.items()}
        for kind, pair, seconds in taken:
            if seconds is not None and not _is_close(seconds, kept.get(kind, {}).get(pair)):
                kept.setdefault(kind, {})[pair] = _rounded(seconds)
        if kept != before:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path.resolve(), _encoded(kept))  # a link stays a link
    except OSError as error:
        raise BaselineError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        lock.release()


def seconds_of(record: Record) -> float | None:
    """What measuring a row took, its model's building included where this row did that; None where it is not known."""
    held_s, build_s = record.effort.device_held_s, record.effort.build_s
    seconds = None if held_s is None else held_s + (build_s or 0.0)
    return seconds if seconds is not None and seconds > 0 else None


def _is_close(seconds: float, kept: float | None) -> bool:
    return kept is not None and 1 / _KEPT_WITHIN < seconds / kept < _KEPT_WITHIN


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{_DIGITS}g}")


def _encoded(durations: Durations) -> bytes:
    """A line a pair, all sorted: equal durations are equal files, and a new pair is a new line."""
    import msgspec

    stored = _Stored(SCHEMA_VERSION, {kind: dict(known) for kind, known in durations.items()})
    return msgspec.json.format(msgspec.json.Encoder(order="sorted").encode(stored), indent=1) + b"\n"
