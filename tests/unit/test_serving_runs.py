"""A pair under load in virtual time: the rate that is found, stored and tested, and what the gate says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from calibrations import importable_calibrations

from pytest_vq.errors import MeasurementError
from pytest_vq.schema.load_run import LoadPlan, LoadRun
from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.verdict import Status
from pytest_vq.serve.batching import BatchingPolicy
from pytest_vq.serve.searching import Bracket, search_rate
from pytest_vq.serve.serving_plans import plan_of
from pytest_vq.serve.serving_runs import Runs, Wanted, rate_to_store, serve
from pytest_vq.serve.virtual_load import VirtualServer

TERMS = ServingTerms("Server", "builtin", latency_bound_ms=10.0, max_batch_size=8)
SERVER = VirtualServer(BatchingPolicy(8), lambda size: 1e-3 + 0.25e-3 * size, seed=1)


def noting(run: Callable[[LoadPlan], LoadRun], plans: list[LoadPlan]) -> Callable[[LoadPlan], LoadRun]:
    def noted(plan: LoadPlan) -> LoadRun:
        plans.append(plan)
        return run(plan)

    return noted


class TestSearch:
    @pytest.mark.parametrize("true_qps", [3.0, 40.0, 310.0, 990.0])
    def test_the_bracket_holds_the_highest_rate(self, true_qps: float) -> None:
        bracket = search_rate(lambda rate: 0.0 if rate <= true_qps else 0.5, 0.005, 1000.0)
        assert bracket.low <= true_qps <= bracket.high
        assert bracket.high <= 1.1 * bracket.low or bracket.low == 0.0
        assert (bracket.low == 0.0) == (true_qps < 1000 / 64)

    def test_a_rate_that_hardly_keeps_the_bound_is_neither_end(self) -> None:
        bracket = search_rate(lambda rate: 0.0 if rate < 100 else 0.004 if rate < 200 else 0.1, 0.005, 400.0)
        assert bracket.low < 100
        assert bracket.high >= 200

    def test_none_is_tried_at_the_offline_rate_or_above(self) -> None:
        bracket = search_rate(lambda _: 0.0, 0.005, 400.0)
        assert bracket.high == 400.0
        assert max(bracket.probes) < 400.0

    def test_what_is_known_is_not_tried_again_and_ends_the_bracket(self) -> None:
        known = {100.0: 0.0, 150.0: 0.004, 200.0: 0.001, 300.0: 0.2, 105.0: 0.02}
        assert search_rate(lambda _: 1.0, 0.005, 400.0, known) == Bracket(100.0, 105.0, known)

    def test_where_nothing_known_keeps_the_bound_it_goes_on_below(self) -> None:
        bracket = search_rate(lambda rate: 0.0 if rate < 60 else 0.5, 0.005, 400.0, {100.0: 0.01, 200.0: 0.001})
        assert 60 / 1.1 < bracket.low < 60 <= bracket.high < 66


class TestServer:
    def test_without_a_stored_rate_one_is_found_tested_and_worth_storing(self) -> None:
        served = serve(Wanted(TERMS), SERVER.runs())
        assert served.bracket is not None
        assert served.offline_qps == pytest.approx(8 / 3e-3, rel=0.01)
        assert served.bracket.low <= served.bracket.high <= served.offline_qps
        assert served.target_qps == pytest.approx(rate_to_store(served.bracket.low, served.offline_qps))
        assert [run.plan.target_qps for run in served.loads] == [served.target_qps] * 5
        assert [len(run.ended) for run in served.loads] == [10_000] * 5

    def test_at_a_stored_rate_nothing_is_searched_unless_asked_for(self) -> None:
        plans: list[LoadPlan] = []
        runs = replace(SERVER.runs(), load=noting(SERVER.run, plans))
        assert serve(Wanted(TERMS, stored_qps=500.0), runs).bracket is None
        assert [plan.target_qps for plan in plans] == [500.0] * 5
        again = serve(Wanted(TERMS, stored_qps=500.0, searches=True), SERVER.runs())
        assert again.bracket is not None
        assert again.target_qps == rate_to_store(again.bracket.low, again.offline_qps or 0.0)

    def test_the_rate_that_a_test_asks_for_is_sent(self) -> None:
        terms = replace(TERMS, target_qps=321.0)
        assert serve(Wanted(terms, stored_qps=500.0), SERVER.runs()).target_qps == 321.0

    def test_every_process_has_other_arrivals(self) -> None:
        served = serve(Wanted(TERMS, stored_qps=500.0), SERVER.runs())
        assert len({run.plan.seed for run in served.loads}) == 5
        assert len({run.requests.scheduled_ns[:3] for run in served.loads}) == 5

    def test_a_budget_cuts_the_requests_and_says_so(self) -> None:
        served = serve(Wanted(TERMS, stored_qps=500.0, budget_s=10.0), SERVER.runs())
        assert [len(run.ended) for run in served.loads] == [1000] * 5
        assert served.is_short
        assert not serve(Wanted(TERMS, stored_qps=500.0), SERVER.runs()).is_short

    def test_a_budget_for_next_to_nothing_is_an_error_that_says_how_much_it_takes(self) -> None:
        with pytest.raises(MeasurementError, match="give at least 1 s"):
            serve(Wanted(TERMS, stored_qps=500.0, budget_s=0.1), SERVER.runs())

    def test_where_a_request_alone_is_late_no_rate_is_tried(self) -> None:
        slow = VirtualServer(BatchingPolicy(8), lambda _: 20e-3)
        served = serve(Wanted(TERMS), slow.runs())
        assert served.bracket == Bracket(0.0, pytest.approx(50.0), {})  # type: ignore[arg-type]
        assert (served.target_qps, served.loads) == (None, ())

    def test_a_rate_that_the_whole_run_does_not_keep_is_lowered(self) -> None:
        sent: list[float] = []

        def load(plan: LoadPlan) -> LoadRun:
            assert plan.target_qps is not None
            sent.append(plan.target_qps)
            is_probe = plan.queries <= 2000  # a search that was lucky
            return replace(SERVER, slowdown=1.0 if is_probe or plan.target_qps < 1500 else 4.0).run(plan)

        served = serve(Wanted(TERMS), replace(SERVER.runs(), load=load))
        assert served.target_qps is not None
        assert served.target_qps < 1500 < max(rate for rate in sent)
        assert sum(map(sum, (run.violations() for run in served.loads))) / 50_000 <= 0.005

    def test_a_rate_that_can_be_claimed_leaves_the_service_time_to_spare(self) -> None:
        assert rate_to_store(1000.0, 1050.0) == pytest.approx(0.95 * 840.0)  # 0.8 of what it can do at all
        assert rate_to_store(500.0, 1050.0) == pytest.approx(450.0)

    def test_fp32_is_put_under_the_same_load_where_it_is_asked_for(self) -> None:
        fallback = replace(SERVER, slowdown=2.0)
        served = serve(Wanted(TERMS, stored_qps=500.0), replace(SERVER.runs(), fallback=fallback.run))
        assert served.fallback is not None
        assert served.fallback.plan == served.loads[0].plan


class TestOtherScenarios:
    def test_offline_sends_enough_at_once_to_take_seconds(self) -> None:
        served = serve(Wanted(ServingTerms("Offline", "builtin", max_batch_size=8)), SERVER.runs())
        assert [run.plan.scenario for run in served.loads] == ["Offline"] * 5
        assert served.loads[0].duration_s == pytest.approx(3.0, rel=0.01)
        assert (served.target_qps, served.offline_qps) == (None, None)

    def test_offline_a_fast_service_is_sent_no_more_than_the_sender_bears(self) -> None:
        fast = VirtualServer(BatchingPolicy(8), lambda _: 1e-5)
        served = serve(Wanted(ServingTerms("Offline", "builtin", max_batch_size=8)), fast.runs())
        assert len(served.loads[0].requests) == 20_000

    def test_offline_a_request_may_wait_as_long_as_the_run_lasts(self) -> None:
        plan = plan_of(ServingTerms("Offline", "builtin"), "Offline", 100)
        assert plan.query_limit_s == plan.run_limit_s

    def test_a_multi_streams_budget_counts_all_samples_of_a_query(self) -> None:
        terms = ServingTerms("MultiStream", "builtin", max_batch_size=8, samples_per_query=17)
        plans: list[LoadPlan] = []

        def load(plan: LoadPlan) -> LoadRun:
            plans.append(plan)
            return SERVER.run(replace(plan, scenario="SingleStream"))

        serve(Wanted(terms, budget_s=10.0), replace(SERVER.runs(), load=load))
        assert plans[0].queries == int(10.0 / 5 / (1.25e-3 + 2 * 3e-3)) // 10 * 10

    def test_where_half_of_all_requests_alone_fail_the_error_quotes_the_first(self) -> None:
        alone = SERVER.run(plan_of(TERMS, "SingleStream", 50))
        outcome = ("OutputError",) * 30 + ("ok",) * 20
        broken = replace(alone, requests=replace(alone.requests, outcome=outcome), messages={"OutputError": "no"})
        runs = replace(SERVER.runs(), look_over=lambda _: broken)
        with pytest.raises(MeasurementError, match=r"only 20 of 50 requests were answered \(OutputError: no\)"):
            serve(Wanted(ServingTerms("SingleStream", "builtin")), runs)

    def test_single_stream_has_no_rate(self) -> None:
        served = serve(Wanted(ServingTerms("SingleStream", "builtin", max_batch_size=8)), SERVER.runs())
        assert [len(run.ended) for run in served.loads] == [10_000] * 5
        assert served.target_qps is None

    def test_a_multi_streams_queries_have_as_many_samples_as_the_terms_say(self) -> None:
        terms = ServingTerms("MultiStream", "builtin", samples_per_query=4)
        assert plan_of(terms, "MultiStream", 10).samples_per_query == 4


def test_where_nothing_is_answered_the_error_quotes_the_first() -> None:
    alone = SERVER.run(plan_of(TERMS, "SingleStream", 50))
    failed = replace(alone.requests, outcome=("OutputError",) * 50)
    broken = replace(alone, requests=failed, messages={"OutputError": "not finite"})
    runs = Runs(look_over=lambda _: broken, load=SERVER.run, offline=SERVER.run)
    with pytest.raises(MeasurementError, match=r"not one of 50 requests was answered \(OutputError: not finite\)"):
        serve(Wanted(TERMS), runs)


def test_a_process_whose_own_sending_lagged_gives_way_to_another_once() -> None:
    sent: list[int] = []

    def load(plan: LoadPlan) -> LoadRun:
        sent.append(plan.seed)
        return replace(SERVER.run(plan), invalid="its own sending lagged" if plan.seed == 2 else None)

    served = serve(Wanted(TERMS, stored_qps=500.0), replace(SERVER.runs(), load=load))
    assert sent == [1, 2, 1002, 3, 4, 5]
    assert [run.invalid for run in served.loads] == [None] * 5
    assert served.repeats == 1


def test_where_no_judged_process_counts_no_rate_is_stored() -> None:
    def load(plan: LoadPlan) -> LoadRun:
        is_judged = plan.queries == 10_000
        return replace(SERVER.run(plan), invalid="its own sending lagged" if is_judged else None)

    served = serve(Wanted(TERMS), replace(SERVER.runs(), load=load))
    assert served.bracket is None
    assert [run.invalid for run in served.loads] == ["its own sending lagged"] * 5


def test_a_rate_that_is_never_kept_is_not_stored() -> None:
    def load(plan: LoadPlan) -> LoadRun:
        return replace(SERVER, slowdown=4.0 if plan.queries > 2000 else 1.0).run(plan)  # every search was lucky

    served = serve(Wanted(TERMS), replace(SERVER.runs(), load=load))
    assert served.bracket is None
    assert sum(map(sum, (run.violations() for run in served.loads))) > 250


def test_a_rate_whose_processes_do_not_count_is_neither_kept_nor_missed() -> None:
    def load(plan: LoadPlan) -> LoadRun:
        assert plan.target_qps is not None
        return replace(SERVER.run(plan), invalid="its own sending lagged" if plan.target_qps > 1000 else None)

    bracket = serve(Wanted(TERMS), replace(SERVER.runs(), load=load)).bracket
    assert bracket is not None
    assert 1000 / 1.1 < bracket.low < 1000
    assert bracket.high == pytest.approx(8 / 3e-3, rel=0.01)  # nothing was seen to miss it


def test_where_only_high_rates_could_not_be_told_the_pair_keeps_none() -> None:
    def load(plan: LoadPlan) -> LoadRun:
        assert plan.target_qps is not None
        slow = replace(SERVER, slowdown=7.5)  # which alone is within the bound, and with any other is not
        return replace(slow.run(plan), invalid="its own sending lagged" if plan.target_qps > 200 else None)

    runs = replace(SERVER.runs(), load=load)
    served = serve(Wanted(replace(TERMS, latency_bound_ms=9.4)), runs)
    assert served.bracket is not None
    assert None in served.bracket.probes.values()
    assert (served.bracket.low, served.untold) == (0.0, None)


def test_a_run_has_the_time_that_its_queries_need() -> None:
    assert plan_of(TERMS, "Server", 7000, target_qps=5.0).run_limit_s > 7000 / 5.0
    assert plan_of(TERMS, "Server", 7000, target_qps=500.0).run_limit_s == 600.0


@pytest.mark.parametrize(("number", "budget_s"), [(0, 10.0), (2, 30.0), (4, 120.0)])
def test_unchanged_none_of_20_servers_fails_and_30_percent_slower_all_do(number: int, budget_s: float) -> None:
    with importable_calibrations() as calibration:
        serving_gate = calibration("serving_gate")
        gated = serving_gate.gate_runs(serving_gate.KINDS[number], budget_s=budget_s, slowdowns=(1.0, 1.3))
    assert gated.verdicts[1.0][Status.FAIL] == 0
    assert gated.verdicts[1.3] == {Status.FAIL: 20}
