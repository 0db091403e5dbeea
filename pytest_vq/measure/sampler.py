"""When is a workload warm, and when has it been timed enough? Pure: all it knows of the world is a ``Clock``.

Workloads alternate in blocks whose order is mirrored from one round to the next (A B, B A, ...), so that a machine that
slowly heats up or is slowly taken away touches all of them alike and cancels from their ratios.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pytest_vq.device.clock import Clock
from pytest_vq.execution.prepared import Request
from pytest_vq.measure.interval import median_interval
from pytest_vq.schema.record import Samples

Watching = Callable[[], None]

_WINDOW = 5  # calls in a window of the warm-up's trend test
_BRIEF = 3  # intervals: the first of a block pays for the caches that the others left cold
_RECHECK = 1.1  # the interval is looked at again when there are 10 % more samples: looking costs time too


@dataclass(frozen=True, slots=True)
class StopRule:
    """How long to warm up and to sample. The budget overrides every minimum but one warm-up call and one sample."""

    budget_s: float
    target: float = 0.005  # half-width of the median's 95 % interval, relative to the median
    min_samples: int = 30
    warmup_calls: int = 10
    warmup_s: float = 0.5  # of the first workload, which brings the machine to its clocks
    next_warmup: float = 0.2  # of that, of each further one
    brief_warmup: float = 0.1  # and of each brief one
    warmup_share: float = 0.25  # of the budget, at most, for the warm-up of all workloads
    block_ms: float = 20.0
    trend: float = 0.02  # two neighbouring windows that differ by less are no trend
    fixed: tuple[int, int] | None = None  # (warm-up, timed) calls: a protocol of counts instead of a target
    brief: frozenset[str] = frozenset()  # workloads that get a few intervals a block, to leave the time to the others

    @classmethod
    def study(cls, budget_s: float) -> StopRule:
        """The published study's protocol: 100 warm-up and 1,000 timed calls."""
        return cls(budget_s=budget_s, fixed=(100, 1000))

    @classmethod
    def of(cls, protocol: str, budget_s: float) -> StopRule:
        """The rule of the protocol of that name."""
        return cls.study(budget_s) if protocol == "study" else cls(budget_s=budget_s)


def _watch_nothing() -> None:
    """What is done between rounds where the device is not watched."""


def sample(
    requests: Mapping[str, Request], subject: str, clock: Clock, rule: StopRule, watch: Watching = _watch_nothing
) -> Mapping[str, Samples]:
    """Warm up all ``requests``, then time them in mirrored rounds until ``subject`` is known well enough.

    Each block is taken in its request's own context; ``watch`` is called before each round, when nothing is timed.
    Stops on the width of the subject's interval, never on a comparison: stopping when a difference looks significant
    would make differences look significant.
    """
    started = clock.now_s()
    with quiet_collector():
        plans = _warm_up_all(requests, clock, rule)
        blocks: dict[str, list[tuple[float, ...]]] = {name: [] for name in requests}
        times: list[float] = []  # the subject's
        order = list(requests)
        reason, look_at = None, 0
        while reason is None:
            watch()
            round_started = clock.now_s()
            for name in order:
                plan, request = plans[name], requests[name]
                intervals = plan.intervals
                if rule.fixed and name == subject:
                    intervals = min(intervals, rule.fixed[1] - len(times))
                with request.context():
                    block = clock.time_ms(request.call, intervals, plan.calls_per_interval)
                blocks[name].append(tuple(block))
                if name == subject:
                    times += block
            order.reverse()
            now = clock.now_s()
            if rule.fixed or len(times) >= look_at:
                look_at = math.ceil(len(times) * _RECHECK)
                reason = _enough(times, rule)
            # The next round will take as long as this one: do not start what the budget cannot hold.
            if reason is None and 2 * now - round_started - started > rule.budget_s:
                reason = "budget"
    return {name: Samples(tuple(blocks[name]), reason, plans[name].warmup_calls) for name in requests}


@dataclass(frozen=True, slots=True)
class _Plan:
    intervals: int  # timed intervals in one block
    calls_per_interval: int
    warmup_calls: int


def _warm_up_all(requests: Mapping[str, Request], clock: Clock, rule: StopRule) -> dict[str, _Plan]:
    """Warm up each of ``requests``, in order; what one of them did for the machine's clocks, the next need not do."""
    plans: dict[str, _Plan] = {}
    share = 1.0
    for name, request in requests.items():
        is_brief = name in rule.brief
        own = replace(rule, warmup_s=rule.warmup_s * (rule.brief_warmup if is_brief else share))
        plan = _warm_up(request, clock, own, len(requests))
        plans[name] = replace(plan, intervals=_BRIEF) if is_brief else plan
        share = share if is_brief else rule.next_warmup
    return plans


def _warm_up(request: Request, clock: Clock, rule: StopRule, requests: int) -> _Plan:
    """Call until warm: first the calls and seconds of the rule, then no trend. Returns the plan for its blocks."""
    started = clock.now_s()
    cap_s = rule.budget_s * rule.warmup_share / requests
    with request.context():
        times = clock.time_ms(request.call, 1)
        while not _is_warm(times, clock.now_s() - started, cap_s, rule):
            left = rule.fixed[0] - len(times) if rule.fixed else _WINDOW
            times += clock.time_ms(request.call, _calls_in(rule.block_ms, times[-1], at_most=min(left, _WINDOW)))
    if rule.fixed:
        return _Plan(_calls_in(rule.block_ms, times[-1]), 1, len(times))
    call_ms = statistics.median(times[-_WINDOW:])
    calls_per_interval = _calls_in(clock.shortest_ms, call_ms) if call_ms < clock.shortest_ms else 1
    intervals = _calls_in(rule.block_ms, call_ms * calls_per_interval)
    return _Plan(intervals, calls_per_interval, len(times))


def _calls_in(span_ms: float, call_ms: float, at_most: int = 10_000) -> int:
    return max(1, min(at_most, math.ceil(span_ms / max(call_ms, 1e-6))))


def _is_warm(times: list[float], elapsed_s: float, cap_s: float, rule: StopRule) -> bool:
    if elapsed_s >= cap_s:
        return True
    if rule.fixed:
        return len(times) >= rule.fixed[0]
    if len(times) < max(rule.warmup_calls, 2 * _WINDOW) or elapsed_s < rule.warmup_s:
        return False
    last, before = statistics.median(times[-_WINDOW:]), statistics.median(times[-2 * _WINDOW : -_WINDOW])
    return abs(last - before) <= rule.trend * before


def _enough(times: list[float], rule: StopRule) -> str | None:
    if rule.fixed:
        return "protocol" if len(times) >= rule.fixed[1] else None
    if len(times) < rule.min_samples:
        return None
    interval = median_interval(times)
    if interval is None:
        return None
    half_width = (interval[1] - interval[0]) / 2
    return "interval" if half_width <= rule.target * statistics.median(times) else None


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep the garbage collector out of the timed region; always restored."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
