"""The highest rate that a service carries within its bound, as a bracket. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Probes = Mapping[float, float | None]  # rate -> the share of its requests that were late; None: it could not be told

_CLOSE = 1.1  # the search ends where the next rate that is not surely kept is no farther than this factor
_LEAST_SHARE = 1 / 64  # of the Offline rate: what does not carry that carries nothing worth a name
# Of the share that may be late, what a rate that was tried for a few seconds may show to count as kept: of rates that
# miss the bound by a little, the luckiest would be taken otherwise.
_SURELY = 0.5


@dataclass(frozen=True, slots=True)
class Bracket:
    """Between which rates the highest lies that keeps the bound, in queries a second."""

    low: float  # the highest rate tried that kept it, with room to spare; 0 where none did
    high: float  # the lowest that did not, or the Offline rate where all did
    probes: Probes


def search_rate(
    late_share: Callable[[float], float | None], allowed: float, offline_qps: float, known: Probes | None = None
) -> Bracket:
    """The bracket of the highest rate at which no more than ``allowed`` of requests are late, by halving ratios.

    ``late_share`` tries a rate; None says that nothing can be told of it, which is neither kept nor missed. What is
    ``known`` already is not tried again. A rate of ``offline_qps`` and more is not tried: more than it can do at once,
    no service can do for long.
    """
    probes, surely = dict(known or {}), _SURELY * allowed
    doubtful = min([offline_qps, *(rate for rate, share in probes.items() if share is None or share > surely)])
    kept = [rate for rate, share in probes.items() if share is not None and share <= surely and rate < doubtful]
    low = max([0.0, *kept])
    while doubtful > low * _CLOSE and doubtful > offline_qps * _LEAST_SHARE:
        rate = math.sqrt(low * doubtful) if low else doubtful / 2
        probes[rate] = share = late_share(rate)
        if share is not None and share <= surely:
            low = rate
        else:
            doubtful = rate
    missed = [rate for rate, share in probes.items() if share is not None and share > allowed]
    return Bracket(low, min([offline_qps, *missed]), probes)
