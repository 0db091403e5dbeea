"""What a scheme's name does not tell, for whatever shows that name. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_vq.schema.record import Record

_NOTES = {"int4": "int4 is NF4, bitsandbytes' 4-bit NormalFloat, and no integer type"}


def scheme_notes(precisions: Iterable[str]) -> list[str]:
    """A sentence for each of ``precisions`` whose name alone would mislead."""
    shown = set(precisions)
    return [note for name, note in _NOTES.items() if name in shown]


def notes_on(records: Iterable[Record]) -> list[str]:
    """Those for the precisions of ``records``."""
    return scheme_notes(record.setup.precision for record in records)
