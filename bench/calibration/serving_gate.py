"""``python -m bench.calibration.serving_gate``: what the gate of serving rows says of slower servers, simulated.

For docs/under-load.md. A server is put under load as the suite does, its rate searched and stored; later runs, each of
other arrivals and other processes, are judged at that rate.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.verdict import Status
from pytest_vq.serve.batching import BatchingPolicy
from pytest_vq.serve.serving_record import judged_tail
from pytest_vq.serve.serving_runs import BUDGET_S, Wanted, serve
from pytest_vq.serve.virtual_load import VirtualServer

RUNS = 20
SLOWDOWNS = (1.0, 1.1, 1.2, 1.3)
_PROCESS_SIGMA = 0.02  # how far processes of one server differ, in logs
_STATUSES = (Status.PASS, Status.INCONCLUSIVE, Status.FAIL)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of server, and the bound that it has to keep."""

    name: str
    max_batch_size: int
    latency_bound_ms: float
    service_s: Callable[[int], float]

    @property
    def terms(self) -> ServingTerms:
        """What it is asked."""
        bound_ms, most = self.latency_bound_ms, self.max_batch_size
        return ServingTerms("Server", "builtin", latency_bound_ms=bound_ms, max_batch_size=most)

    def server(self, seed: int) -> VirtualServer:
        """One of that kind."""
        policy = BatchingPolicy(self.max_batch_size)
        return VirtualServer(policy, self.service_s, process_sigma=_PROCESS_SIGMA, seed=seed)


KINDS = (
    Kind("batches of up to 8, 1 + 0.25 ms an image", 8, 10.0, lambda size: 1e-3 + 0.25e-3 * size),
    Kind("batches of up to 32, 0.5 + 0.1 ms an image", 32, 10.0, lambda size: 0.5e-3 + 0.1e-3 * size),
    Kind("batches of up to 8, 5.5 + 0.5 ms an image", 8, 20.0, lambda size: 5.5e-3 + 0.5e-3 * size),
    Kind("one at a time, 1 ms", 1, 10.0, lambda size: 1e-3 * size),
    Kind("one at a time, 4 ms", 1, 10.0, lambda size: 4e-3 * size),
)


@dataclass(frozen=True, slots=True)
class Gated:
    """How later runs of a kind were judged: slowdown -> status -> runs; and at which utilisations, least and most."""

    verdicts: Mapping[float, Counter[Status]]
    utilisation: tuple[float, float]


def gate_runs(
    kind: Kind, runs: int = RUNS, *, budget_s: float = BUDGET_S, slowdowns: Sequence[float] = SLOWDOWNS
) -> Gated:
    """Store a rate anew for each of ``runs``, and judge a later run at it for each of ``slowdowns``."""
    verdicts: dict[float, Counter[Status]] = {slowdown: Counter() for slowdown in slowdowns}
    used = []
    for number in range(runs):
        server = kind.server(seed=1000 + number)
        stored = serve(Wanted(kind.terms, budget_s=budget_s), server.runs())
        if stored.target_qps is None or stored.offline_qps is None:
            raise ValueError(f"{kind.name}: no rate keeps {kind.latency_bound_ms:g} ms")
        used.append(stored.target_qps / stored.offline_qps)
        for slowdown in slowdowns:
            later = replace(server, slowdown=slowdown, seed=number)
            wanted = Wanted(kind.terms, stored.target_qps, budget_s=budget_s)
            tail = judged_tail(serve(wanted, later.runs()), kind.terms)
            assert tail is not None  # a rate was given
            verdicts[slowdown][tail.status] += 1
    return Gated(verdicts, (min(used), max(used)))


def document(runs: int = RUNS) -> Iterator[str]:
    """The table, line by line, as markdown."""
    slower = " | ".join(
        "unchanged" if slowdown == 1 else f"{100 * (slowdown - 1):.0f} % slower" for slowdown in SLOWDOWNS
    )
    yield f"| a batch takes | bound | utilisation at the stored rate | {slower} |"
    yield "|---" * (3 + len(SLOWDOWNS)) + "|"
    for kind in KINDS:
        gated = gate_runs(kind, runs)
        cells = [" / ".join(str(gated.verdicts[slowdown][status]) for status in _STATUSES) for slowdown in SLOWDOWNS]
        low, high = gated.utilisation
        yield f"| {kind.name} | {kind.latency_bound_ms:g} ms | {low:.2f} … {high:.2f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    for line in document():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
