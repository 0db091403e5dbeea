from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest
from factories import make_record, make_samples

from pytest_vq.measure.timing import DeviceFigures, MedianInterval, figures_of, paired_speedup
from pytest_vq.schema.record import Samples, TimedFigures


def taken(*blocks_ms: Sequence[float]) -> Samples:
    return make_samples(*blocks_ms).subject


def figures(values: Sequence[float], device_time_ms: float | None = None, **samples: Samples | None) -> TimedFigures:
    """The figures of one block of ``values``, of FP32 itself unless a ``reference`` is given."""
    pair = replace(make_samples(values), **{"reference": None, **samples})
    return figures_of(pair, DeviceFigures(100.0, device_time_ms))


def test_the_gate_gets_low_quantiles_of_the_pair_and_of_the_sentinel() -> None:
    found = figures([100.0 + i for i in range(41)], sentinel=taken([float(i) for i in range(41)]))
    assert (found.latency_q10_ms, found.sentinel_ms) == (104.0, 10.0)


def test_figures_are_of_all_samples_whatever_their_block() -> None:
    found = figures([], subject=taken([1.0, 9.0], [5.0], [3.0, 7.0]))
    assert (found.latency_ms, found.samples, found.stop_reason) == (5.0, 5, "interval")


def test_few_samples_leave_cells_empty() -> None:
    found = figures([5.0, 6.0, 7.0])
    assert found.latency_ms == 6.0
    assert found.latency_low_ms is found.latency_high_ms is None
    assert found.latency_p95_ms is found.latency_p99_ms is None


@pytest.mark.parametrize(
    ("n", "p95", "p99"), [(59, False, False), (60, True, False), (299, True, False), (300, True, True)]
)
def test_tails_need_their_number_of_samples(n: int, p95: bool, p99: bool) -> None:
    found = figures([float(i) for i in range(1, n + 1)])
    assert (found.latency_p95_ms is not None) == p95
    assert (found.latency_p99_ms is not None) == p99


def test_spread_is_robust_and_relative() -> None:
    rng = random.Random(0)
    values = [10 + 0.2 * rng.gauss(0, 1) for _ in range(2000)]
    values[:20] = [500.0] * 20
    assert figures(values).latency_cv == pytest.approx(0.02, rel=0.1)


def test_launch_bound_is_latency_well_above_device_time() -> None:
    assert figures([2.0] * 10, device_time_ms=1.7).launch_bound is True
    assert figures([2.0] * 10, device_time_ms=1.9).launch_bound is False
    assert figures([2.0] * 10).launch_bound is None


def test_what_was_measured_of_the_device_beside_the_samples_is_kept() -> None:
    found = figures_of(
        make_samples(),
        DeviceFigures(
            throughput_ips=100.0,
            device_time_ms=1.7,
            device_time_method="blocked queue",
            energy_per_image_mj=350.0,
            sm_clock_mhz=1980.0,
            power_mw=400_000.0,
        ),
    )
    assert (found.throughput_ips, found.device_time_ms, found.device_time_method) == (100.0, 1.7, "blocked queue")
    assert (found.energy_per_image_mj, found.sm_clock_mhz, found.power_mw) == (350.0, 1980.0, 400_000.0)


@pytest.mark.parametrize(
    ("own_ms", "fp32_ms", "speedup"), [(2.0, 5.0, 2.5), (2.0, None, None), (None, 5.0, None), (None, None, None)]
)
def test_a_device_speedup_needs_both_device_times(
    own_ms: float | None, fp32_ms: float | None, speedup: float | None
) -> None:
    found = figures_of(make_samples(), DeviceFigures(100.0, own_ms, reference_device_time_ms=fp32_ms))
    assert found.device_speedup == speedup


def test_the_references_own_device_speedup_is_1_where_it_has_a_device_time() -> None:
    assert figures([2.0] * 10, device_time_ms=1.7).device_speedup == 1.0
    assert figures([2.0] * 10).device_speedup is None


def test_speedup_is_the_median_of_adjacent_ratios() -> None:
    fp32 = taken(*([ms] for ms in (20.0, 40.0, 22.0, 20.0, 20.0, 21.0, 200.0)))
    int8 = taken(*([ms] for ms in (10.0, 20.0, 11.0, 10.0, 10.0, 10.0, 10.0)))
    speedup = paired_speedup(fp32, int8)
    assert speedup.value == 2.0
    assert speedup.low is not None
    assert speedup.low <= 2.0 <= speedup.high
    found = figures([], subject=int8, reference=fp32)
    assert (found.speedup, found.speedup_low, found.speedup_high) == (speedup.value, speedup.low, speedup.high)


def test_a_block_counts_once_however_many_samples_it_has() -> None:
    fp32, int8 = taken([30.0], [20.0, 22.0, 24.0]), taken([10.0, 11.0, 12.0, 10.0, 12.0], [11.0])
    assert paired_speedup(fp32, int8).value == pytest.approx((30 / 11 + 22 / 11) / 2)


def test_the_reference_is_exactly_as_fast_as_itself() -> None:
    found = figures([2.0] * 10)
    assert (found.speedup, found.speedup_low, found.speedup_high) == (1.0, 1.0, 1.0)


def test_every_figure_of_timing_is_a_cell_of_the_table() -> None:
    found = figures([2.0] * 10)
    assert asdict(found).items() <= replace(make_record(), timing=found).cells().items()


def test_a_median_of_few_values_has_no_interval() -> None:
    assert MedianInterval.of([1.0, 2.0, 3.0]) == MedianInterval(2.0, None, None)


def test_the_partners_median_stands_beside_the_speedup_that_is_over_it() -> None:
    samples = make_samples((10.0, 12.0), (11.0, 13.0))  # FP32 takes twice as long
    assert figures_of(samples, DeviceFigures(100.0)).reference_latency_ms == 23.0


def test_the_reference_itself_has_no_partner() -> None:
    samples = replace(make_samples(), reference=None)
    assert figures_of(samples, DeviceFigures(100.0)).reference_latency_ms is None
