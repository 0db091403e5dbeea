"""The decision on one pair: fresh processes against its baseline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from pytest_vq.gate import bounds, timed
from pytest_vq.gate.comparison import Case
from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.gate.stats import Noise
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.record import Setup
from pytest_vq.schema.verdict import MetricVerdict, Status, Tolerances, Verdict
from pytest_vq.wording import differences

BASELINE = "baseline"


def decide(
    candidates: Sequence[Estimates],
    setup: Setup,
    entries: Sequence[Entry],
    noise: Noise,
    tolerances: Tolerances,
    *,
    min_sqnr_db: float | None,
    disturbance: str | None = None,
    comparisons: int = 64,
    policy: Policy = DEFAULT,
) -> Verdict:
    """The verdict on ``candidates``, the fresh processes of one pair measured so far (at least one).

    ``entries`` are all baselines of the model on this device, ``noise`` what `stats.learn_noise` made of the device's.
    ``comparisons`` is the number of pairs in the suite, which share one error rate. ``min_sqnr_db`` is the precision's
    lower bound; the marker's replaces it. Where ``look_again`` is set, measure one more fresh process and decide on
    all of them; the status is then what it would be. Raises ValueError without a candidate.
    """
    if not candidates:
        raise ValueError("decide needs the estimates of at least one process")
    entry, obstacle = find(setup, entries)
    metrics = bounds.fidelity(candidates, setup, tolerances, min_sqnr_db)
    if entry is None:
        return Verdict.of([*metrics, obstacle] if obstacle else metrics)
    case = Case(tuple(candidates), entry, noise, tolerances, disturbance, comparisons, policy)
    clocked = [found for found in (timed.latency(case), timed.speedup(case)) if found is not None]
    memory = bounds.memory(candidates, entry, tolerances, policy)
    metrics += [verdict for verdict, _ in clocked]
    metrics += [verdict for verdict in (memory, bounds.model_size(candidates, entry, tolerances, policy)) if verdict]
    again = any(suspect for _, suspect in clocked) or _coarse_memory(case, memory)
    return _explained(replace(Verdict.of(metrics), look_again=again), entry, candidates[-1])


def find(setup: Setup, entries: Sequence[Entry]) -> tuple[Entry | None, MetricVerdict | None]:
    """The entry of ``setup``, or the verdict that says why there is none to compare with."""
    exact = next((e for e in entries if e.setup == setup and e.processes), None)
    if exact is not None:
        return exact, None
    alike = [e for e in entries if (e.setup.precision, e.setup.batch) == (setup.precision, setup.batch) and e.processes]
    if not alike:
        reason = f"no baseline for {setup.precision} at batch {setup.batch} on this device: record one with --vq-save"
        return None, MetricVerdict(BASELINE, Status.NO_BASELINE, reason)
    nearest = min((_unequal(setup, e.setup) for e in alike), key=len)
    reason = f"not comparable with the baseline: {', '.join(nearest)}; run it alike, or record this with --vq-save"
    return None, MetricVerdict(BASELINE, Status.INCOMPARABLE, reason)


def _unequal(here: Setup, there: Setup) -> list[str]:
    pairs = [(f.name, getattr(here, f.name), getattr(there, f.name)) for f in fields(Setup)]
    return [f"{name} {now} here, {before} in the baseline" for name, now, before in pairs if now != before]


def _coarse_memory(case: Case, memory: MetricVerdict | None) -> bool:
    """Resident memory on the CPU is coarse: its FAIL is confirmed like a slowdown. An allocator's count is exact."""
    if memory is None or case.entry.setup.threads is None or case.last_look:
        return False
    return memory.status is Status.FAIL


def _explained(verdict: Verdict, entry: Entry, now: Estimates) -> Verdict:
    """What differs between the baseline's latest process and this one is the first suspect of any change."""
    differs = differences(entry.processes[-1], now)
    if not differs or not verdict.reason:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; differs: {differs}")
