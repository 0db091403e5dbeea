"""The verdict on whatever can be put under load: a model behind a server, in a cluster, or a service of one's own.

For a pair of the suite ``vq_serve`` does this, with a baseline beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_vq.schema.load_run import LoadPlan, LoadRun
from pytest_vq.schema.verdict import Status
from pytest_vq.serve.load import Served, run_load
from pytest_vq.serve.tails import PROCESSES, TailClaim, TailVerdict, judge_tail


@dataclass(frozen=True, slots=True)
class JudgedLoad:
    """A claim on a service, put to the test."""

    verdict: TailVerdict
    runs: tuple[LoadRun, ...]  # a process each
    offline_qps: float | None  # of Server: requests a second where all come at once


def judge_under_load(
    plan: LoadPlan, served: Served, *, load_engine: str | None = None, offline_queries: int = 1000
) -> JudgedLoad:
    """Whether ``served`` keeps the bound and percentile of ``plan``, by `PROCESSES` processes of that plan.

    Of Server one more process sends ``offline_queries`` at once before, for the utilisation: the service must be ready
    to let so many wait. Runs of which one does not count are INCONCLUSIVE. Raises what `run_load` raises, and
    ValueError for too few queries (at least 20 a process).
    """
    offline_qps = None
    if plan.scenario == "Server":
        # By intention nearly all wait: none is given up before the run is over, or the rate would come out too low.
        at_once = replace(
            plan, scenario="Offline", queries=offline_queries, target_qps=None, query_limit_s=plan.run_limit_s
        )
        offline_qps = run_load(at_once, served, load_engine).answered_per_s
    plans = [replace(plan, seed=plan.seed + number) for number in range(PROCESSES)]
    runs = tuple(run_load(one, served, load_engine) for one in plans)
    verdict = judge_tail(
        [run.violations() for run in runs], _utilisation(plan, offline_qps), TailClaim(plan.percentile)
    )
    invalid = next((run.invalid for run in runs if run.invalid), None)
    if invalid is not None:
        verdict = replace(verdict, status=Status.INCONCLUSIVE, reason=f"{verdict.reason}; cannot be judged: {invalid}")
    return JudgedLoad(verdict, runs, offline_qps)


def _utilisation(plan: LoadPlan, offline_qps: float | None) -> float:
    """The share of what it can do that is asked of it; 1 where it answered nothing."""
    if plan.target_qps is None:
        return 0.0
    return plan.target_qps / offline_qps if offline_qps else 1.0
