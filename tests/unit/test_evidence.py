"""Evidence that may be looked at for ever: equal to its definition, quiet at the threshold, quick above it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from calibrations import importable_calibrations

from pytest_vq.serve.evidence import ExceedanceEvidence, ShortfallEvidence


@pytest.fixture(scope="module")
def serving() -> Iterator[Any]:
    with importable_calibrations() as calibration:
        yield calibration("serving")


def by_definition(shares: list[float]) -> float:
    stakes, n = (0.5, 1, 2, 4, 8, 16, 32, 64, 90), len(shares)
    total = 0.0
    for stake in stakes:
        for k in range(1, n + 1):
            total += math.prod(1 + stake * (x - 0.01) for x in shares[k - 1 :]) / (k * (k + 1))
    return total / len(stakes) + 1 / (n + 1)


def test_the_recursion_is_the_sum_over_all_starts() -> None:
    shares = [0.0, 0.125, 0.0, 1.0, 0.0, 0.0, 0.25, 0.0, 0.0, 1.0, 0.5]
    evidence = ExceedanceEvidence(0.01)
    for n, share in enumerate(shares, start=1):
        assert evidence.add(share) == pytest.approx(by_definition(shares[:n]), rel=1e-12)


def test_a_clean_past_does_not_make_it_deaf() -> None:
    evidence = ExceedanceEvidence(0.01)
    for _ in range(1000):
        evidence.add(0.0)
    needed = next(n for n in range(1, 100) if evidence.add(1.0) >= 100)
    assert needed <= 6


def test_other_thresholds_cannot_ruin_either() -> None:
    for rate in (0.001, 0.05, 0.5):
        evidence = ExceedanceEvidence(rate)
        assert all(evidence.add(0.0) > 0 for _ in range(50))
        below = ShortfallEvidence(rate)
        assert all(below.add(1.0) > 0 for _ in range(50))


@pytest.mark.parametrize("kind", [ExceedanceEvidence, ShortfallEvidence])
@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_rates_that_are_none_are_refused(kind: type, rate: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        kind(rate)


@pytest.mark.parametrize("together", [1, 2, 8])
def test_a_stream_at_the_threshold_trips_in_1_percent_of_seeds_at_most(serving: Any, together: int) -> None:
    opened = serving.opened_after(serving.failing_streams(0.01, together, seeds=1000, executions=2000, seed=5))
    assert np.isfinite(opened).mean() <= 0.01


def test_two_percent_of_exceptions_trip_within_1500_executions_at_the_median(serving: Any) -> None:
    opened = serving.opened_after(serving.failing_streams(0.02, 8, seeds=1000, executions=2000, seed=5))
    assert np.median(opened) <= 1500


def test_below_is_proven_of_no_failures_and_hardly_ever_at_the_threshold(serving: Any) -> None:
    clean = serving.promoted_after(np.zeros((1000, 1)))
    assert clean[0] < 800
    for together in (1, 8):
        at = serving.promoted_after(serving.failing_streams(0.01, together, seeds=1000, executions=2000, seed=5))
        assert np.isfinite(at).mean() <= 0.0025 + 0.005  # a fourth of 1 %, and three standard errors of this test


def test_proof_without_end_stays_finite_and_yields_to_failures() -> None:
    evidence = ShortfallEvidence(0.01)
    for _ in range(100_000):
        evidence.add(0.0)
    assert evidence.value < 1e13
    for _ in range(400):
        evidence.add(1.0)
    assert evidence.value < 400
