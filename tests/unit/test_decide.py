"""The decision on a pair: each metric's verdict, when to look again, and what is compared with what."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from factories import MIB, make_entry, make_estimates, make_setup

from pytest_vq.gate.decide import decide
from pytest_vq.gate.noise import GIVEN_SENTINEL, LATENCY, LATENCY_FP32, SENTINEL, SPEEDUP, Noise
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import Prior
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.verdict import MetricVerdict, Status, Tolerances, Verdict

CPU = make_setup()
GPU = make_setup(threads=None)
KINDS = tuple(kind + given for kind in (LATENCY, LATENCY_FP32, SPEEDUP) for given in ("", GIVEN_SENTINEL))
KNOWN = Noise({kind: Prior(60.0, 0.005**2, 20) for kind in (*KINDS, SENTINEL)})


def process(factor: float = 1.0, **changes: Any) -> Estimates:
    """A process in which everything is ``factor`` as slow, FP32 excepted."""
    figures = {
        "latency_ms": 75.0 * factor,
        "latency_low_ms": 74.8 * factor,
        "latency_high_ms": 75.2 * factor,
        "latency_q10_ms": 74.0 * factor,
        "sentinel_ms": 3.0,
        "speedup": 1.4 / factor,
        "speedup_low": 1.39 / factor,
        "speedup_high": 1.41 / factor,
        "model_size_bytes": 20 * MIB,
        "device_uuid": "GPU-1",
        "versions": {"torch": "2.12.0", "python": "3.11"},
    }
    return make_estimates(**(figures | changes))


def noisy(n: int, factor: float = 1.0, sigma: float = 0.005, seed: int = 0, **changes: Any) -> tuple[Estimates, ...]:
    rng = random.Random(seed)
    return tuple(process(factor * (1 + sigma * rng.gauss(0, 1)), **changes) for _ in range(n))


BASELINE = make_entry(noisy(15))


def judge(*fresh: Estimates, entry: Entry = BASELINE, noise: Noise = KNOWN, **more: Any) -> Verdict:
    """The verdict on ``fresh`` processes of the entry's own setup; ``more`` are further parts of the question."""
    return decide(Question(candidates=fresh, setup=entry.setup, entries=(entry,), noise=noise, **more))


def metric(verdict: Verdict, name: str) -> MetricVerdict:
    return next(m for m in verdict.metrics if m.metric == name)


def statuses(verdict: Verdict) -> dict[str, Status]:
    return {m.metric: m.status for m in verdict.metrics}


# -- timed metrics


def test_an_unchanged_pair_passes_at_first_look() -> None:
    verdict = judge(process())
    assert (verdict.status, verdict.more_processes, verdict.reason) == (Status.PASS, 0, "")
    assert statuses(verdict) == dict.fromkeys(
        ["latency", "median latency", "speedup", "sqnr against the baseline", "peak_memory", "model_size"], Status.PASS
    )


def test_a_slowdown_fails_once_three_fresh_processes_show_it() -> None:
    looks = [judge(*noisy(n, 1.1, seed=1)) for n in (1, 2, 3)]
    assert [v.status for v in looks] == [Status.FAIL] * 3
    assert [v.more_processes for v in looks] == [1, 1, 0]


@pytest.mark.parametrize(("factor", "status"), [(1.05, Status.PASS), (1.06, Status.INCONCLUSIVE)])
def test_a_suspect_that_the_next_processes_clear_does_not_fail(factor: float, status: Status) -> None:
    first = judge(process(factor))
    assert (first.status, first.more_processes) == (Status.FAIL, 1)
    assert judge(process(factor), process(), process()).status is status


def test_a_wild_process_in_three_never_fails_alone() -> None:
    verdict = judge(process(1.5), process(), process(0.999))
    assert verdict.status is Status.INCONCLUSIVE


def test_a_change_below_the_tolerance_is_not_worth_failing_for() -> None:
    verdict = judge(*[process(1.015)] * 3)
    assert verdict.status is Status.PASS


def test_an_improvement_asks_for_a_new_anchor() -> None:
    verdict = judge(*[process(0.8)] * 3)
    assert verdict.status is Status.IMPROVED
    assert "new anchor" in verdict.reason


def test_noise_that_hides_the_resolution_is_inconclusive_and_says_what_it_could_have_seen() -> None:
    loud = Noise({kind: Prior(60.0, 0.05**2, 20) for kind in KINDS})
    entry = make_entry(noisy(15, sigma=0.05))
    verdict = judge(*[process(1.03)] * 3, entry=entry, noise=loud)
    found = metric(verdict, "latency")
    assert found.status is Status.INCONCLUSIVE
    assert found.detectable is not None
    assert found.detectable > 0.1
    assert "could have seen" in found.reason


