"""Load without LoadGen, for machines that it has no wheel for: the same scenarios, with a Poisson schedule of our own.

Its arrivals are other ones than LoadGen's of the same seed, so that the engine is part of what makes runs comparable.
"""

from __future__ import annotations

import threading
import time

from pytest_vq.schema.load_run import LoadPlan, LoadRun, Requests, why_invalid
from pytest_vq.serve.endpoint import Service
from pytest_vq.serve.ledger import Ledger

VERSION = "1"


class _Completions:
    """When each request ended; it can be waited for."""

    def __init__(self) -> None:
        self.times_ns: dict[int, int] = {}
        self._changed = threading.Condition()

    def note(self, key: int) -> None:
        now_ns = time.perf_counter_ns()
        with self._changed:
            self.times_ns[key] = now_ns
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self.times_ns) >= number)


def run_builtin(plan: LoadPlan, service: Service) -> LoadRun:
    """One run of ``plan``."""
    import numpy as np

    random = np.random.default_rng(plan.seed)
    width = {"MultiStream": plan.samples_per_query, "Offline": plan.queries}.get(plan.scenario, 1)
    number = 1 if plan.scenario == "Offline" else plan.queries
    samples = random.integers(service.sample_count, size=(number, width)).tolist()
    ended = _Completions()
    scheduled_ns: list[int] = []
    with Ledger(service, plan, time.perf_counter_ns, ended.note) as ledger:
        start_ns = due_ns = time.perf_counter_ns()
        for query, asked in enumerate(samples):
            if plan.target_qps is None:  # the next one when the last one has ended
                ended.wait_for(len(scheduled_ns))
                due_ns = time.perf_counter_ns()
            elif query:
                due_ns += int(random.exponential(1e9 / plan.target_qps))
                time.sleep(max(0, due_ns - time.perf_counter_ns()) / 1e9)
            scheduled_ns += [due_ns - start_ns] * width
            ledger.send([(query * width + column, sample) for column, sample in enumerate(asked)])
        ended.wait_for(len(scheduled_ns))
    requests = Requests(
        query=tuple(key // width for key in range(len(scheduled_ns))),
        sample=tuple(entry.sample for entry in ledger.entries),
        scheduled_ns=tuple(scheduled_ns),
        sent_ns=tuple(entry.sent_ns - start_ns for entry in ledger.entries),
        completed_ns=tuple(ended.times_ns[key] - start_ns for key in range(len(scheduled_ns))),
        outcome=tuple(str(entry.outcome) for entry in ledger.entries),
    )
    return LoadRun(plan, "builtin", VERSION, requests, ledger.messages, why_invalid(plan, requests))
