"""Load in virtual time: what ``run_load`` would return of a server whose batches take given lengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pytest_vq.schema.figures import Coverage, Identity, Preparation
from pytest_vq.schema.load_run import OK, REFUSED, LoadPlan, LoadRun, Requests
from pytest_vq.schema.served import BatchTime, ExecutedBatch, ServedFacts
from pytest_vq.schema.serving import OFFLINE, SERVER
from pytest_vq.serve.batching import BatchingPolicy
from pytest_vq.serve.serving_runs import Runs
from pytest_vq.serve.virtual_server import VirtualRun, poisson_arrivals, serve_virtually

_UNLIMITED = 10**9
_IDENTITY = Identity("virtual", "virtual", None, None, "fp32", "virtual time", "virtual", 1, None)


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A pair that is served in virtual time.

    ``seed`` fixes when requests come and how fast each process is: one process differs from the next by
    ``process_sigma``, of the logarithm of its service times.
    """

    policy: BatchingPolicy
    service_s: Callable[[int], float]  # a batch's size -> how long it takes
    slowdown: float = 1.0
    process_sigma: float = 0.0
    seed: int = 0

    def runs(self) -> Runs:
        """What puts a load on it."""
        return Runs(look_over=self.run, load=self.run, offline=self.run)

    def run(self, plan: LoadPlan) -> LoadRun:
        """What one process saw of ``plan``. Raises ValueError for MultiStream, which nobody simulates yet."""
        import numpy as np

        rate = 0 if plan.target_qps is None else round(1e3 * plan.target_qps)
        rng = np.random.default_rng([self.seed, plan.seed, plan.queries, rate])
        pace = self.slowdown * float(np.exp(self.process_sigma * rng.standard_normal()))

        def took_s(size: int, _: int = 0) -> float:
            return pace * self.service_s(size)

        if plan.scenario == SERVER:
            assert plan.target_qps is not None  # LoadPlan sees to it
            found = serve_virtually(poisson_arrivals(plan.target_qps, plan.queries, rng), self.policy, took_s)
        elif plan.scenario == OFFLINE:
            patient = BatchingPolicy(self.policy.max_batch_size, max_queue_size=_UNLIMITED)
            found = serve_virtually(np.zeros(plan.queries), patient, took_s)
        elif plan.scenario == "SingleStream":
            found = serve_virtually([n * took_s(1) for n in range(plan.queries)], BatchingPolicy(1), took_s)
        else:
            raise ValueError(f"{plan.scenario} is not simulated")
        return LoadRun(plan, "builtin", "virtual", _requests(found, plan), facts=self._facts(found, took_s))

    def _facts(self, found: VirtualRun, took_s: Callable[[int], float]) -> ServedFacts:
        sizes = [2**n for n in range(self.policy.max_batch_size.bit_length()) if 2**n <= self.policy.max_batch_size]
        times = tuple(BatchTime(size, 1e3 * took_s(size), size / took_s(size)) for size in sizes)
        waits_s = (found.start_s - found.arrival_s).tolist()
        waits = iter([wait for wait in waits_s if not math.isnan(wait)])
        executed = tuple(ExecutedBatch(tuple(next(waits) for _ in range(n)), took_s(n)) for n in found.batch_sizes)
        coverage = Coverage(eligible=None, quantized=None)
        return ServedFacts(_IDENTITY, coverage, Preparation(), "virtual", executed=executed, batch_times=times)


def _requests(found: VirtualRun, plan: LoadPlan) -> Requests:
    import numpy as np

    due_ns = np.rint(found.arrival_s * 1e9).astype(int)
    is_refused = np.isnan(found.finish_s)
    done_ns = np.where(is_refused, due_ns, np.rint(np.nan_to_num(found.finish_s) * 1e9).astype(int))
    number = len(due_ns)
    return Requests(
        query=(0,) * number if plan.scenario == OFFLINE else tuple(range(number)),
        sample=(0,) * number,
        scheduled_ns=tuple(due_ns.tolist()),
        sent_ns=tuple(due_ns.tolist()),
        completed_ns=tuple(done_ns.tolist()),
        outcome=tuple(REFUSED if refused else OK for refused in is_refused.tolist()),
    )