def test_worse_is_never_judged_better() -> None:
    order = [Status.IMPROVED, Status.PASS, Status.INCONCLUSIVE, Status.FAIL]
    for name in ("latency", "speedup"):
        found = [metric(judge(*[process(0.7 + step / 100)] * 3), name).status for step in range(60)]
        assert found == sorted(found, key=order.index)
        assert set(found) == {Status.IMPROVED, Status.PASS, Status.FAIL}


@pytest.mark.parametrize(
    ("factor", "statuses_of_both"),
    [
        (1.02, (Status.PASS, Status.PASS)),
        (1.05, (Status.FAIL, Status.IMPROVED)),
        (1.2, (Status.FAIL, Status.IMPROVED)),
    ],
)
def test_a_slowdown_and_its_inverse_are_mirror_images(factor: float, statuses_of_both: tuple[Status, Status]) -> None:
    entry = make_entry((process(),) * 15)
    worse, better = (metric(judge(*[process(f)] * 3, entry=entry), "latency") for f in (factor, 1 / factor))
    assert (worse.status, better.status) == statuses_of_both
    assert (1 + (worse.effect or 0)) * (1 + (better.effect or 0)) == pytest.approx(1)


def test_the_unit_of_time_does_not_matter() -> None:
    def scaled(p: Estimates) -> Estimates:
        names = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_q10_ms")
        return replace(p, **{name: 1000 * getattr(p, name) for name in names})

    fresh = noisy(3, 1.04, seed=3)
    entry = make_entry(tuple(map(scaled, BASELINE.processes)))
    here, there = metric(judge(*fresh), "latency"), metric(judge(*map(scaled, fresh), entry=entry), "latency")
    assert (here.status, here.effect) == (there.status, pytest.approx(there.effect))


def test_a_bigger_suite_needs_more_proof() -> None:
    few, many = (metric(judge(process(), comparisons=n), "latency").detectable for n in (1, 1_000_000))
    assert few is not None
    assert many is not None
    assert few < many


def test_small_losses_add_up_against_the_anchor() -> None:
    crept = make_entry(noisy(15, 1.06, seed=5), anchor=noisy(5, 1.0, seed=6))
    verdict = judge(*noisy(3, 1.06, seed=7), entry=crept)
    assert verdict.status is Status.FAIL
    assert "anchor" in verdict.reason


def test_fp32_has_no_speedup_to_judge() -> None:
    entry = make_entry(noisy(15, speedup=1.0), make_setup("fp32"))
    assert "speedup" not in statuses(judge(process(speedup=1.0), entry=entry))


def test_a_slowdown_of_both_is_seen_in_absolute_time_only() -> None:
    verdict = judge(*(replace(p, speedup=1.4, speedup_low=1.39, speedup_high=1.41) for p in noisy(3, 1.1)))
    assert (statuses(verdict)["latency"], statuses(verdict)["speedup"]) == (Status.FAIL, Status.PASS)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_disturbed_times_prove_nothing(factor: float) -> None:
    verdict = judge(*[process(factor)] * 3, disturbance="thermal throttling")
    assert {statuses(verdict)[name] for name in ("latency", "speedup")} == {Status.INCONCLUSIVE}
    assert "thermal throttling" in verdict.reason
    assert verdict.more_processes == 0


def paced(pace: float, factor: float = 1.0, share: float = 0.6) -> Estimates:
    """A process on a machine whose sentinel took ``pace`` as long as usual, which the model follows by ``share``."""
    shape = {"speedup": 1.4 / factor, "speedup_low": 1.39 / factor, "speedup_high": 1.41 / factor}
    return process(factor * pace**share, sentinel_ms=3.0 * pace, **shape)


PACED = make_entry(tuple(paced(pace) for pace in (0.96, 1.03, 0.99, 1.05, 1.0, 0.97, 1.02, 1.04, 0.98, 1.01)))


@pytest.mark.parametrize(("factor", "speedup"), [(0.8, Status.IMPROVED), (1.25, Status.FAIL)])
def test_a_moved_sentinel_makes_a_changed_absolute_time_inconclusive(factor: float, speedup: Status) -> None:
    verdict = judge(*[paced(1.2, factor)] * 3, entry=PACED)
    assert statuses(verdict)["latency"] is Status.INCONCLUSIVE
    assert "moved by +19.5 %: the machine changed" in metric(verdict, "latency").reason
    assert statuses(verdict)["speedup"] is speedup


