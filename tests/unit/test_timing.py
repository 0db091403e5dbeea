from __future__ import annotations

import random

import pytest

from pytest_vq.measure.sampler import Sampled
from pytest_vq.measure.timing import Estimate, PairTimes, paired_speedup
from pytest_vq.schema.record import COLUMNS, Samples


def times(values, **fields) -> PairTimes:
    taken = Samples(tuple(values), "interval", 10)
    defaults = {"sentinel": taken, "speedup": None, "throughput_ips": 100.0, "device_time_ms": None}
    return PairTimes(**{"samples": taken, **defaults, **fields})


def test_the_gate_gets_low_quantiles_of_the_pair_and_of_the_sentinel() -> None:
    sentinel = Samples(tuple(float(i) for i in range(41)), "interval", 10)
    columns = times([100.0 + i for i in range(41)], sentinel=sentinel).columns()
    assert (columns["latency_q10_ms"], columns["sentinel_ms"]) == (104.0, 10.0)


def test_few_samples_leave_cells_empty() -> None:
    columns = times([5.0, 6.0, 7.0]).columns()
    assert columns["latency_ms"] == 6.0
    assert columns["latency_low_ms"] is columns["latency_high_ms"] is None
    assert columns["latency_p95_ms"] is columns["latency_p99_ms"] is None


@pytest.mark.parametrize(
    ("n", "p95", "p99"), [(59, False, False), (60, True, False), (299, True, False), (300, True, True)]
)
def test_tails_need_their_number_of_samples(n: int, p95: bool, p99: bool) -> None:
    columns = times([float(i) for i in range(n)]).columns()
    assert (columns["latency_p95_ms"] is not None) == p95
    assert (columns["latency_p99_ms"] is not None) == p99


def test_spread_is_robust_and_relative() -> None:
    rng = random.Random(0)
    values = [10 + 0.2 * rng.gauss(0, 1) for _ in range(2000)]
    values[:20] = [500.0] * 20
    assert times(values).columns()["latency_cv"] == pytest.approx(0.02, rel=0.1)


def test_launch_bound_is_latency_well_above_device_time() -> None:
    assert times([2.0] * 10, device_time_ms=1.7).columns()["launch_bound"] is True
    assert times([2.0] * 10, device_time_ms=1.9).columns()["launch_bound"] is False
    assert times([2.0] * 10).columns()["launch_bound"] is None


def test_speedup_is_the_median_of_adjacent_ratios() -> None:
    blocks = {"fp32": (20.0, 40.0, 22.0, 20.0, 20.0, 21.0, 200.0), "int8": (10.0, 20.0, 11.0, 10.0, 10.0, 10.0, 10.0)}
    speedup = paired_speedup(Sampled({}, blocks), "fp32", "int8")
    assert speedup.value == 2.0
    assert speedup.low is not None
    assert speedup.low <= 2.0 <= speedup.high


def test_the_reference_is_exactly_as_fast_as_itself() -> None:
    columns = times([2.0] * 10).columns()
    assert (columns["speedup"], columns["speedup_low"], columns["speedup_high"]) == (1.0, 1.0, 1.0)


def test_every_column_of_timing_is_one_of_the_table() -> None:
    assert set(times([2.0] * 10).columns()) <= set(COLUMNS)


def test_an_estimate_of_few_values_has_no_interval() -> None:
    assert Estimate.of([1.0, 2.0, 3.0]) == Estimate(2.0, None, None)
