"""``python -m bench.calibration.serving``: how often the serving verdicts are wrong, simulated; for the docs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pytest_vq.serve.batching import BatchingPolicy
from pytest_vq.serve.breaker import BreakerSettings
from pytest_vq.serve.evidence import ExceedanceEvidence, ShortfallEvidence
from pytest_vq.serve.rollout import PROMOTIONS, RolloutSettings
from pytest_vq.serve.tails import DEFAULT_CLAIM, PROCESSES, clopper_pearson, inflation_of
from pytest_vq.serve.virtual_server import poisson_arrivals, serve_virtually

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
REQUESTS = 10_000  # of a process
RUNS, BATCHED_RUNS = 1000, 300
SEEDS, EXECUTIONS = 1000, 2000
_PIECE = 50  # runs at a time: what fits into memory
_LOADGEN_CONFIDENCE = 0.99
BATCHING = BatchingPolicy(max_batch_size=8)


def batch_service_s(size: int, _: int) -> float:
    """How long the batching server of the simulation takes for a batch."""
    return 1e-3 + 0.25e-3 * size


@dataclass(frozen=True, slots=True)
class Judged:
    """How runs of ``PROCESSES`` processes were judged; arrays, a value a run."""

    passes: Flags
    fails: Flags
    inflation: Array
    loadgen_passes: Flags  # by the binomial test alone, of the first process
    loadgen_passes_all: Flags  # of all processes' requests together


def md1_latency(rho: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Latencies of M/D/1 queues that begin empty, in service times; the last axis is that of requests.

    Lindley's recursion, solved: the wait is how far the sum of (service - gap) lies above its lowest so far.
    """
    steps = 1.0 - rng.exponential(1 / rho, size=shape)
    steps[..., 0] = 0.0
    level = np.cumsum(steps, axis=-1)
    waits: Array = level - np.minimum.accumulate(level, axis=-1)
    return waits + 1.0


