"""The highest rate that a service carries within its bound, as a bracket. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_CLOSE = 1.1  # the bracket is narrow enough where its ends differ by this factor
_LEAST_SHARE = 1 / 64  # of the Offline rate: what does not carry that carries nothing worth a name


@dataclass(frozen=True, slots=True)
class Bracket:
    """Between which rates the highest lies that keeps the bound, in queries a second."""

    low: float  # the highest rate tried that kept it; 0 where none did
    high: float  # the lowest that did not, or the Offline rate where all did
    probes: Mapping[float, bool]  # rate -> whether it kept the bound


def search_rate(keeps: Callable[[float], bool], offline_qps: float) -> Bracket:
    """The bracket of the highest rate that ``keeps`` the bound, by halving ratios.

    A rate of ``offline_qps`` and more is not tried: more than it can do at once, no service can do for long.
    """
    low, high, probes = 0.0, offline_qps, dict[float, bool]()
    while high > low * _CLOSE and high > offline_qps * _LEAST_SHARE:
        rate = math.sqrt(low * high) if low else high / 2
        probes[rate] = keeps(rate)
        low, high = (rate, high) if probes[rate] else (low, rate)
    return Bracket(low, high, probes)
