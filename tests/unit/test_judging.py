"""From what was measured to a verdict: a suspect is measured again, and a pair that fails is explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, MIB, make_case, make_outcome, make_record

from pytest_vq.errors import MeasurementError, VqError
from pytest_vq.gate.noise import Noise
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.plugin.judging import Demand, Means, judge
from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.outcome import Outcome, Profile
from pytest_vq.schema.verdict import Status, Tolerances, Verdict
from pytest_vq.store.baselines import BaselineStore

CASE = make_case()
SLUG = ENVIRONMENT.device_slug
BEFORE = {"aten::addmm": Operator(calls=48, self_ms=6.0, self_bytes=0)}
NOW = {
    "aten::addmm": Operator(calls=48, self_ms=8.0, self_bytes=0),
    "aten::ones": Operator(calls=1, self_ms=0.001, self_bytes=64 * MIB),
}
STACKS = ("64.0 MiB held at the peak by net.py:7 forward",)


def measured(factor: float = 1.0, process: int = 0, **columns: Any) -> Outcome:
    """What the ``process``-th process hands on, in which everything but FP32 takes ``factor`` as long."""
    names = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_q10_ms")
    usual = make_record()
    figures = {name: factor * getattr(usual, name) for name in names}
    figures |= {name: getattr(usual, name) / factor for name in ("speedup", "speedup_low", "speedup_high")}
    environment = replace(ENVIRONMENT, date_utc=f"2026-01-01T00:00:{process:02}Z")
    return make_outcome(make_record(**(figures | columns)), environment)


class FakeProfiler:
    """What profiles the pair, and how often it was asked to; it cannot where it has an ``error``."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: VqError | None = None

    def __call__(self) -> Profile:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Profile(CASE.id, NOW, STACKS)


@pytest.fixture
def profiler() -> FakeProfiler:
    return FakeProfiler()


@pytest.fixture
def explanations(tmp_path: Path) -> Path:
    return tmp_path / "explain"


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    """Baselines of fifteen processes that differ by less than half a per cent."""
    store = BaselineStore(tmp_path / "baselines")
    recorded = [measured(1 + (number % 5 - 2) / 1000, number) for number in range(15)]
    setup = recorded[0].record.setup
    taken = [("net", setup, outcome.estimates[0]) for outcome in recorded]
    store.append(SLUG, ENVIRONMENT.device_name, taken, {("net", setup): BEFORE})
    return store


Gate = Callable[..., Outcome]


@pytest.fixture
def gate(store: BaselineStore, profiler: FakeProfiler, explanations: Path) -> Gate:
    """Judge what a first process measured; ``again`` are the outcomes of exactly those that must be asked for."""

    def run(
        first: Outcome,
        *again: Outcome,
        min_sqnr_db: float | None = CASE.min_sqnr_db,
        tolerances: Tolerances | None = None,
        comparisons: int = 64,
    ) -> Outcome:
        waiting = list(again)
        means = Means(
            store=store,
            noise={SLUG: Noise()}.__getitem__,
            measure_again=lambda: waiting.pop(0),
            profile=profiler,
            explanations=explanations,
        )
        outcome = judge(first, Demand(tolerances or Tolerances(), comparisons, min_sqnr_db), means)
        assert not waiting
        return outcome

    return run


def slow(factor: float = 1.2, **columns: Any) -> list[Outcome]:
    """As many processes as there may be, each of them slow."""
    return [measured(factor, 20 + number, **columns) for number in range(DEFAULT.confirming_look)]


def test_an_unchanged_pair_passes_without_being_measured_again(
    gate: Gate, profiler: FakeProfiler, explanations: Path
) -> None:
    first = measured(process=20)
    outcome = gate(first)
    assert outcome == replace(first, record=replace(first.record, verdict=Status.PASS, reason=""), time_decided=True)
    assert profiler.asked == 0
    assert not explanations.exists()


def test_a_suspect_is_measured_again_up_to_the_last_look_and_then_fails(gate: Gate) -> None:
    looks = slow()
    outcome = gate(*looks)
    assert outcome.record.verdict is Status.FAIL
    assert "+20.0 %" in outcome.record.reason
    assert "15 baseline processes, 3 fresh" in outcome.record.reason


def test_the_estimates_and_samples_of_all_its_processes_are_kept(gate: Gate) -> None:
    looks = slow()
    outcome = gate(*looks)
    assert outcome.estimates == tuple(look.estimates[0] for look in looks)
    assert outcome.samples == tuple(look.samples[0] for look in looks)
    assert len({process.date_utc for process in outcome.samples}) == 3
    # Its row stays that of the process that it was measured in first.
    assert outcome.record.timing == looks[0].record.timing
    assert outcome.environment == looks[0].environment


def test_a_fail_is_explained_by_one_profiled_call_against_the_baselines(
    gate: Gate, profiler: FakeProfiler, explanations: Path
) -> None:
    outcome = gate(*slow())
    assert profiler.asked == 1
    assert outcome.explanation == (
        "all operators together: 6 → 8 ms; what moved beyond that lies between them",
        "aten::addmm: 6 → 8 ms in 48 calls (+2 ms, +33.3% of the total)",
    )
    assert [path.name for path in explanations.iterdir()] == ["net-int8.json"]
    assert json.loads((explanations / "net-int8.json").read_text()) == {
        "reason": outcome.record.reason,
        "failed": ["latency", "speedup"],
        "before": {name: asdict(operator) for name, operator in BEFORE.items()},
        "now": {name: asdict(operator) for name, operator in NOW.items()},
        "peak": list(STACKS),
    }