@pytest.mark.parametrize(("factor", "at_usual_pace"), [(0.92, Status.IMPROVED), (1.08, Status.FAIL)])
def test_a_paired_ratio_proves_nothing_that_the_machines_own_change_may_explain(
    factor: float, at_usual_pace: Status
) -> None:
    usual, moved = (metric(judge(*[paced(pace, factor)] * 3, entry=PACED), "speedup") for pace in (1.0, 1.2))
    assert usual.status is at_usual_pace
    assert moved.status is Status.INCONCLUSIVE
    assert "the machine changed" in moved.reason


def test_fresh_processes_that_are_less_sure_of_themselves_need_more_proof() -> None:
    entry = make_entry(noisy(15))
    sure = [process(1.06)] * 3
    unsure = [replace(p, speedup_low=p.speedup / 1.08, speedup_high=p.speedup * 1.08) for p in sure]  # type: ignore[operator]
    assert statuses(judge(*sure, entry=entry))["speedup"] is Status.FAIL
    assert statuses(judge(*unsure, entry=entry))["speedup"] is Status.INCONCLUSIVE
    much_slower = [replace(p, speedup=(p.speedup or 0) / 1.3) for p in unsure]
    assert statuses(judge(*much_slower, entry=entry))["speedup"] is Status.FAIL


def test_a_pace_that_the_model_follows_is_taken_out() -> None:
    latency = metric(judge(*[paced(1.04)] * 3, entry=PACED), "latency")
    assert latency.status is Status.PASS
    assert latency.effect == pytest.approx(0, abs=0.003)
    assert "given the sentinel" in latency.reason


@pytest.mark.parametrize("pace", [0.97, 1.0, 1.04])
def test_a_slowdown_is_found_at_any_usual_pace(pace: float) -> None:
    latency = metric(judge(*[paced(pace, 1.05)] * 3, entry=PACED), "latency")
    assert latency.status is Status.FAIL
    assert latency.effect == pytest.approx(0.05, abs=0.003)


def test_a_pace_that_was_never_seen_proves_nothing() -> None:
    steady = make_entry(noisy(15))
    narrow, wide = (metric(judge(*[paced(pace)] * 3, entry=steady), "latency") for pace in (1.002, 1.02))
    assert narrow.status is Status.PASS
    assert (wide.effect_high or 0) - (wide.effect_low or 0) > 1.5 * (
        (narrow.effect_high or 0) - (narrow.effect_low or 0)
    )


@pytest.mark.parametrize("name", ["torch", "pytest-vq"])
def test_the_sentinel_is_not_used_across_versions_of_what_fixes_it(name: str) -> None:
    faster = process(sentinel_ms=2.4, versions={"torch": "2.12.0", "python": "3.11", name: "2.13.0"})
    verdict = judge(*[faster] * 3)
    assert statuses(verdict)["latency"] is Status.PASS
    assert metric(verdict, "latency").effect == pytest.approx(0, abs=0.005)


def test_absolute_time_does_not_gate_on_an_unseen_device() -> None:
    verdict = judge(*noisy(3, 1.2, device_uuid="GPU-2"))
    assert statuses(verdict)["latency"] is Status.INCONCLUSIVE
    assert "GPU-2" in metric(verdict, "latency").reason
    assert statuses(verdict)["speedup"] is Status.FAIL


def test_absolute_time_is_compared_with_the_same_device() -> None:
    mixed = make_entry((*noisy(5), *noisy(5, 1.1, device_uuid="GPU-2")), anchor=noisy(5))
    same = replace(process(1.1, device_uuid="GPU-2"), speedup=1.4)
    assert statuses(judge(same, same, same, entry=mixed))["latency"] is Status.PASS
    assert statuses(judge(*[process(1.1)] * 3, entry=mixed))["latency"] is Status.FAIL


@pytest.mark.parametrize("side", ["candidate", "baseline"])
def test_below_six_samples_time_is_never_gated(side: str) -> None:
    blind = dict.fromkeys(["latency_low_ms", "latency_high_ms", "speedup_low", "speedup_high"])
    fresh = process(2.0, **(blind if side == "candidate" else {}))
    entry = BASELINE if side == "candidate" else make_entry(noisy(15, **blind))
    verdict = judge(*[fresh] * 3, entry=entry)
    assert {statuses(verdict)[name] for name in ("latency", "speedup")} == {Status.INCONCLUSIVE}
    assert "too few samples to gate time" in verdict.reason


# -- one baseline process


@pytest.mark.parametrize(
    ("factor", "latency", "speedup"),
    [
        (1.0, Status.PASS, Status.PASS),
        (1.08, Status.INCONCLUSIVE, Status.FAIL),
        (1.12, Status.FAIL, Status.FAIL),
    ],
)
def test_one_process_gates_by_wide_tolerances(factor: float, latency: Status, speedup: Status) -> None:
    verdict = judge(*[process(factor)] * 3, entry=make_entry((process(),)), noise=Noise())
    assert statuses(verdict)["speedup"] is speedup
    assert statuses(verdict)["latency"] is latency
    assert metric(verdict, "latency").tolerance == 0.10
    assert metric(verdict, "speedup").tolerance == 0.05
    assert "uncalibrated" in metric(verdict, "latency").reason
    assert "--vq-save" in metric(verdict, "latency").reason


