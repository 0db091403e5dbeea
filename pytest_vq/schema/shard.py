"""A share of a selection, measured by one of several runs. Frozen values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SPELLED = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True, slots=True)
class Shard:
    """Which share of a selection a run measures: the ``number``-th of ``count``, from 1; of all, it is ``1/1``."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``text`` spells, ``2/3``. Raises ValueError where it spells none."""
        spelled = _SPELLED.fullmatch(text.strip())
        if spelled is None:
            raise ValueError(f"{text!r} is no shard; give its number and how many there are, as in 2/3")
        number, count = map(int, spelled.groups())
        if not 1 <= number <= count:
            raise ValueError(f"there is no shard {text.strip()}: their numbers go from 1 to how many there are")
        return cls(number, count)

    def __str__(self) -> str:
        """``2/3``."""
        return f"{self.number}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """True where the whole selection is measured by one run."""
        return self.count == 1


WHOLE = Shard()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a selection, in catalog order, a sharded run measures: ``here``, from the place ``first`` on."""

    shard: str
    total: int  # pairs and callables of the whole selection
    digest: str  # of their ids: shards are of one selection where it is the same
    first: int  # from 0
    here: tuple[str, ...]  # ids

    @classmethod
    def of(cls, shard: Shard, ids: Sequence[str], here: range) -> Selection:
        """The places ``here`` of ``ids``, which is all that was selected."""
        digest = hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()
        return cls(str(shard), len(ids), digest, here.start, tuple(ids[here.start : here.stop]))

    @property
    def words(self) -> str:
        """``shard 2/3: 8 of 24 pairs``."""
        return f"shard {self.shard}: {len(self.here)} of {self.total} pairs"
