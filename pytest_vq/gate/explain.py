"""What changed inside a call that became slower: its operators now against those stored with its baseline. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pytest_vq.gate.bounds import MEMORY
from pytest_vq.schema.estimates import Operator
from pytest_vq.wording import size

TOP = 5
_NOTHING = Operator(calls=0, self_ms=0.0, self_bytes=0)
_SMALL = 0.01  # of the total: smaller changes explain nothing


def what_changed(
    failed: Collection[str], before: Mapping[str, Operator], now: Mapping[str, Operator], peak: Sequence[str]
) -> list[str]:
    """Why the metrics called ``failed`` did, in sentences; ``peak`` tells who holds the memory at the peak.

    Both tables are of one call.
    """
    sentences = explain(before, now) if set(failed) - {MEMORY} else []
    return [*sentences, *explain_memory(before, now), *peak] if MEMORY in failed else sentences


def explain(before: Mapping[str, Operator], now: Mapping[str, Operator]) -> list[str]:
    """What all operators take together, then up to five that appeared, vanished or changed, the largest change first.

    Both tables are of one call. Where the sum moved less than the measured time did, the rest lies between operators:
    Python, hooks, launches, waiting. Without a table of before there is nothing to compare with, and that is said.
    """
    if not before and not now:  # a callable need not be torch's
        return ["no operator of torch's ran, then or now: the time is spent in other code, which is not profiled"]
    if not before:
        return ["no operators are stored with this baseline: the next --vq-save stores them"]
    total_ms = sum(operator.self_ms for operator in before.values())
    change_ms = {name: _of(now, name).self_ms - _of(before, name).self_ms for name in {*before, *now}}
    largest = sorted(change_ms, key=lambda name: (-abs(change_ms[name]), name))
    telling = [name for name in largest if abs(change_ms[name]) >= _SMALL * total_ms][:TOP]
    now_ms = sum(operator.self_ms for operator in now.values())
    together = f"all operators together: {total_ms:.3g} → {now_ms:.3g} ms; what moved beyond that lies between them"
    return [together, *(_sentence(name, _of(before, name), _of(now, name), total_ms) for name in telling)]


def explain_memory(before: Mapping[str, Operator], now: Mapping[str, Operator]) -> list[str]:
    """Up to five operators that keep more memory than they did, the largest growth first.

    Both tables are of one call.
    """
    growth = {name: operator.self_bytes - _of(before, name).self_bytes for name, operator in now.items()}
    largest = sorted((name for name in growth if growth[name] > 0), key=lambda name: (-growth[name], name))
    return [
        f"{name} keeps {size(now[name].self_bytes)} that it allocates, {size(growth[name])} more than in the baseline"
        for name in largest[:TOP]
    ]


def _of(table: Mapping[str, Operator], name: str) -> Operator:
    return table.get(name, _NOTHING)


def _sentence(name: str, before: Operator, now: Operator, total_ms: float) -> str:
    change_ms = now.self_ms - before.self_ms
    share = f"{change_ms:+.3g} ms, {change_ms / total_ms:+.1%} of the total"
    if not before.calls:
        return f"{name} appeared: {now.calls:g} calls, {share}"
    if not now.calls:
        return f"{name} vanished: {before.calls:g} calls, {share}"
    calls = f"{now.calls:g} calls" if now.calls == before.calls else f"{before.calls:g} → {now.calls:g} calls"
    return f"{name}: {before.self_ms:.3g} → {now.self_ms:.3g} ms in {calls} ({share})"