def test_an_interval_that_includes_no_change_does_not_fail() -> None:
    vague = process(1.12, latency_low_ms=60.0, latency_high_ms=110.0)
    assert (
        statuses(judge(*[vague] * 3, entry=make_entry((process(),)), noise=Noise()))["latency"] is Status.INCONCLUSIVE
    )


def test_a_pool_calibrates_a_pair_of_one_process() -> None:
    verdict = judge(*[process(1.05)] * 3, entry=make_entry((process(),)), noise=KNOWN)
    assert statuses(verdict)["latency"] is Status.FAIL
    assert "uncalibrated" not in verdict.reason


def test_the_markers_tolerance_replaces_the_default() -> None:
    wide = Tolerances(latency_tolerance=0.25, speedup_tolerance=0.25)
    assert judge(*[process(1.1)] * 3, tolerances=wide).status is Status.PASS
    assert judge(*[process(1.3)] * 3, tolerances=wide).status is Status.FAIL


# -- memory, size, fidelity


@pytest.mark.parametrize(
    ("setup", "baseline", "now", "status"),
    [
        (GPU, [100, 100], 100.4, Status.PASS),
        (GPU, [100, 100], 100.5, Status.FAIL),
        (GPU, [100, 100], 99.4, Status.IMPROVED),
        (GPU, [100], 101.9, Status.PASS),
        (GPU, [100], 102.0, Status.FAIL),
        (GPU, [1000, 1001], 1009, Status.PASS),
        (GPU, [1000, 1001], 1012, Status.FAIL),
        (CPU, [6] * 5, 10.7, Status.PASS),
        (CPU, [50] * 5, 57.9, Status.PASS),
        (CPU, [50] * 5, 58.0, Status.FAIL),
        (CPU, [1000] * 5, 1049, Status.PASS),
        (CPU, [1000] * 5, 1050, Status.FAIL),
        (CPU, [92.3, 81.3, 85.8, 77.7, 103.6], 57.3, Status.PASS),
        (CPU, [92.3, 81.3, 85.8, 77.7, 103.6], 137, Status.PASS),
        (CPU, [92.3, 81.3, 85.8, 77.7, 103.6], 138, Status.FAIL),
        (CPU, [20], 35.9, Status.PASS),
        (CPU, [20], 36, Status.FAIL),
        (CPU, [100], 149, Status.PASS),
        (CPU, [100], 150, Status.FAIL),
    ],
)
def test_memory_gates_by_how_well_it_repeats(setup: Setup, baseline: list[float], now: float, status: Status) -> None:
    entry = make_entry(tuple(process(peak_memory_bytes=int(b * MIB)) for b in baseline), setup)
    verdict = judge(process(peak_memory_bytes=int(now * MIB)), entry=entry)
    assert statuses(verdict)["peak_memory"] is status
    assert verdict.more_processes == (setup is CPU and status is Status.FAIL)


def test_resident_memory_counts_by_its_middle_process() -> None:
    peaks = [160 * MIB, 100 * MIB, 101 * MIB]
    verdict = judge(*(process(peak_memory_bytes=p) for p in peaks))
    assert statuses(verdict)["peak_memory"] is Status.PASS


def test_the_markers_memory_tolerance_is_relative_and_replaces_the_default() -> None:
    grown = process(peak_memory_bytes=110 * MIB)
    assert statuses(judge(grown, tolerances=Tolerances(memory_tolerance=0.2)))["peak_memory"] is Status.PASS
    assert statuses(judge(grown, tolerances=Tolerances(memory_tolerance=0.01)))["peak_memory"] is Status.FAIL


@pytest.mark.parametrize("before", [0, 1])
def test_no_marker_makes_resident_memory_finer_than_it_is(before: int) -> None:
    entry = make_entry((process(peak_memory_bytes=before * MIB),) * 5)
    for now, status in ((before + 7, Status.PASS), (before + 9, Status.FAIL)):
        fresh = [process(peak_memory_bytes=now * MIB)] * 3
        assert (
            statuses(judge(*fresh, entry=entry, tolerances=Tolerances(memory_tolerance=0.1)))["peak_memory"] is status
        )


def test_memory_creep_is_seen_by_the_anchor() -> None:
    entry = make_entry(tuple(process(peak_memory_bytes=120 * MIB) for _ in range(5)), anchor=(process(),))
    assert statuses(judge(process(peak_memory_bytes=120 * MIB), entry=entry))["peak_memory"] is Status.FAIL


