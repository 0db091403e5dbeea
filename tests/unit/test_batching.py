"""Dynamic batching: the policy in virtual time, and the thread that follows it."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from pytest_vq.errors import BatcherClosedError, MeasurementError, QueueFullError
from pytest_vq.schema.served import ExecutedBatch
from pytest_vq.serve.batching import Batcher, BatchingPolicy
from pytest_vq.serve.virtual_server import poisson_arrivals, serve_virtually

TIMEOUT_S = 20


def steady(seconds: float):
    return lambda size, number: seconds


def test_nobody_waits_while_the_device_is_idle() -> None:
    run = serve_virtually([0.0, 0.010, 0.011, 0.012, 0.030], BatchingPolicy(8), steady(0.005))
    assert run.batch_sizes == (1, 1, 2, 1)  # the two that came while it was busy go together
    assert run.start_s.tolist() == pytest.approx([0.0, 0.010, 0.015, 0.015, 0.030])
    assert run.latency_ms.tolist() == pytest.approx([5, 5, 9, 8, 5])


def test_the_delay_is_counted_from_the_oldest_request() -> None:
    policy = BatchingPolicy(8, max_queue_delay_microseconds=10_000)
    run = serve_virtually([0.0, 0.009, 0.0101], policy, steady(0.001))
    assert run.start_s.tolist() == pytest.approx([0.010, 0.010, 0.0201])


def test_a_full_batch_waits_for_no_delay() -> None:
    policy = BatchingPolicy(2, max_queue_delay_microseconds=100_000)
    run = serve_virtually([0.0, 0.003, 0.004], policy, steady(0.001))
    assert run.start_s.tolist() == pytest.approx([0.003, 0.003, 0.104])
    assert run.batch_sizes == (2, 1)


def test_no_request_waits_longer_than_the_delay_for_an_idle_device() -> None:
    rng = np.random.default_rng(0)
    policy = BatchingPolicy(32, max_queue_delay_microseconds=100_000)
    run = serve_virtually(poisson_arrivals(100, 2000, rng), policy, steady(1e-6))
    assert np.max(run.start_s - run.arrival_s) <= 0.1 + 1e-6


def test_what_no_longer_fits_the_queue_is_refused() -> None:
    run = serve_virtually([0.0, 0.1, 0.2, 0.3, 1.5], BatchingPolicy(1, max_queue_size=2), steady(1.0))
    assert run.refused == 1
    assert run.latency_ms.tolist() == pytest.approx([1000, 1900, 2800, np.inf, 2500])


@pytest.mark.parametrize(("most", "p995_ms_below"), [(1, None), (8, 10.0)])
def test_800_queries_a_second_against_1_55_ms_a_batch(most: int, p995_ms_below: float | None) -> None:
    arrivals = poisson_arrivals(800, 10_000, np.random.default_rng(1))
    run = serve_virtually(arrivals, BatchingPolicy(most, max_queue_size=100_000), steady(1.55e-3))
    p995_ms = float(np.quantile(run.latency_ms, 0.995))
    if p995_ms_below is None:
        assert p995_ms > 1000  # 1.24 of what one at a time can do: the queue grows for ever
    else:
        assert p995_ms < p995_ms_below


def test_one_stall_of_300_ms_lifts_p95_above_100_ms() -> None:
    arrivals = poisson_arrivals(200, 500, np.random.default_rng(2))
    calm = serve_virtually(arrivals, BatchingPolicy(1), steady(2e-3))
    stalled = serve_virtually(arrivals, BatchingPolicy(1), lambda size, number: 0.3 if number == 250 else 2e-3)
    assert np.quantile(calm.latency_ms, 0.95) < 10
    assert np.quantile(stalled.latency_ms, 0.95) > 100


@pytest.mark.parametrize(
    ("settings", "name"),
    [((0,), "max_batch_size"), ((1, -1), "max_queue_delay_microseconds"), ((1, 0, 0), "max_queue_size")],
)
def test_policies_that_make_no_sense_are_refused(settings: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        BatchingPolicy(*settings)


class Gate:
    """An executor that waits to be let through, so that requests pile up behind its first batch."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, requests: list[int]) -> list[int]:
        self.batches.append(requests)
        self.entered.set()
        assert self.open.wait(TIMEOUT_S)
        return [10 * request for request in requests]


