from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Iterator
from statistics import median

import pytest
from fake_clock import FakeClock

from pytest_vq.measure.sampler import StopRule, quiet_collector, sample


def steady(ms: float) -> Iterator[float]:
    return itertools.repeat(ms)


def noisy(ms: float, cv: float, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    return (ms * (1 + cv * rng.gauss(0, 1)) for _ in itertools.count())


def run(durations: dict[str, Iterator[float]], subject: str, rule: StopRule, brief: frozenset[str] = frozenset()):
    clock = FakeClock()
    workloads = {name: clock.workload(times) for name, times in durations.items()}
    return sample(workloads, subject, clock, rule, brief), clock


def test_a_steady_workload_stops_on_its_interval_with_the_minimum_of_samples() -> None:
    sampled, _ = run({"a": steady(10)}, "a", StopRule(budget_s=60))
    taken = sampled.samples["a"]
    assert taken.stop_reason == "interval"
    assert 30 <= len(taken.times_ms) <= 34
    assert set(taken.times_ms) == {10.0}


def test_a_noisy_workload_is_sampled_until_its_interval_is_narrow() -> None:
    quiet, _ = run({"a": noisy(10, 0.01)}, "a", StopRule(budget_s=60))
    loud, _ = run({"a": noisy(10, 0.05)}, "a", StopRule(budget_s=60))
    assert quiet.samples["a"].stop_reason == loud.samples["a"].stop_reason == "interval"
    assert len(loud.samples["a"].times_ms) > 5 * len(quiet.samples["a"].times_ms)


def test_the_budget_ends_what_never_becomes_narrow() -> None:
    sampled, clock = run({"a": noisy(10, 0.5)}, "a", StopRule(budget_s=4))
    assert sampled.samples["a"].stop_reason == "budget"
    assert 3.5 < clock.now_s() <= 4


def test_a_giant_gets_one_warm_up_call_and_one_sample_whatever_the_budget() -> None:
    sampled, _ = run({"fp32": steady(4_000), "fp16": steady(15_000)}, "fp16", StopRule(budget_s=4))
    assert sampled.samples["fp16"].warmup_calls == 1
    assert sampled.samples["fp16"].times_ms == (15_000.0,)
    assert sampled.samples["fp32"].times_ms == (4_000.0,)
    assert sampled.samples["fp16"].stop_reason == "budget"


def test_the_next_round_is_not_started_when_the_budget_cannot_hold_it() -> None:
    _, clock = run({"a": steady(1_500)}, "a", StopRule(budget_s=4))
    assert clock.now_s() == 3.0  # one warm-up call, one sample: a third call would end at 4.5 s


def test_warm_up_goes_on_while_calls_still_get_faster() -> None:
    def cooling() -> Iterator[float]:
        return (10 * (1 + 3 * 0.97**n) for n in itertools.count())

    sampled, _ = run({"a": cooling()}, "a", StopRule(budget_s=60))
    assert sampled.samples["a"].warmup_calls > 50
    assert max(sampled.samples["a"].times_ms) < 12


def test_warm_up_takes_ten_calls_and_half_a_second() -> None:
    slow, _ = run({"a": steady(200)}, "a", StopRule(budget_s=60))
    fast, _ = run({"a": steady(1)}, "a", StopRule(budget_s=60))
    assert 10 <= slow.samples["a"].warmup_calls <= 12
    assert 500 <= fast.samples["a"].warmup_calls <= 520


def test_calls_below_the_clocks_resolution_share_an_interval() -> None:
    sampled, _ = run({"a": steady(0.01)}, "a", StopRule(budget_s=60))
    assert sampled.samples["a"].times_ms == pytest.approx([0.01] * len(sampled.samples["a"].times_ms))


def test_drift_cancels_from_side_by_side_blocks() -> None:
    clock = FakeClock()

    def drifting(ms: float) -> Iterator[float]:  # the machine gets 10 % slower every second
        while True:
            yield ms * (1 + 0.1 * clock.now_s())

    workloads = {"a": clock.workload(drifting(20)), "b": clock.workload(drifting(10))}
    sampled = sample(workloads, "b", clock, StopRule(budget_s=8))
    a, b = sampled.block_medians_ms["a"], sampled.block_medians_ms["b"]
    assert len(a) == len(b) > 20
    assert median(x / y for x, y in zip(a, b, strict=True)) == pytest.approx(2.0, rel=2e-3)
    assert max(b) > 1.5 * min(b)


def test_order_is_mirrored_from_round_to_round() -> None:
    clock, calls = FakeClock(), []

    def workload(name: str):
        def call() -> None:
            calls.append(name)
            clock.now_ms += 50

        return call

    sample({"a": workload("a"), "b": workload("b")}, "b", clock, StopRule(budget_s=60, warmup_calls=1, warmup_s=0))
    timed = "".join(calls)[-40:]
    assert timed == "abba" * 10 or timed == "baab" * 10


def test_brief_workloads_get_few_intervals_a_block() -> None:
    rule = StopRule(budget_s=60)
    sampled, _ = run({"sentinel": steady(1), "a": steady(1)}, "a", rule, frozenset({"sentinel"}))
    blocks = len(sampled.block_medians_ms["a"])
    assert len(sampled.samples["sentinel"].times_ms) == 3 * blocks
    assert len(sampled.samples["a"].times_ms) == 20 * blocks


def test_the_study_protocol_counts_calls() -> None:
    sampled, _ = run({"fp32": noisy(3, 0.3), "a": noisy(2, 0.3, 1)}, "a", StopRule.study(float("inf")))
    taken = sampled.samples["a"]
    assert taken.stop_reason == "protocol"
    assert taken.warmup_calls == 100
    assert len(taken.times_ms) == 1000


def test_a_budget_bounds_the_study_protocol_too() -> None:
    sampled, clock = run({"a": steady(100)}, "a", StopRule.study(5))
    assert sampled.samples["a"].stop_reason == "budget"
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