def test_memory_that_one_side_lacks_is_said() -> None:
    assert statuses(judge(process(peak_memory_bytes=None)))["peak_memory"] is Status.INCONCLUSIVE
    without = make_entry(noisy(5, peak_memory_bytes=None))
    assert statuses(judge(process(), entry=without))["peak_memory"] is Status.NO_BASELINE
    assert "peak_memory" not in statuses(judge(process(peak_memory_bytes=None), entry=without))


@pytest.mark.parametrize(
    ("growth", "status"),
    [(0, Status.PASS), (10_000, Status.PASS), (21_000, Status.FAIL), (-MIB, Status.IMPROVED)],
)
def test_weights_that_grew_fail_and_a_longer_header_does_not(growth: int, status: Status) -> None:
    assert statuses(judge(process(model_size_bytes=20 * MIB + growth)))["model_size"] is status


@pytest.mark.parametrize(("marked", "status"), [(None, Status.FAIL), (25.0, Status.PASS), (40.0, Status.FAIL)])
def test_fidelity_has_a_lower_bound_that_the_marker_replaces(marked: float | None, status: Status) -> None:
    verdict = judge(process(), min_sqnr_db=31.0, tolerances=Tolerances(min_sqnr_db=marked))
    assert statuses(verdict)["sqnr"] is status


def test_fidelity_needs_no_baseline() -> None:
    bounds = {"tolerances": Tolerances(min_accuracy=0.9), "min_sqnr_db": 20.0}
    verdict = decide(Question(candidates=(process(sqnr_db=3.0),), setup=CPU, entries=(), **bounds))
    assert verdict.status is Status.FAIL
    assert statuses(verdict) == {
        "baseline": Status.NO_BASELINE,
        "sqnr": Status.FAIL,
        "accuracy": Status.INCONCLUSIVE,
    }
    assert "3.0 dB" in verdict.reason


def test_not_a_number_is_not_faithful() -> None:
    assert statuses(judge(process(sqnr_db=float("nan")), min_sqnr_db=20.0))["sqnr"] is Status.FAIL


# -- what is compared with what


def compared(setup: Setup, *entries: Entry) -> Verdict:
    """The verdict on a process of ``setup``, whatever the entries are of."""
    return decide(Question(candidates=(process(),), setup=setup, entries=entries, noise=KNOWN))


def test_without_an_entry_of_this_precision_there_is_no_baseline() -> None:
    verdict = compared(make_setup("int4"), BASELINE)
    assert (verdict.status, verdict.more_processes) == (Status.NO_BASELINE, 0)
    assert "int4" in verdict.reason
    assert "--vq-save" in verdict.reason


def test_another_protocol_is_incomparable_and_both_values_are_named() -> None:
    verdict = compared(make_setup(protocol="study", threads=4), BASELINE)
    assert verdict.status is Status.INCOMPARABLE
    assert "protocol study here, adaptive in the baseline" in verdict.reason
    assert "threads 4 here, 1 in the baseline" in verdict.reason


@pytest.mark.parametrize(
    ("here", "there", "scheme"), [("eager", "compile", "int8"), ("compile", "eager", "int8+compile")]
)
def test_executions_of_one_precision_are_never_compared_with_each_other(here: str, there: str, scheme: str) -> None:
    verdict = compared(make_setup(execution=here), make_entry(noisy(15), make_setup(execution=there)))
    assert (verdict.status, verdict.more_processes) == (Status.NO_BASELINE, 0)
    assert f"no baseline for {scheme} at batch 1 on this device" in verdict.reason


def test_the_entry_of_the_same_execution_is_found_beside_the_others() -> None:
    eager = make_entry(noisy(15))
    compiled = make_entry(noisy(15, 0.5), make_setup(execution="compile"))
    for entries in ((eager, compiled), (compiled, eager)):
        question = Question(candidates=noisy(3, 0.5, seed=1), setup=compiled.setup, entries=entries, noise=KNOWN)
        assert decide(question).status is Status.PASS


def test_the_same_execution_under_another_protocol_is_incomparable() -> None:
    here, there = (make_setup(execution="compile", protocol=name) for name in ("study", "adaptive"))
    verdict = compared(here, BASELINE, make_entry(noisy(15), there))
    assert verdict.status is Status.INCOMPARABLE
    assert "not comparable with the baseline: protocol study here, adaptive in the baseline;" in verdict.reason


@pytest.mark.parametrize(("factor", "status"), [(1.0, Status.PASS), (1.1, Status.FAIL), (0.8, Status.IMPROVED)])
def test_fp32_under_another_execution_is_not_the_reference_and_its_speedup_is_judged(
    factor: float, status: Status
) -> None:
    entry = make_entry((process(),) * 15, make_setup("fp32", execution="compile"))
    assert statuses(judge(*[process(factor)] * 3, entry=entry))["speedup"] is status


