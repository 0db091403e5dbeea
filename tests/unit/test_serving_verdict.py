"""From loads to a row, and from a row to its verdict: at the stored rate, and never by two searched maxima."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from factories import ENVIRONMENT, make_entry, make_setup

from pytest_vq.errors import MeasurementError
from pytest_vq.gate.question import Question
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.figures import Effort, Fidelity
from pytest_vq.schema.load_run import OK, LoadPlan, LoadRun
from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.verdict import Status, Verdict
from pytest_vq.serve.batching import BatchingPolicy
from pytest_vq.serve.serving_record import estimates_of_loads, record_of, samples_of_loads
from pytest_vq.serve.serving_runs import PairUnderLoad, Wanted, serve
from pytest_vq.serve.serving_verdict import decide_serving, stored_qps
from pytest_vq.serve.virtual_load import VirtualServer

TERMS = ServingTerms("Server", "builtin", latency_bound_ms=10.0, max_batch_size=8)
SERVER = VirtualServer(BatchingPolicy(8), lambda size: 1e-3 + 0.25e-3 * size, seed=1)


def setup_for(terms: ServingTerms = TERMS) -> Setup:
    return make_setup("int8", protocol="load", serving=terms)


def served_by(server: VirtualServer = SERVER, terms: ServingTerms = TERMS, **wanted: Any) -> PairUnderLoad:
    return serve(Wanted(terms, **({"budget_s": 20.0} | wanted)), server.runs())


def row_of(served: PairUnderLoad, terms: ServingTerms = TERMS) -> tuple[Record, tuple[Estimates, ...]]:
    record = record_of(served, setup_for(terms), Effort())
    return record, estimates_of_loads(record, served, ENVIRONMENT)


def verdict_on(served: PairUnderLoad, entry: Entry | None = None, terms: ServingTerms = TERMS, **asked: Any) -> Verdict:
    record, estimates = row_of(served, terms)
    entries = (entry,) if entry else ()
    question = Question(estimates, setup_for(terms), entries, disturbance=record.disturbance, **asked)
    return decide_serving(question, record)


def with_bracket(entry: Entry, of: Entry) -> tuple[Estimates, ...]:
    """The estimates of ``entry`` with the bracket of another, so that both store one rate."""
    serving = of.anchor.estimates[0].serving
    return tuple(replace(estimates, serving=serving) for estimates in entry.anchor.estimates)


@pytest.fixture(scope="module")
def first() -> PairUnderLoad:
    """The run that is recorded."""
    return served_by()


@pytest.fixture(scope="module")
def baseline(first: PairUnderLoad) -> Entry:
    return make_entry(row_of(first)[1], setup_for())


class TestRow:
    def test_figures_are_of_all_processes_together(self, first: PairUnderLoad) -> None:
        record, _ = row_of(first)
        figures, late = record.serving, sum(sum(run.violations()) for run in first.loads)
        assert first.bracket is not None
        assert (figures.max_qps_low, figures.max_qps_high) == (first.bracket.low, first.bracket.high)
        assert (figures.target_qps, figures.offline_qps) == (first.target_qps, first.offline_qps)
        assert figures.utilisation == pytest.approx(first.target_qps / first.offline_qps)  # type: ignore[operator]
        assert (figures.late_requests, figures.load_processes) == (late, 5)
        assert figures.violation_rate == pytest.approx(late / record.timing.samples)
        assert figures.violation_low <= figures.violation_rate <= figures.violation_high  # type: ignore[operator]

    def test_the_tail_is_no_process_mean_but_of_every_request(self, first: PairUnderLoad) -> None:
        record, _ = row_of(first)
        every = sorted(ns / 1e6 for run in first.loads for ns in run.latencies_ns)
        assert record.serving.p995_ms == every[int(0.995 * len(every))]
        assert record.timing.latency_p99_ms == every[int(0.99 * len(every))]
        assert record.timing.samples == len(every)

    def test_queues_executions_and_sizes_are_of_the_batches_under_load(self, first: PairUnderLoad) -> None:
        record, _ = row_of(first)
        batches = [batch for run in first.loads for batch in run.facts.executed]  # type: ignore[union-attr]
        assert record.load is not None
        assert sum(record.load.batch_sizes.values()) == len(batches)
        requests = sum(int(size) * number for size, number in record.load.batch_sizes.items())
        assert requests == record.timing.samples
        assert record.serving.mean_batch_size == pytest.approx(requests / len(batches))
        assert 1.25 <= record.serving.execution_ms <= record.serving.execution_p99_ms <= 3.0  # type: ignore[operator]
        assert [time.batch for time in record.load.batch_times] == [1, 2, 4, 8]

    def test_each_process_is_a_line_of_a_baseline_and_keeps_every_latency(self, first: PairUnderLoad) -> None:
        _, estimates = row_of(first)
        samples = samples_of_loads(first)
        assert [len(pair.subject.times_ms) for pair in samples] == [len(run.ended) for run in first.loads]
        assert [e.serving.late for e in estimates if e.serving] == [sum(run.violations()) for run in first.loads]
        assert len({e.latency_ms for e in estimates}) > 1

    def test_without_a_rate_the_row_is_of_the_look_over(self) -> None:
        slow = served_by(replace(SERVER, service_s=lambda _: 20e-3))
        record, estimates = row_of(slow)
        assert (record.serving.target_qps, record.serving.max_qps_low) == (None, 0.0)
        assert record.serving.violation_rate is None
        assert record.timing.latency_ms == pytest.approx(20.0)
        assert len(estimates) == 1

    def test_a_median_that_was_not_answered_is_an_error(self, first: PairUnderLoad) -> None:
        run = first.loads[0]
        failed = replace(run.requests, outcome=("OutputError",) * len(run.requests))
        loads = (replace(run, requests=failed, messages={"OutputError": "not finite"}),) * 5
        with pytest.raises(MeasurementError, match=r"only 0 of \d+ requests were answered.*OutputError: not finite"):
            row_of(replace(first, loads=loads))

    def test_what_was_refused_is_late_and_counted(self, first: PairUnderLoad) -> None:
        run = first.loads[0]
        some = replace(run.requests, outcome=("refused",) * 100 + (OK,) * (len(run.requests) - 100))
        record, _ = row_of(replace(first, loads=(replace(run, requests=some), *first.loads[1:])))
        assert record.serving.unanswered_requests == 100
        assert record.serving.late_requests >= 100  # type: ignore[operator]
        assert record.load is not None
        assert record.load.outcomes["refused"] == 100

    def test_what_was_not_answered_is_no_sample(self, first: PairUnderLoad) -> None:
        run = first.loads[0]
        some = replace(run.requests, outcome=("refused",) * 100 + (OK,) * (len(run.requests) - 100))
        none = replace(run.requests, outcome=("refused",) * len(run.requests))
        loads = (replace(run, requests=some), replace(run, requests=none), *first.loads[2:])
        samples = samples_of_loads(replace(first, loads=loads))
        assert [len(pair.subject.times_ms) for pair in samples] == [len(run.requests) - 100, *[len(run.requests)] * 3]

    def test_the_fallbacks_cost_is_its_tail_at_the_same_rate(self) -> None:
        runs = replace(SERVER.runs(), fallback=replace(SERVER, slowdown=1.2).run)
        served = serve(Wanted(TERMS, stored_qps=1500.0, budget_s=20.0), runs)
        record, _ = row_of(served)
        assert record.serving.fallback_p995_ms > record.serving.p995_ms  # type: ignore[operator]
        assert record.serving.fallback_violation_rate is not None

    def test_a_fallback_whose_process_does_not_count_has_no_tail_but_a_note(self) -> None:
        def lagging(plan: LoadPlan) -> LoadRun:
            return replace(SERVER.run(plan), invalid="its own sending lagged")

        served = serve(Wanted(TERMS, stored_qps=1500.0, budget_s=20.0), replace(SERVER.runs(), fallback=lagging))
        record, _ = row_of(served)
        assert (record.serving.fallback_p995_ms, record.serving.fallback_violation_rate) == (None, None)
        assert record.note == "the fallback's tail is not told: its own sending lagged"


class TestVerdict:
    def test_a_first_run_has_no_baseline(self, first: PairUnderLoad) -> None:
        assert verdict_on(first).status is Status.NO_BASELINE

    def test_unchanged_passes_at_the_stored_rate(self, first: PairUnderLoad, baseline: Entry) -> None:
        rate = stored_qps(baseline)
        assert rate == pytest.approx(first.target_qps)
        found = verdict_on(served_by(replace(SERVER, seed=2), stored_qps=rate), baseline)
        assert (found.status, found.reason) == (Status.PASS, "")

    def test_30_percent_slower_fails_and_the_reason_has_rate_bounds_and_tails(self, baseline: Entry) -> None:
        slower = replace(SERVER, slowdown=1.3, seed=3)
        found = verdict_on(served_by(slower, stored_qps=stored_qps(baseline)), baseline)
        assert found.status is Status.FAIL
        assert f"at {stored_qps(baseline):,.0f} queries/s".replace(",", "") in found.reason.replace(",", "")
        for words in ("requests late", "0.5 % allowed", "p99.5", "in the baseline"):
            assert words in found.reason

    def test_a_rate_that_was_searched_for_is_compared_with_no_other_until_it_is_accepted(
        self, first: PairUnderLoad, baseline: Entry
    ) -> None:
        faster = replace(SERVER, slowdown=0.5, seed=4)
        served = served_by(faster, stored_qps=stored_qps(baseline), searches=True)
        found = verdict_on(served, baseline)
        assert found.status is Status.INCOMPARABLE
        assert "run without --vq-search to compare" in found.reason
        again = row_of(served)[1]
        assert stored_qps(make_entry((*baseline.processes, *again), setup_for(), baseline.anchor.estimates)) == (
            pytest.approx(first.target_qps)
        )
        accepted = stored_qps(make_entry(again, setup_for(), again))
        assert accepted is not None
        assert accepted > 1.5 * first.target_qps  # type: ignore[operator]
        assert verdict_on(served, make_entry(again, setup_for(), again)).status is Status.PASS

    def test_the_tail_of_before_is_that_of_the_same_rate(self, first: PairUnderLoad, baseline: Entry) -> None:
        slower = replace(SERVER, slowdown=1.3, seed=3)
        mixed = make_entry(
            (*baseline.processes, *row_of(served_by(slower, stored_qps=700.0))[1]),
            setup_for(),
            baseline.anchor.estimates,
        )
        served = served_by(slower, stored_qps=stored_qps(baseline))
        assert verdict_on(served, mixed).reason == verdict_on(served, baseline).reason

    def test_where_every_sending_lagged_nothing_is_said_of_the_pair_and_nothing_stored(self) -> None:
        def load(plan: LoadPlan) -> LoadRun:
            return replace(SERVER.run(plan), invalid="its own sending lagged")

        served = serve(Wanted(TERMS), replace(SERVER.runs(), load=load))
        record, estimates = row_of(served)
        assert record.disturbance == "its own sending lagged"
        assert record.serving.max_qps_low is None
        entry = make_entry(estimates, setup_for())
        assert stored_qps(entry) is None
        assert verdict_on(served, entry).status is Status.NO_BASELINE

    def test_answers_are_held_to_their_floor_and_to_the_baselines(self, first: PairUnderLoad, baseline: Entry) -> None:
        served = served_by(replace(SERVER, seed=2), stored_qps=stored_qps(baseline))
        looked = replace(served.alone.facts, fidelity=Fidelity(cosine=0.9, sqnr_db=3.0))  # type: ignore[type-var]
        worse = replace(served, alone=replace(served.alone, facts=looked))
        found = verdict_on(worse, baseline, min_sqnr_db=20.0)
        assert found.status is Status.FAIL
        assert "SQNR against FP32 3.0 dB, below its bound of 20.0 dB" in found.reason
        better = replace(served.alone.facts, fidelity=Fidelity(cosine=0.99, sqnr_db=30.0))  # type: ignore[type-var]
        before = make_entry(row_of(replace(served, alone=replace(served.alone, facts=better)))[1], setup_for())
        before = replace(before, anchor=replace(before.anchor, estimates=with_bracket(before, baseline)))
        assert "30.0 dB → 3.0 dB" in verdict_on(worse, before).reason

    def test_a_rate_of_the_tests_own_needs_no_baseline(self) -> None:
        terms = replace(TERMS, target_qps=1000.0)
        assert verdict_on(served_by(terms=terms), terms=terms).status is Status.PASS
        slower = replace(SERVER, slowdown=3.0)
        assert verdict_on(served_by(slower, terms), terms=terms).status is Status.FAIL

    def test_a_disturbed_run_decides_nothing(self, first: PairUnderLoad, baseline: Entry) -> None:
        served = served_by(replace(SERVER, slowdown=1.3), stored_qps=stored_qps(baseline))
        lagging = replace(served.loads[0], invalid="its own sending lagged: …")
        found = verdict_on(replace(served, loads=(lagging, *served.loads[1:])), baseline)
        assert found.status is Status.INCONCLUSIVE
        assert "its own sending lagged" in found.reason

    def test_where_no_rate_keeps_the_bound_it_says_what_a_request_takes(self) -> None:
        slow = served_by(replace(SERVER, service_s=lambda _: 20e-3))
        entry = make_entry(row_of(slow)[1], setup_for())
        found = verdict_on(slow, entry)
        assert found.status is Status.INCONCLUSIVE
        assert "no rate was found that keeps 99.5 % within 10 ms; alone, a request takes 20.0 ms" in found.reason

    def test_other_terms_are_not_comparable_and_are_named(self, first: PairUnderLoad, baseline: Entry) -> None:
        terms = replace(TERMS, latency_bound_ms=20.0)
        found = verdict_on(first, baseline, terms)
        assert found.status is Status.INCOMPARABLE
        assert "latency_bound_ms 20.0 here, 10.0 in the baseline" in found.reason

    def test_a_pairs_own_baseline_is_none_of_its_serving_row(self, first: PairUnderLoad) -> None:
        assert verdict_on(first, make_entry([row_of(first)[1][0]])).status is Status.NO_BASELINE

    def test_on_a_card_that_the_baseline_never_met_a_fail_is_inconclusive(self, baseline: Entry) -> None:
        served = served_by(replace(SERVER, slowdown=1.3), stored_qps=stored_qps(baseline))
        record, estimates = row_of(served)
        elsewhere = tuple(replace(one, device_uuid="CPU-2") for one in estimates)
        found = decide_serving(Question(elsewhere, setup_for(), (baseline,)), record)
        assert found.status is Status.INCONCLUSIVE
        assert "CPU-2) is not among the baseline's" in found.reason


class TestOffline:
    TERMS = ServingTerms("Offline", "builtin", max_batch_size=8)

    def entry(self) -> Entry:
        server = replace(SERVER, process_sigma=0.01)
        return make_entry(row_of(served_by(server, self.TERMS), self.TERMS)[1], setup_for(self.TERMS))

    def test_the_rate_is_gated_process_by_process(self) -> None:
        def verdict(slowdown: float) -> Verdict:
            server = replace(SERVER, process_sigma=0.01, slowdown=slowdown, seed=5)
            return verdict_on(served_by(server, self.TERMS), self.entry(), self.TERMS)

        assert verdict(1.0).status in (Status.PASS, Status.INCONCLUSIVE)
        found = verdict(1.3)
        assert found.status is Status.FAIL
        assert "Offline rate" in found.reason

    def test_a_process_without_an_answer_decides_nothing(self) -> None:
        served = served_by(replace(SERVER, process_sigma=0.01), self.TERMS)
        run = served.loads[0]
        failed = replace(run, requests=replace(run.requests, outcome=("OutputError",) * len(run.requests)))
        found = verdict_on(replace(served, loads=(failed, *served.loads[1:])), self.entry(), self.TERMS)
        assert found.status is Status.INCONCLUSIVE
        assert "a process got no answer at all" in found.reason

    def test_no_bound_is_claimed(self) -> None:
        record, _ = row_of(served_by(terms=self.TERMS), self.TERMS)
        assert (record.serving.violation_rate, record.serving.utilisation) == (None, None)
        assert record.serving.offline_qps == pytest.approx(8 / 3e-3, rel=0.01)