def batched_latency(rho: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Latencies (ms) of a server with the real batching policy, at ``rho`` of its rate with full batches."""
    most = BATCHING.max_batch_size
    rate_qps = rho * most / batch_service_s(most, 0)
    *runs, requests = shape
    flat = [
        serve_virtually(poisson_arrivals(rate_qps, requests, rng), BATCHING, batch_service_s).latency_ms
        for _ in range(int(np.prod(runs)))
    ]
    return np.array(flat).reshape(shape)


Queue = Callable[[float, tuple[int, ...], np.random.Generator], Array]


def judge_runs(latency: Array, bound: float) -> Judged:
    """Judge runs ``[runs, processes, requests]`` as `pytest_vq.serve.tails.judge_tail` does, all at once."""
    from scipy.stats import binom

    late = latency > bound
    count, requests = late.sum(axis=(-2, -1)), late.shape[-1] * late.shape[-2]
    inflation = inflation_of(late)
    allowed, claim = DEFAULT_CLAIM.violation_rate, DEFAULT_CLAIM
    low, high = clopper_pearson(count / inflation, requests / inflation, claim.confidence)
    passes = (high <= allowed) & (inflation <= claim.most_inflation)
    error = 1 - _LOADGEN_CONFIDENCE
    one = binom.cdf(late[:, 0].sum(axis=-1), late.shape[-1], allowed) <= error
    return Judged(passes, low > allowed, inflation, one, binom.cdf(count, requests, allowed) <= error)


def simulate_runs(queue: Queue, rho: float, runs: int, seed: int = 0) -> list[Array]:
    """Latencies of so many runs at ``rho``, in pieces."""
    rng = np.random.default_rng(seed)
    pieces = [min(_PIECE, runs - start) for start in range(0, runs, _PIECE)]
    return [queue(rho, (size, PROCESSES, REQUESTS), rng).astype(np.float32) for size in pieces]


def judge_at(latency: list[Array], true_rate: float) -> Judged:
    """The runs judged by the bound that ``true_rate`` of requests miss.

    It is the quantile of all of them together: each is too small a part of them to move it.
    """
    bound = float(np.quantile(np.concatenate([piece.ravel() for piece in latency]), 1 - true_rate))
    parts = [judge_runs(piece, bound) for piece in latency]
    return Judged(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Judged)))


def failing_streams(rate: float, together: int, seeds: int, executions: int, seed: int = 0) -> Array:
    """Failed shares ``[executions, seeds]`` of executions of 8 rows, of which ``together`` share their fate."""
    rng = np.random.default_rng(seed)
    groups = 8 // together
    return rng.binomial(groups, rate, size=(executions, seeds)) / groups


def opened_after(shares: Array, settings: BreakerSettings | None = None) -> Array:
    """For each stream the execution after which the breaker opens; infinite for never."""
    settings = settings or BreakerSettings()
    executions, seeds = shares.shape
    evidence = ExceedanceEvidence(settings.failure_rate_threshold)
    opened, row = np.full(seeds, np.inf), np.zeros(seeds)
    for number in range(executions):
        if np.isfinite(opened).all():
            break
        row = np.where(shares[number] == 1, row + 1, 0)
        alarms = (evidence.add(shares[number]) >= 1 / settings.false_alarm) | (row >= settings.failed_in_a_row)
        opened = np.where(alarms & np.isinf(opened), number + 1, opened)
    return opened


def promoted_after(shares: Array) -> Array:
    """For each stream the execution after which a rollout would leave its first stage; infinite for never."""
    settings = RolloutSettings()
    evidence = ShortfallEvidence(settings.failure_rate_threshold)
    after = np.full(shares.shape[1], np.inf)
    for number, share in enumerate(shares):
        proven = evidence.add(share) >= settings.enough_to_promote
        after = np.where(proven & np.isinf(after), number + 1, after)
    return after


def document(scale: float = 1.0) -> str:
    """Both tables, as markdown. ``scale`` multiplies the numbers of runs and seeds."""
    return "\n".join([*_tail_table(scale), "", *_breaker_table(scale), "", *_promotion_table(scale)]) + "\n"


def _tail_table(scale: float) -> Iterator[str]:
    yield (
        "| queue | utilisation | truly late | runs | PASS | FAIL | INCONCLUSIVE | variance inflation, median | "
        "binomial test passes: 10,000 / 50,000 requests |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, queue, runs in (("M/D/1", md1_latency, RUNS), ("batches of up to 8", batched_latency, BATCHED_RUNS)):
        for rho in (0.5, 0.7):
            latency = simulate_runs(queue, rho, max(int(runs * scale), 20))
            for true_rate in (0.005, 0.0025, 0.0075):
                judged = judge_at(latency, true_rate)
                passes, fails = judged.passes.mean(), judged.fails.mean()
                shares = " / ".join(_percent(x.mean()) for x in (judged.loadgen_passes, judged.loadgen_passes_all))
                cells = [name, f"{rho}", f"{100 * true_rate:g} %", f"{len(judged.passes):,}", _percent(passes)]
                cells += [_percent(fails), _percent(1 - passes - fails), f"{np.median(judged.inflation):.1f}", shares]
                yield _row(cells)


def _breaker_table(scale: float) -> Iterator[str]:
    yield "| failing rows | 8 rows of an execution fail | opened within 2,000 executions | median execution |"
    yield "|---|---|---|---|"
    for rate in (0.001, 0.005, 0.01, 0.02, 0.05, 0.2, 1.0):
        for together in (1, 8):
            shares = failing_streams(rate, together, max(int(SEEDS * scale), 50), EXECUTIONS)
            opened = opened_after(shares)
            how = "together" if together == 8 else "each by itself"
            yield _row([f"{100 * rate:g} %", how, _percent(np.isfinite(opened).mean()), _median(opened)])


def _promotion_table(scale: float) -> Iterator[str]:
    yield f"| failing rows | 8 rows of an execution fail | 1 of {PROMOTIONS} promotions proven within 2,000 | median |"
    yield "|---|---|---|---|"
    for rate in (0.0, 0.001, 0.003, 0.01):
        for together in (1, 8):
            after = promoted_after(failing_streams(rate, together, max(int(SEEDS * scale), 50), EXECUTIONS))
            how = "together" if together == 8 else "each by itself"
            yield _row([f"{100 * rate:g} %", how, _percent(np.isfinite(after).mean()), _median(after)])


def _median(after: Array) -> str:
    middle = np.median(after)
    return f"{middle:,.0f}" if np.isfinite(middle) else "never"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables; minutes on one core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the runs")
    sys.stdout.write(document(scale=0.05 if parser.parse_args().quick else 1.0))


if __name__ == "__main__":
    main()