def test_fp32_under_another_execution_has_fidelity_to_keep() -> None:
    eager, compiled = (make_entry(noisy(15), make_setup("fp32", execution=name)) for name in ("eager", "compile"))
    assert "sqnr" not in statuses(judge(process(sqnr_db=30.0), entry=eager, min_sqnr_db=40.0))
    assert statuses(judge(process(sqnr_db=30.0), entry=compiled, min_sqnr_db=40.0))["sqnr"] is Status.FAIL


def test_a_decision_needs_a_process() -> None:
    with pytest.raises(ValueError, match="at least one process"):
        judge()


def test_a_reason_holds_what_a_person_needs() -> None:
    versions = {"torch": "2.13.0", "python": "3.11"}
    entry = make_entry((process(),) * 15)
    reason = judge(*[process(1.12, versions=versions)] * 3, entry=entry).reason
    for part in (
        "latency (10 % quantile) 74.0 ms → 82.9 ms",
        "+12.0 %",
        "95 % interval",
        "tolerance 3 %",
        "15 baseline processes",
    ):
        assert part in reason
    assert reason.endswith("differs: torch 2.12.0 → 2.13.0")
    assert reason.count("differs") == 1


def test_every_timed_verdict_is_complete() -> None:
    for found in judge(process(1.01)).metrics[:2]:
        assert None not in (found.baseline, found.current, found.effect, found.tolerance, found.detectable)
        assert found.effect_low < found.effect < found.effect_high  # type: ignore[operator]


def test_there_are_never_more_than_ten_fresh_processes() -> None:
    rng = random.Random(9)
    for _ in range(200):
        fresh = [process(rng.uniform(0.8, 1.3)) for _ in range(DEFAULT.max_processes)]
        assert judge(*fresh).more_processes == 0


# -- another pace of a GPU, and rows that launches bind


def clocked(clock_mhz: float | None = 1755.0, limit_w: int | None = 700, **changes: Any) -> Estimates:
    return process(sm_clock_mhz=clock_mhz, power_limit_mw=limit_w and limit_w * 1000, **changes)


CLOCKED = make_entry(tuple(clocked(clock) for clock in (1755.0, 1740.0, 1770.0, 1755.0, 1755.0)), GPU)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (clocked(1650.0), "an SM clock of 1650 MHz while timing, at least 1740 MHz in the baseline"),
        (clocked(1755.0, 350), "a power limit of 350 W, at least 700 W in the baseline"),
        (clocked(None, 350), "a power limit of 350 W"),
    ],
)
def test_a_gpu_at_slower_clocks_cannot_be_compared_in_time(now: Estimates, words: str) -> None:
    slow = replace(now, latency_q10_ms=90.0, latency_ms=91.0)
    verdict = judge(slow, entry=CLOCKED)
    assert verdict.status is Status.INCOMPARABLE
    assert words in verdict.reason
    assert set(statuses(verdict)) == {"clocks", "sqnr against the baseline", "peak_memory", "model_size"}
    assert verdict.more_processes == 0


def test_at_slower_clocks_memory_is_still_gated() -> None:
    verdict = judge(clocked(1650.0, peak_memory_bytes=200 * MIB), entry=CLOCKED)
    assert (verdict.status, statuses(verdict)["peak_memory"]) == (Status.FAIL, Status.FAIL)


@pytest.mark.parametrize("now", [clocked(1700.0), clocked(1900.0, 800), clocked(None, None)])
def test_clocks_within_three_per_cent_or_faster_or_unknown_are_comparable(now: Estimates) -> None:
    assert judge(now, entry=CLOCKED).status is Status.PASS


def bound(device: float | None, latency: float = 1.0, *, is_bound: bool = True) -> Estimates:
    """A process whose device time and whose latency are so many times as long, FP32's as ever."""
    ratios = {"speedup": 1.4 / latency, "speedup_low": 1.39 / latency, "speedup_high": 1.41 / latency}
    return process(launch_bound=is_bound, device_speedup=device and 2.0 / device, **ratios)


BOUND = make_entry(tuple(bound(1 + 0.002 * (n % 5 - 2)) for n in range(15)), GPU)


def test_where_launches_bind_a_row_the_speedup_of_device_time_is_gated() -> None:
    slower_kernels, slower_dispatch = (judge(*[now] * 3, entry=BOUND) for now in (bound(1.1), bound(1.0, 1.1)))
    assert statuses(slower_kernels)["device speedup"] is Status.FAIL
    assert "device speedup 2.00x → 1.82x (+10.0 % device time against FP32" in slower_kernels.reason
    assert slower_dispatch.status is Status.PASS
    assert "speedup" not in {**statuses(slower_kernels), **statuses(slower_dispatch)}