@pytest.mark.parametrize("most", range(1, 33))
def test_answers_go_to_their_requests(most: int) -> None:
    gate, told = Gate(), []
    with Batcher(gate, BatchingPolicy(most), told.append) as batcher:
        first = batcher.submit(0)
        assert gate.entered.wait(TIMEOUT_S)
        futures = [batcher.submit(number) for number in range(1, 70)]
        gate.open.set()
        assert [future.result(TIMEOUT_S) for future in [first, *futures]] == [10 * number for number in range(70)]
    assert [len(batch) for batch in gate.batches] == [1] + [most] * (69 // most) + [69 % most] * (69 % most > 0)
    assert [batch.size for batch in told] == [len(batch) for batch in gate.batches]
    assert all(wait_s >= 0 for batch in told for wait_s in batch.queue_s)


def test_an_exception_reaches_the_callers_of_its_batch_alone() -> None:
    def execute(requests: list[int]) -> list[int]:
        if 1 in requests:
            raise RuntimeError("a kernel refused")
        return requests

    with Batcher(execute, BatchingPolicy(1)) as batcher:
        futures = [batcher.submit(number) for number in range(3)]
        with pytest.raises(RuntimeError, match="a kernel refused"):
            futures[1].result(TIMEOUT_S)
        assert [futures[number].result(TIMEOUT_S) for number in (0, 2)] == [0, 2]


def test_an_executor_that_ends_its_thread_leaves_no_caller_waiting() -> None:
    def execute(requests: list[int]) -> list[int]:
        raise SystemExit

    with Batcher(execute, BatchingPolicy(4)) as batcher:
        for _ in range(2):
            with pytest.raises(SystemExit):
                batcher.submit(1).result(TIMEOUT_S)


def test_too_few_answers_are_an_error() -> None:
    with (
        Batcher(lambda requests: requests[:-1], BatchingPolicy(4)) as batcher,
        pytest.raises(MeasurementError, match="a batch of 1 requests got 0 answers"),
    ):
        batcher.submit(1).result(TIMEOUT_S)


def test_an_observer_that_raises_is_seen() -> None:
    def observe(batch: ExecutedBatch) -> None:
        raise ValueError("no such metric")

    with Batcher(list, BatchingPolicy(4), observe) as batcher, pytest.raises(ValueError, match="no such metric"):
        batcher.submit(1).result(TIMEOUT_S)


def test_a_full_queue_refuses_by_name() -> None:
    gate = Gate()
    with Batcher(gate, BatchingPolicy(4, max_queue_size=2)) as batcher:
        batcher.submit(0)
        assert gate.entered.wait(TIMEOUT_S)
        waiting = [batcher.submit(number) for number in (1, 2)]
        with pytest.raises(QueueFullError, match="2 requests wait already"):
            batcher.submit(3)
        gate.open.set()
        assert [future.result(TIMEOUT_S) for future in waiting] == [10, 20]


def test_a_cancelled_request_is_not_executed() -> None:
    gate = Gate()
    with Batcher(gate, BatchingPolicy(4)) as batcher:
        batcher.submit(0)
        assert gate.entered.wait(TIMEOUT_S)
        given_up, kept = batcher.submit(1), batcher.submit(2)
        assert given_up.cancel()
        gate.open.set()
        assert kept.result(TIMEOUT_S) == 20
        with pytest.raises(CancelledError):
            given_up.result(TIMEOUT_S)
    assert gate.batches == [[0], [2]]


def test_closing_answers_who_waits_without_the_delay_and_refuses_others() -> None:
    batcher = Batcher(list, BatchingPolicy(8, max_queue_delay_microseconds=3_600_000_000))
    waiting = [batcher.submit(number) for number in range(3)]
    batcher.close()
    assert [future.result(0) for future in waiting] == [0, 1, 2]
    with pytest.raises(BatcherClosedError, match="closed"):
        batcher.submit(3)
    batcher.close()  # twice is once