def test_more_memory_is_explained_by_who_keeps_it(gate: Gate) -> None:
    # Resident memory on a CPU is coarse: it is measured again before it fails, like a time.
    outcome = gate(*slow(1.0, peak_memory_bytes=200 * MIB))
    assert outcome.record.verdict is Status.FAIL
    assert outcome.explanation[:2] == (
        "aten::ones keeps 64.0 MiB that it allocates, 64.0 MiB more than in the baseline",
        STACKS[0],
    )


def test_a_suspect_that_fresh_processes_clear_does_not_fail(
    gate: Gate, profiler: FakeProfiler, explanations: Path
) -> None:
    first, *others = measured(1.05, 20), measured(1.0, 21), measured(0.999, 22)
    outcome = gate(first, *others)
    assert outcome.record.verdict is Status.PASS
    assert [estimates.date_utc for estimates in outcome.estimates] == [
        look.environment.date_utc for look in (first, *others)
    ]
    assert profiler.asked == 0
    assert not explanations.exists()


def test_a_disturbance_in_a_fresh_process_counts(gate: Gate, profiler: FakeProfiler) -> None:
    outcome = gate(measured(1.2, 20), measured(1.2, 21, disturbance="thermal throttling"))
    assert outcome.record.verdict is Status.INCONCLUSIVE
    assert outcome.record.disturbance == "thermal throttling"
    assert "cannot be judged: thermal throttling" in outcome.record.reason
    assert profiler.asked == 0


def test_a_fail_stands_though_its_pair_cannot_be_profiled_and_says_why(
    gate: Gate, profiler: FakeProfiler, explanations: Path
) -> None:
    profiler.error = MeasurementError("a process that only profiles ended with exit code 1: out of memory\nmore of it")
    looks = slow()
    outcome = gate(*looks)
    assert outcome.record.verdict is Status.FAIL
    assert outcome.explanation == (
        "this cannot be told: a process that only profiles ended with exit code 1: out of memory",
    )
    assert len(outcome.estimates) == len(outcome.samples) == len(looks)
    assert not explanations.exists()


def test_without_a_baseline_there_is_nothing_to_measure_again(gate: Gate, profiler: FakeProfiler) -> None:
    first = measured(1.2, 20)
    outcome = gate(replace(first, record=make_record("other")))
    assert outcome.record.verdict is Status.NO_BASELINE
    assert profiler.asked == 0


def test_a_missed_bound_without_a_baseline_fails_and_has_no_before_to_be_explained_by(
    gate: Gate, profiler: FakeProfiler
) -> None:
    record = make_record("other", sqnr_db=3.0)
    outcome = gate(make_outcome(record))
    assert outcome.record.verdict is Status.FAIL
    assert "3.0 dB, below its bound of 18.0 dB" in outcome.record.reason
    assert outcome.explanation == ()
    assert profiler.asked == 0


def test_the_models_own_bound_of_fidelity_is_the_one_that_counts(gate: Gate) -> None:
    strict = replace(CASE, model=replace(CASE.model, min_sqnr_db={"int8": 31.0}))
    outcome = gate(measured(process=20), min_sqnr_db=strict.min_sqnr_db)
    assert outcome.record.verdict is Status.FAIL
    assert "30.0 dB, below its bound of 31.0 dB" in outcome.record.reason


def test_the_tolerances_of_its_test_are_those_it_is_judged_by(gate: Gate) -> None:
    wide = Tolerances(latency_tolerance=0.5, speedup_tolerance=0.5)
    assert gate(measured(1.2, 20), tolerances=wide).record.verdict is Status.PASS


@pytest.mark.parametrize(
    ("comparisons", "looks", "status"),
    [(1, 3, Status.FAIL), (64, 2, Status.PASS), (0, 3, Status.FAIL)],
    ids=["alone", "a suite", "not counted, so alone"],
)
def test_pairs_that_share_the_gates_error_need_more_proof(
    gate: Gate, comparisons: int, looks: int, status: Status
) -> None:
    outcome = gate(*slow(1.027)[:looks], comparisons=comparisons)
    assert outcome.record.verdict is status


def test_an_outcome_says_whether_its_time_was_decided(gate: Gate) -> None:
    undecided = gate(measured(disturbance="a busy neighbour"))
    unknown = gate(measured(model="other-net"))
    assert [outcome.time_decided for outcome in (gate(measured()), undecided, unknown)] == [True, False, None]


def test_it_is_decided_after_the_processes_that_were_asked_for_and_not_in_between(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {1: 1, 2: 1, 3: 3, 6: 0}
    monkeypatch.setattr(
        "pytest_vq.gate.decide.decide",
        lambda question: Verdict(Status.INCONCLUSIVE, "open", more_processes=asked[len(question.candidates)]),
    )
    assert len(gate(*(measured(process=20 + number) for number in range(6))).estimates) == 6