@pytest.mark.parametrize(
    "now", [bound(1.0, 1.1, is_bound=False), bound(None, 1.1)], ids=["not bound", "no device time"]
)
def test_elsewhere_the_speedup_of_latency_is_gated(now: Estimates) -> None:
    assert statuses(judge(*[now] * 3, entry=BOUND))["speedup"] is Status.FAIL


def test_a_baseline_without_device_times_is_compared_by_latency() -> None:
    assert statuses(judge(*[bound(1.0, 1.1)] * 3))["speedup"] is Status.FAIL


# -- how often to look


LOUD = Noise({kind: Prior(60.0, 0.02**2, 20) for kind in (*KINDS, SENTINEL)})
LOUD_BASELINE = make_entry((process(),) * 5)


def test_a_suspect_that_three_processes_cannot_prove_is_looked_at_until_ten() -> None:
    looks = {n: judge(*[process(1.05)] * n, entry=LOUD_BASELINE, noise=LOUD) for n in DEFAULT.looks}
    assert {n: v.more_processes for n, v in looks.items()} == {1: 1, 2: 1, 3: 3, 6: 4, 10: 0}
    assert [looks[n].status for n in (3, 6, 10)] == [Status.INCONCLUSIVE, Status.INCONCLUSIVE, Status.FAIL]


def test_a_slowdown_that_is_proven_early_takes_no_more_processes() -> None:
    verdict = judge(*[process(1.2)] * 3, entry=LOUD_BASELINE, noise=LOUD)
    assert (verdict.status, verdict.more_processes) == (Status.FAIL, 0)


def test_what_is_merely_open_is_looked_at_until_six() -> None:
    looks = {n: judge(*[process(1.005)] * n, entry=LOUD_BASELINE, noise=LOUD) for n in (1, 2, 3, 6)}
    assert {n: v.more_processes for n, v in looks.items()} == {1: 1, 2: 1, 3: 3, 6: 0}
    assert [looks[n].status for n in (3, 6)] == [Status.INCONCLUSIVE, Status.PASS]


def test_what_no_further_process_could_settle_is_not_looked_at_again() -> None:
    hopeless = Noise({kind: Prior(60.0, 0.2**2, 20) for kind in (*KINDS, SENTINEL)})
    for factor in (1.0, 1.05):
        assert judge(*[process(factor)] * 3, entry=LOUD_BASELINE, noise=hopeless).more_processes == 0


def test_where_nothing_watches_the_machines_pace_absolute_time_has_three_processes() -> None:
    entry = make_entry((process(sentinel_ms=None),) * 5, make_setup("fp32"))
    looks = [judge(*[process(1.05, sentinel_ms=None)] * n, entry=entry, noise=LOUD) for n in (3, 10)]
    assert [v.more_processes for v in looks] == [0, 0]
    assert [metric(v, "latency").effect_low for v in looks] == [metric(looks[0], "latency").effect_low] * 2
    assert "5 baseline processes, 3 fresh" in looks[1].reason


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.09, 1.11, 1.15, 1.2, 1.3])
@pytest.mark.parametrize("width", [0.003, 0.1, 0.2, 0.3])
def test_one_baseline_process_never_asks_for_more_than_three(factor: float, width: float) -> None:
    """However near the answer is: by the uncalibrated rule each further look would be one more chance to fail."""
    wide = process(factor, latency_low_ms=75 * factor / (1 + width), latency_high_ms=75 * factor * (1 + width))
    assert judge(*[wide] * 3, entry=make_entry((process(),)), noise=Noise()).more_processes == 0


@pytest.mark.parametrize(("dissenting", "status"), [(2, Status.FAIL), (3, Status.INCONCLUSIVE)])
def test_of_ten_processes_two_need_not_confirm_a_slowdown(dissenting: int, status: Status) -> None:
    fresh = [process(1.1)] * (10 - dissenting) + [process()] * dissenting
    assert metric(judge(*fresh), "latency").status is status


# -- the median and the 95 % quantile, which are shown beside what is gated


def tailed(median: float, p95: float = 1.0, pace: float = 1.0, **changes: Any) -> Estimates:
    """A process whose 10 % quantile and speedup are as ever, on a machine whose sentinel's median moved by ``pace``."""
    times = {"latency_ms": 75.0 * median, "latency_low_ms": 74.8 * median, "latency_high_ms": 75.2 * median}
    more = {"latency_p95_ms": 90.0 * p95, "sentinel_median_ms": 3.2 * pace}
    return process(**(times | more | changes))


