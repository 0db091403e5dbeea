"""When a tail may be claimed: the floors, the bounds, and each way to an answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_vq.schema.verdict import Status
from pytest_vq.serve.tails import (
    TailClaim,
    binomial_passes,
    clopper_pearson,
    inflation_of,
    judge_tail,
    least_requests,
    plan_requests,
)


def scattered(late: int, requests: int = 10_000, processes: int = 5) -> list[list[bool]]:
    """In each process so many late, spread evenly: they depend on each other less than independent ones."""
    step = requests // late if late else requests + 1
    return [[number % step == step - 1 and number // step < late for number in range(requests)]] * processes


@pytest.mark.parametrize(
    ("late", "rate", "requests"), [(0, 0.005, 919), (1, 0.005, 1325), (0, 0.01, 459), (1, 0.01, 662)]
)
def test_floors_at_99_percent(late: int, rate: float, requests: int) -> None:
    assert least_requests(late, rate, 0.99) == requests
    assert binomial_passes(late, requests, rate, 0.99)
    assert not binomial_passes(late, requests - 1, rate, 0.99)


def test_the_floor_of_a_claim_is_1379_with_none_late() -> None:
    assert TailClaim().least_requests == 1379


def test_bounds_are_the_binomial_test_turned_round() -> None:
    low, high = clopper_pearson(3, 2000, 0.99)
    from scipy.stats import binom

    assert binom.cdf(3, 2000, high) == pytest.approx(0.01)
    assert binom.sf(2, 2000, low) == pytest.approx(0.01)
    assert clopper_pearson(0, 100, 0.99)[0] == 0.0
    assert clopper_pearson(100, 100, 0.99)[1] == 1.0


def test_requests_planned_fit_the_budget_and_divide_into_batches() -> None:
    assert plan_requests(budget_s=1e6, rate_qps=200) == 10_000
    assert plan_requests(budget_s=60, rate_qps=201.3) == 2410  # of 2,415.6
    with pytest.raises(ValueError, match="give at least 1 s"):
        plan_requests(budget_s=0.4, rate_qps=200)


def test_inflation_of_independent_requests_is_near_1_and_of_stalls_their_length() -> None:
    rng = np.random.default_rng(0)
    independent = rng.random((5, 10_000)) < 0.01
    assert inflation_of(independent) < 1.5
    stalls = np.repeat(rng.random((5, 500)) < 0.01, 20, axis=1)
    assert inflation_of(stalls) == pytest.approx(20, rel=0.5)


def test_inflation_is_1_where_none_is_late_and_counts_what_differs_between_processes() -> None:
    assert inflation_of(np.zeros((5, 1000), dtype=bool)) == 1.0
    assert inflation_of(np.ones((5, 1000), dtype=bool)) == 1.0
    one_bad = np.zeros((5, 1000), dtype=bool)
    one_bad[2, ::20] = True
    assert inflation_of(one_bad) > 4


def test_a_few_scattered_late_requests_pass() -> None:
    verdict = judge_tail(scattered(20), utilisation=0.5)
    assert verdict.status is Status.PASS
    assert (verdict.late, verdict.requests, verdict.inflation) == (100, 50_000, 1.0)
    assert verdict.violation_high == pytest.approx(float(clopper_pearson(100, 50_000, 0.999)[1]))
    assert "100 of 50,000 requests late (0.2 %" in verdict.reason


def test_many_late_requests_fail() -> None:
    verdict = judge_tail(scattered(100), utilisation=0.5)
    assert verdict.status is Status.FAIL
    assert verdict.violation_low > 0.005


def test_a_share_near_the_allowed_one_is_inconclusive() -> None:
    verdict = judge_tail(scattered(48), utilisation=0.5)
    assert verdict.status is Status.INCONCLUSIVE
    assert "the bounds hold the share allowed between them" in verdict.reason


def test_high_utilisation_never_passes_and_may_fail() -> None:
    assert judge_tail(scattered(0), utilisation=0.8).status is Status.PASS
    verdict = judge_tail(scattered(0), utilisation=0.81)
    assert verdict.status is Status.INCONCLUSIVE
    assert "utilisation 0.81" in verdict.reason
    assert judge_tail(scattered(100), utilisation=0.95).status is Status.FAIL


def stall(first: int, length: int, requests: int = 10_000) -> list[bool]:
    return [first <= number < first + length for number in range(requests)]


def test_few_long_stalls_never_pass_and_may_fail() -> None:
    calm = [False] * 10_000
    verdict = judge_tail([stall(500, 40), calm, calm, calm, calm], utilisation=0.5)
    assert verdict.inflation > 20
    assert verdict.status is Status.INCONCLUSIVE
    assert "variance inflation above 20" in verdict.reason
    lost = judge_tail([stall(500, 6000), stall(900, 6000), calm, stall(0, 6000), calm], utilisation=0.5)
    assert lost.inflation > 20
    assert lost.status is Status.FAIL


@pytest.mark.parametrize(("requests", "status"), [(270, Status.INCONCLUSIVE), (280, Status.PASS)])
def test_the_least_effective_requests(requests: int, status: Status) -> None:
    verdict = judge_tail(scattered(0, requests), utilisation=0.5)
    assert verdict.status is status
    assert ("1,350 effective requests, where 1,379 are needed" in verdict.reason) is (requests == 270)


def test_a_server_that_is_never_in_time_fails_however_few_requests() -> None:
    assert judge_tail([[True] * 100] * 5, utilisation=1.0).status is Status.FAIL


def test_another_percentile_has_another_floor() -> None:
    claim = TailClaim(percentile=99.0)
    assert claim.least_requests == math.ceil(math.log(0.001) / math.log(0.99))
    assert judge_tail(scattered(0, 140), utilisation=0.5, claim=claim).status is Status.PASS


@pytest.mark.parametrize(
    ("late", "message"),
    [
        ([[False] * 100] * 3, "3 processes"),
        ([], "0 processes"),
        ([[False] * 100] * 4, "4 processes"),
        ([[False] * 100] * 4 + [[False] * 99], r"unequal numbers of requests: \[99, 100\]"),
        ([[False] * 19] * 5, "19 requests a process: at least 20"),
    ],
)
def test_runs_of_the_wrong_shape_are_refused(late: list[list[bool]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge_tail(late, utilisation=0.5)


@pytest.mark.parametrize("settings", [{"percentile": 100}, {"confidence": 0.4}])
def test_claims_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TailClaim(**settings)
