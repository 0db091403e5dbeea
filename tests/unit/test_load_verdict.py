"""A verdict on what is served elsewhere, by the same scenarios, percentiles and rule as a pair's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from v2_server import v2_server

from pytest_vq.schema.load_run import OK, UNANSWERED, LoadPlan, LoadRun
from pytest_vq.schema.verdict import Status
from pytest_vq.serve import load_verdict
from pytest_vq.serve.batching import BatchingPolicy
from pytest_vq.serve.load import Served
from pytest_vq.serve.load_verdict import judge_under_load
from pytest_vq.serve.virtual_load import VirtualServer

PLAN = LoadPlan("Server", 2000, target_qps=1000.0, seed=1)
SERVER = VirtualServer(BatchingPolicy(8), lambda size: 1e-3 + 0.25e-3 * size)
ANYTHING = Served("some:service")


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> list[LoadPlan]:
    """What is served is a server in virtual time; the plans that it was put under."""
    plans: list[LoadPlan] = []

    def run(plan: LoadPlan, served: Served, load_engine: str | None) -> LoadRun:
        assert (served, load_engine) == (ANYTHING, None)
        plans.append(plan)
        return SERVER.run(plan)

    monkeypatch.setattr(load_verdict, "run_load", run)
    return plans


def test_a_server_is_judged_by_five_processes_and_its_offline_rate(virtual: list[LoadPlan]) -> None:
    judged = judge_under_load(PLAN, ANYTHING)
    assert [plan.scenario for plan in virtual] == ["Offline", *["Server"] * 5]
    assert [plan.seed for plan in virtual[1:]] == [1, 2, 3, 4, 5]
    assert judged.verdict.status is Status.PASS
    assert judged.offline_qps == pytest.approx(8 / 3e-3, rel=0.01)
    assert judged.verdict.utilisation == pytest.approx(1000 / judged.offline_qps)


def test_who_waits_longer_than_the_limit_of_a_query_counts_for_the_rate_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(plan: LoadPlan, *_: object) -> LoadRun:
        found = SERVER.run(plan)
        limit_ns = plan.query_limit_s * 1e9
        waits_ns = [
            done - due for done, due in zip(found.requests.completed_ns, found.requests.scheduled_ns, strict=True)
        ]
        outcome = tuple(OK if wait_ns <= limit_ns else UNANSWERED for wait_ns in waits_ns)
        return replace(found, requests=replace(found.requests, outcome=outcome))

    monkeypatch.setattr(load_verdict, "run_load", run)
    judged = judge_under_load(replace(PLAN, query_limit_s=0.1), ANYTHING)  # 1000 at once take 0.375 s
    assert judged.offline_qps == pytest.approx(8 / 3e-3, rel=0.01)


def test_a_bound_that_is_missed_fails(virtual: list[LoadPlan]) -> None:
    assert judge_under_load(replace(PLAN, latency_bound_ms=1.3), ANYTHING).verdict.status is Status.FAIL
    assert virtual[-1].latency_bound_ms == 1.3


def test_a_scenario_without_a_rate_asks_for_no_offline_rate(virtual: list[LoadPlan]) -> None:
    judged = judge_under_load(replace(PLAN, scenario="SingleStream", target_qps=None), ANYTHING)
    assert {plan.scenario for plan in virtual} == {"SingleStream"}
    assert (judged.offline_qps, judged.verdict.utilisation) == (None, 0.0)


def test_a_run_that_does_not_count_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        load_verdict, "run_load", lambda plan, *_: replace(SERVER.run(plan), invalid="its own sending lagged")
    )
    verdict = judge_under_load(PLAN, ANYTHING).verdict
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason.endswith("cannot be judged: its own sending lagged")


def test_a_model_behind_an_http_server_is_judged_for_real() -> None:
    plan = LoadPlan("Server", 300, target_qps=300.0, latency_bound_ms=10_000.0, warmup_requests=2)
    with v2_server() as (url, _):
        remote = Served("served:remote", {"url": url, "model": "double", "connections": 8})
        judged = judge_under_load(plan, remote, load_engine="builtin", offline_queries=400)
    assert [len(run.ended) for run in judged.runs] == [300] * 5
    assert (judged.verdict.late, judged.verdict.requests) == (0, 1500)
    assert judged.verdict.violation_high < 0.005
