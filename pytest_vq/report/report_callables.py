"""A run's callables beside its pairs: told apart, and counted in words. Pure, and loaded by every run that measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_vq.schema.record import Record
from pytest_vq.wording import count


def callables_in(records: Iterable[Record]) -> list[Record]:
    """The last record of each callable in ``records``, in their order."""
    return list({record.id: record for record in records if record.setup.is_callable}.values())


def rows_in_words(records: Sequence[Record], which: str = "") -> str:
    """``4 pairs``, ``1 callable``, or ``4 pairs and 1 callable``; ``which`` stands before either noun."""
    callables = sum(record.setup.is_callable for record in records)
    pairs = len(records) - callables
    words = [count(pairs, f"{which}pair")] if pairs or not callables else []
    return " and ".join(words + ([count(callables, f"{which}callable")] if callables else []))