TAILED = make_entry(tuple(tailed(1 + 0.002 * (n % 5 - 2), 1 + 0.01 * (n % 3 - 1)) for n in range(15)))
BOTH = ("median latency", "p95 latency")
TYPICAL = Noise(
    KNOWN.priors
    | {
        name + given: Prior(60.0, s**2, 20)
        for name, s in zip(BOTH, (0.005, 0.01), strict=True)
        for given in ("", GIVEN_SENTINEL)
    }
)


@pytest.mark.parametrize(("worse", "name"), [((1.2, 1.0), "median latency"), ((1.0, 1.3), "p95 latency")])
def test_a_slower_median_or_tail_fails_by_its_own_noise_and_is_named(worse: tuple[float, float], name: str) -> None:
    verdict = judge(*[tailed(*worse)] * 3, entry=TAILED, noise=TYPICAL)
    assert verdict.status is Status.FAIL
    assert statuses(verdict)["latency"] is Status.PASS
    assert {other: statuses(verdict)[other] for other in BOTH} == dict.fromkeys(BOTH, Status.PASS) | {name: Status.FAIL}
    assert verdict.reason.startswith(f"{name} ")


def test_a_median_that_its_noise_may_explain_blocks_a_pass() -> None:
    restless = Noise(TYPICAL.priors | {"median latency" + GIVEN_SENTINEL: Prior(60.0, 0.15**2, 20)})
    looks = {worse: judge(*[tailed(worse)] * 3, entry=TAILED, noise=restless) for worse in (1.05, 1.12)}
    assert looks[1.05].status is Status.PASS
    assert looks[1.12].status is Status.INCONCLUSIVE
    assert "median latency 75.0 ms → 84.0 ms" in looks[1.12].reason


def test_what_the_sentinels_own_median_explains_blocks_nothing() -> None:
    paced = make_entry(tuple(tailed(pace, pace=pace) for pace in (0.9, 1.0, 1.1, 0.95, 1.05, 1.0, 0.92, 1.08)))
    assert judge(tailed(1.12, pace=1.12), entry=paced, noise=TYPICAL).status is Status.PASS
    assert statuses(judge(*[tailed(1.12)] * 3, entry=paced, noise=TYPICAL))["median latency"] is Status.FAIL


def test_a_tail_that_did_not_get_shorter_with_a_faster_machine_is_not_worse() -> None:
    paced = make_entry(tuple(tailed(pace, pace, pace) for pace in (0.9, 1.0, 1.1, 0.95, 1.05, 1.0, 0.92, 1.08)))
    for looks in (1, 3):
        found = statuses(judge(*[tailed(0.8, 1.0, 0.8)] * looks, entry=paced, noise=TYPICAL))
        assert found["p95 latency"] is Status.PASS
    slower = [tailed(0.8, 1.3, 0.8)] * 3
    assert statuses(judge(*slower, entry=paced, noise=TYPICAL))["p95 latency"] is not Status.PASS


def test_a_slow_median_is_looked_at_again_before_it_blocks() -> None:
    restless = Noise(TYPICAL.priors | {"median latency" + GIVEN_SENTINEL: Prior(60.0, 0.15**2, 20)})
    first = judge(tailed(1.2), entry=TAILED, noise=restless)
    assert (first.status, first.more_processes) == (Status.INCONCLUSIVE, 1)
    assert judge(tailed(1.2), tailed(1.0), tailed(1.0), entry=TAILED, noise=restless).status is Status.PASS


def test_one_baseline_process_cannot_fail_a_median() -> None:
    verdict = judge(*[tailed(1.5)] * 3, entry=make_entry((tailed(1.0),)), noise=Noise())
    assert statuses(verdict)["median latency"] is Status.INCONCLUSIVE


def test_a_faster_median_alone_is_no_improvement() -> None:
    assert judge(*[tailed(0.7)] * 3, entry=TAILED, noise=TYPICAL).status is Status.PASS


def test_a_tail_that_one_side_lacks_is_not_judged() -> None:
    assert "p95 latency" not in statuses(judge(tailed(1.0, latency_p95_ms=None), entry=TAILED))
    assert "p95 latency" not in statuses(judge(tailed(1.0)))


def test_medians_of_a_card_never_seen_are_not_judged() -> None:
    assert "median latency" not in statuses(judge(tailed(1.5, device_uuid="GPU-2"), entry=TAILED))


def test_another_type_of_the_rest_is_not_comparable() -> None:
    entry = make_entry(noisy(15), replace(CPU, rest="bf16"))
    verdict = decide(Question((process(),), replace(CPU, rest="fp32"), (entry,)))
    assert verdict.status is Status.INCOMPARABLE
    assert "rest fp32 here, bf16 in the baseline" in verdict.reason
