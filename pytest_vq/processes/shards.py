"""How a selection is cut into shards: by what its pairs take, and by nothing that differs between hosts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from pytest_vq.schema.spec import CaseId

# Where nothing is known: all pairs count alike, and so do all under load, which take minutes each.
_UNKNOWN_S, _UNKNOWN_SERVING_S = 10.0, 300.0
_PER_SECOND = 1000  # sums are compared in whole milliseconds: rounding of sums must not move a pair


def expected_seconds(pairs: Sequence[CaseId], known: Mapping[str, float]) -> list[float]:
    """What each of ``pairs`` is expected to take, by what others of its kind do: by themselves, or under load.

    That is what it is known to take; else the mean of the model's selected pairs that are known; else the median of
    all that is known.
    """
    of_models: dict[tuple[str, bool], list[float]] = {}
    for pair in pairs:
        if str(pair) in known:
            of_models.setdefault((pair.model, pair.serving), []).append(known[str(pair)])
    means = {model: fmean(seconds) for model, seconds in of_models.items()}
    under_load = {str(pair) for pair in pairs if pair.serving}
    otherwise = {
        False: _median([seconds for pair, seconds in known.items() if pair not in under_load], _UNKNOWN_S),
        True: _median([known[pair] for pair in under_load & known.keys()], _UNKNOWN_SERVING_S),
    }
    return [known.get(str(pair), means.get((pair.model, pair.serving), otherwise[pair.serving])) for pair in pairs]


def _median(seconds: Sequence[float], otherwise: float) -> float:
    return median(seconds) if seconds else otherwise


def cut(seconds: Sequence[float], count: int) -> list[range]:
    """The places of ``seconds`` in ``count`` ranges that follow each other, the largest sum as small as can be.

    No range is empty unless there are fewer places than ranges.
    """
    weights = [round(one * _PER_SECOND) for one in seconds]
    low, high = max(weights, default=0), sum(weights)
    while low < high:
        middle = (low + high) // 2
        if _ranges_within(weights, middle) <= count:
            high = middle
        else:
            low = middle + 1
    return _filled(weights, count, low)


def _ranges_within(weights: Sequence[int], limit: int) -> int:
    """How many ranges it takes where none may sum to more than ``limit``, which each weight is within."""
    ranges, total = 1, 0
    for weight in weights:
        if total + weight > limit:
            ranges, total = ranges + 1, 0
        total += weight
    return ranges


def _filled(weights: Sequence[int], count: int, limit: int) -> list[range]:
    """``count`` ranges, each filled to ``limit``, but for one place that is left for each range after it."""
    ranges, end = [], 0
    for behind in reversed(range(count)):
        start, total = end, 0
        while end < len(weights) and (end == start or (total + weights[end] <= limit and len(weights) - end > behind)):
            total += weights[end]
            end += 1
        ranges.append(range(start, end))
    return ranges
