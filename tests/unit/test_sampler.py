from __future__ import annotations

import contextlib
import gc
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import pytest
from fake_clock import FakeClock

from pytest_vq.device.clock import EventClock
from pytest_vq.execution.prepared import Request
from pytest_vq.measure.sampler import StopRule, quiet_collector, sample


def steady(ms: float) -> Iterator[float]:
    return itertools.repeat(ms)


def noisy(ms: float, cv: float, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    return (ms * (1 + cv * rng.gauss(0, 1)) for _ in itertools.count())


def run(durations: dict[str, Iterator[float]], subject: str, rule: StopRule):
    clock = FakeClock()
    requests = {name: Request(clock.workload(times)) for name, times in durations.items()}
    return sample(requests, subject, clock, rule), clock


def test_a_steady_workload_stops_on_its_interval_with_the_minimum_of_samples() -> None:
    sampled, _ = run({"a": steady(10)}, "a", StopRule(budget_s=60))
    taken = sampled["a"]
    assert taken.stop_reason == "interval"
    assert 30 <= len(taken.times_ms) <= 34
    assert set(taken.times_ms) == {10.0}


def test_a_noisy_workload_is_sampled_until_its_interval_is_narrow() -> None:
    quiet, _ = run({"a": noisy(10, 0.01)}, "a", StopRule(budget_s=60))
    loud, _ = run({"a": noisy(10, 0.05)}, "a", StopRule(budget_s=60))
    assert quiet["a"].stop_reason == loud["a"].stop_reason == "interval"
    assert len(loud["a"].times_ms) > 5 * len(quiet["a"].times_ms)


def test_the_budget_ends_what_never_becomes_narrow() -> None:
    sampled, clock = run({"a": noisy(10, 0.5)}, "a", StopRule(budget_s=4))
    assert sampled["a"].stop_reason == "budget"
    assert 3.5 < clock.now_s() <= 4


def test_a_giant_gets_one_warm_up_call_and_one_sample_whatever_the_budget() -> None:
    sampled, _ = run({"fp32": steady(4_000), "fp16": steady(15_000)}, "fp16", StopRule(budget_s=4))
    assert sampled["fp16"].warmup_calls == 1
    assert sampled["fp16"].times_ms == (15_000.0,)
    assert sampled["fp32"].times_ms == (4_000.0,)
    assert sampled["fp16"].stop_reason == "budget"


def test_each_side_gets_an_untimed_call_whatever_the_budget() -> None:
    sampled, _ = run({"fp32": steady(10_000), "a": steady(40_000)}, "a", StopRule(budget_s=1))
    assert {name: (taken.warmup_calls, len(taken.times_ms)) for name, taken in sampled.items()} == {
        "fp32": (1, 1),
        "a": (1, 1),
    }


def test_the_next_round_is_not_started_when_the_budget_cannot_hold_it() -> None:
    _, clock = run({"a": steady(1_500)}, "a", StopRule(budget_s=4))
    assert clock.now_s() == 3.0  # one warm-up call, one sample: a third call would end at 4.5 s


def test_warm_up_goes_on_while_calls_still_get_faster() -> None:
    def cooling() -> Iterator[float]:
        return (10 * (1 + 3 * 0.97**n) for n in itertools.count())

    sampled, _ = run({"a": cooling()}, "a", StopRule(budget_s=60))
    assert sampled["a"].warmup_calls > 50
    assert max(sampled["a"].times_ms) < 12


def test_warm_up_takes_ten_calls_and_half_a_second() -> None:
    slow, _ = run({"a": steady(200)}, "a", StopRule(budget_s=60))
    fast, _ = run({"a": steady(1)}, "a", StopRule(budget_s=60))
    assert 10 <= slow["a"].warmup_calls <= 12
    assert 500 <= fast["a"].warmup_calls <= 520


def test_only_the_first_workload_warms_up_for_as_long_as_the_machine_needs() -> None:
    rule = StopRule(budget_s=60, brief=frozenset({"sentinel"}))
    sampled, _ = run({"sentinel": steady(1), "fp32": steady(1), "a": steady(1)}, "a", rule)
    assert 50 <= sampled["sentinel"].warmup_calls <= 55  # a brief one, a tenth
    assert 500 <= sampled["fp32"].warmup_calls <= 505
    assert 100 <= sampled["a"].warmup_calls <= 105  # a fifth: the machine is at its clocks


def test_a_further_workload_needs_its_calls_and_no_trend_all_the_same() -> None:
    def cooling() -> Iterator[float]:
        return (10 * (1 + 3 * 0.97**n) for n in itertools.count())

    sampled, _ = run({"fp32": steady(1), "slow": steady(200), "a": cooling()}, "a", StopRule(budget_s=60))
    assert sampled["slow"].warmup_calls == 10
    assert sampled["a"].warmup_calls > 50


def test_the_device_is_watched_before_each_round_and_never_while_something_is_timed() -> None:
    clock = FakeClock()

    def watch() -> None:
        clock.now_ms += 300

    requests = {"a": Request(clock.workload(steady(10))), "b": Request(clock.workload(steady(5)))}
    sampled = sample(requests, "b", clock, StopRule(budget_s=60), watch)
    assert set(sampled["a"].times_ms) == {10.0}
    assert set(sampled["b"].times_ms) == {5.0}
    warm_up_ms = sum(ms * sampled[name].warmup_calls for name, ms in (("a", 10), ("b", 5)))
    rounds = len(sampled["b"].blocks_ms)
    assert clock.now_ms == pytest.approx(warm_up_ms + rounds * (300 + 20 + 20))


def test_calls_below_the_clocks_resolution_share_an_interval() -> None:
    sampled, _ = run({"a": steady(0.01)}, "a", StopRule(budget_s=60))
    assert sampled["a"].times_ms == pytest.approx([0.01] * len(sampled["a"].times_ms))


def test_on_an_accelerator_short_requests_are_timed_one_at_a_time() -> None:
    clock = FakeClock()
    clock.shortest_ms = EventClock.shortest_ms
    sampled = sample({"a": Request(clock.workload(steady(0.1)))}, "a", clock, StopRule(budget_s=60))
    assert {len(block) for block in sampled["a"].blocks_ms} == {200}  # blocks of 20 ms


def test_drift_cancels_from_side_by_side_blocks() -> None:
    clock = FakeClock()

    def drifting(ms: float) -> Iterator[float]:  # the machine gets 10 % slower every second
        while True:
            yield ms * (1 + 0.1 * clock.now_s())

    requests = {"a": Request(clock.workload(drifting(20))), "b": Request(clock.workload(drifting(10)))}
    sampled = sample(requests, "b", clock, StopRule(budget_s=8))
    a, b = sampled["a"].block_medians_ms, sampled["b"].block_medians_ms
    assert len(a) == len(b) > 20
    ratios = [x / y for x, y in zip(a, b, strict=True)][: len(a) // 2 * 2]  # as many in each order
    assert median(ratios) == pytest.approx(2.0, rel=1e-3)
    assert max(b) > 1.5 * min(b)


def test_order_is_mirrored_from_round_to_round() -> None:
    clock, calls = FakeClock(), []

    def request(name: str) -> Request:
        def call() -> None:
            calls.append(name)
            clock.now_ms += 50

        return Request(call)

    rule = StopRule(budget_s=60, warmup_calls=1, warmup_s=0)
    sampled = sample({"a": request("a"), "b": request("b")}, "b", clock, rule)
    rounds = len(sampled["b"].times_ms)  # a block of 20 ms is one call here
    assert rounds > 20
    assert "".join(calls)[-2 * rounds :] == ("abba" * rounds)[: 2 * rounds]


def test_brief_workloads_get_few_intervals_a_block() -> None:
    rule = StopRule(budget_s=60, brief=frozenset({"sentinel"}))
    sampled, _ = run({"sentinel": steady(1), "a": steady(1)}, "a", rule)
    blocks = len(sampled["a"].blocks_ms)
    assert len(sampled["sentinel"].times_ms) == 3 * blocks
    assert len(sampled["a"].times_ms) == 20 * blocks


def test_the_study_protocol_counts_calls() -> None:
    sampled, _ = run({"fp32": noisy(3, 0.3), "a": noisy(2, 0.3, 1)}, "a", StopRule.study(float("inf")))
    taken = sampled["a"]
    assert taken.stop_reason == "protocol"
    assert taken.warmup_calls == 100
    assert len(taken.times_ms) == 1000


def test_a_budget_bounds_the_study_protocol_too() -> None:
    sampled, clock = run({"a": steady(100)}, "a", StopRule.study(5))
    assert sampled["a"].stop_reason == "budget"
    assert clock.now_s() <= 5


def test_the_collector_is_restored_after_an_error() -> None:
    assert gc.isenabled()

    def failing() -> None:
        with quiet_collector():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with quiet_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


class Switch:
    """A global switch, and who was called while it was on and while it was off."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.is_on = False
        self.times_entered = 0
        self.called: set[tuple[str, bool]] = set()

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        assert not self.is_on
        self.is_on = True
        self.times_entered += 1
        try:
            yield
        finally:
            self.is_on = False

    def call(self, name: str, ms: float = 5.0):
        def run() -> None:
            self.called.add((name, self.is_on))
            self.clock.now_ms += ms

        return run


@pytest.mark.parametrize("rule", [StopRule(budget_s=60), StopRule.study(60), StopRule(budget_s=0.001)])
def test_a_request_is_called_in_its_own_context_and_the_others_outside_it(rule: StopRule) -> None:
    switch = Switch(FakeClock())
    requests = {
        "fp32": Request(switch.call("fp32")),
        "mine": Request(switch.call("mine"), switch.context),
        "sentinel": Request(switch.call("sentinel")),
    }
    sampled = sample(requests, "mine", switch.clock, replace(rule, brief=frozenset({"sentinel"})))
    assert switch.called == {("fp32", False), ("mine", True), ("sentinel", False)}
    assert switch.times_entered == 1 + len(sampled["mine"].blocks_ms)  # for the warm-up, and for each block


def test_warming_up_is_done_in_the_context_too() -> None:
    switch = Switch(FakeClock())
    during: list[bool] = []

    def call() -> None:
        during.append(switch.is_on)
        switch.clock.now_ms += 5

    sampled = sample({"mine": Request(call, switch.context)}, "mine", switch.clock, StopRule(budget_s=60))
    assert sampled["mine"].warmup_calls > 10
    assert during == [True] * (sampled["mine"].warmup_calls + len(sampled["mine"].times_ms))


def test_contexts_of_two_requests_are_never_open_together() -> None:
    clock = FakeClock()
    first, second = Switch(clock), Switch(clock)
    together: list[bool] = []

    def call() -> None:
        together.append(first.is_on and second.is_on)
        clock.now_ms += 5

    requests = {"a": Request(call, first.context), "b": Request(call, second.context)}
    sample(requests, "b", clock, StopRule(budget_s=60))
    assert not any(together)
    assert first.times_entered == second.times_entered > 2


def test_entering_and_leaving_a_context_is_not_timed() -> None:
    clock = FakeClock()

    @contextlib.contextmanager
    def slow() -> Iterator[None]:
        clock.now_ms += 300
        yield
        clock.now_ms += 300

    sampled = sample({"a": Request(clock.workload(steady(10)), slow)}, "a", clock, StopRule(budget_s=60))
    assert set(sampled["a"].times_ms) == {10.0}


@pytest.mark.parametrize("good_calls", [0, 25, 120], ids=["first call", "warming up", "timed"])  # warm after 100
def test_a_context_is_left_when_its_request_fails(good_calls: int) -> None:
    switch = Switch(FakeClock())
    left = iter(range(good_calls))

    def call() -> None:
        switch.clock.now_ms += 5
        if next(left, None) is None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sample({"mine": Request(call, switch.context)}, "mine", switch.clock, StopRule(budget_s=60))
    assert not switch.is_on
    assert gc.isenabled()


def test_what_is_returned_holds_every_block_of_every_request() -> None:
    sampled, _ = run({"a": steady(10), "b": steady(5)}, "b", StopRule(budget_s=60))
    assert list(sampled) == ["a", "b"]
    assert len(sampled["a"].blocks_ms) == len(sampled["b"].blocks_ms)
    assert {len(block) for block in sampled["a"].blocks_ms} == {2}  # blocks of 20 ms
    assert {len(block) for block in sampled["b"].blocks_ms} == {4}
    assert sampled["b"].block_medians_ms == (5.0,) * len(sampled["b"].blocks_ms)
