"""A run's callables and pairs under load beside its pairs: told apart, and counted in words. Pure.

Loaded by every run that measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_vq.schema.record import Record
from pytest_vq.schema.setup import Setup
from pytest_vq.wording import count


def callables_in(records: Iterable[Record]) -> list[Record]:
    """The last record of each callable in ``records``, in their order."""
    return list({record.id: record for record in records if record.setup.is_callable}.values())


def serving_in(records: Iterable[Record]) -> list[Record]:
    """The last record of each pair under load in ``records``, in their order.

    One pair may be served in several ways, and each of them has a row: scenarios, say.
    """
    served = [record for record in records if record.setup.serving is not None]
    return list({(record.case_id, record.setup): record for record in served}.values())


def rows_in_words(records: Sequence[Record], which: str = "") -> str:
    """``4 pairs``, or ``3 pairs, 2 under load and 1 callable``; ``which`` stands before each noun."""
    return setups_in_words([record.setup for record in records], which)


def setups_in_words(setups: Sequence[Setup], which: str = "") -> str:
    """The same of what was measured with ``setups``."""
    callables = sum(setup.is_callable for setup in setups)
    served = sum(setup.serving is not None for setup in setups)
    pairs = len(setups) - callables - served
    words = [count(pairs, f"{which}pair")] if pairs or not setups else []
    if served:
        words.append(f"{served} {which}under load" if pairs else f"{count(served, f'{which}pair')} under load")
    words += [count(callables, f"{which}callable")] if callables else []
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
