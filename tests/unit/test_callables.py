"""A callable's way through the house: its name and file, what its tests may ask for, its record, and its verdict."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calibrations import importable_calibrations
from factories import (
    CALLABLE_SETUP,
    ENVIRONMENT,
    MIB,
    TEST_ID,
    make_callable_record,
    make_entry,
    make_outcome,
    make_record,
    make_setup,
)
from fake_clock import FakeClock
from own_bench import own_bench

from pytest_vq.device.memory import HostMemory, MemoryReading
from pytest_vq.errors import BaselineError, DeviceOutOfMemoryError, MeasurementError, SelectionError
from pytest_vq.execution.prepared import Request
from pytest_vq.files import file_name, name_in
from pytest_vq.gate.decide import decide
from pytest_vq.gate.explain import what_changed
from pytest_vq.gate.noise import LATENCY, LATENCY_CALLABLES, Noise, learn_noise
from pytest_vq.gate.paired import Sides, decide_paired
from pytest_vq.gate.question import Question
from pytest_vq.gate.stats import Prior
from pytest_vq.measure import paired_timing
from pytest_vq.measure.bench import Bench
from pytest_vq.measure.paired_timing import Partners, time_callable
from pytest_vq.measure.sampler import StopRule
from pytest_vq.options import Options
from pytest_vq.plugin.benchmark import group_of
from pytest_vq.plugin.items import measured_by
from pytest_vq.plugin.marker import check_marker
from pytest_vq.plugin.xdist import id_without_group
from pytest_vq.report.next_command import measure_again, record_baselines
from pytest_vq.report.page.page_render import render_page
from pytest_vq.report.report_callables import rows_in_words
from pytest_vq.report.study_report import study_report
from pytest_vq.report.table import records_table
from pytest_vq.schema.cases import CallableCase
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status, Verdict
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.explained import explained_file, read_explained
from pytest_vq.store.results import Results, read_results
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.sides import read_side

SLUG = ENVIRONMENT.device_slug
IDS = (
    TEST_ID,
    "test_a.py::TestKernels::test_matmul[float16-(64, 64)]",
    "../elsewhere/test_a.py::test_b",
    ".hidden/test_a.py::test_b",
    "test_a.py::test_b[http://x//y?z=%2F&a=b]",
    "test_a.py::test_b[größe-\u202e-\n-\x1b[31m]",
    "test_a.py::test_b[a+b]",
    "test_a.py::test_b[a b]",
    "test_a.py::test_b[" + 80 * "ü" + "]",
    "test_a.py::test_b[" + 80 * "ü" + "!]",
    "test_a.py::test_b[" + 3000 * "x" + "]",
)


class TestNames:
    def test_a_callable_is_called_by_the_id_of_its_test(self) -> None:
        assert str(CaseId.of_callable(TEST_ID)) == make_callable_record().id == TEST_ID
        assert CALLABLE_SETUP.words == "this callable"
        assert make_setup(batch=8).words == "int8 at batch 8"

    @pytest.mark.parametrize("test_id", IDS)
    def test_any_id_gives_one_file_name_that_every_file_system_takes(self, test_id: str, tmp_path: Path) -> None:
        name = file_name(test_id, ".json")
        assert len(name.encode()) <= 200
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~%+")
        assert not name.startswith(".")
        (tmp_path / name).touch()
        assert name_in(name.removesuffix(".json")) in {test_id, None}

    def test_no_two_ids_share_a_file(self) -> None:
        assert len({file_name(test_id) for test_id in IDS}) == len(IDS)

    def test_the_file_of_an_id_is_readable_as_far_as_there_is_room(self) -> None:
        assert file_name(TEST_ID, ".json") == "tests%2Ftest_ops.py%3A%3Atest_matmul%5B64%5D.json"
        assert file_name(IDS[-1]).startswith("test_a.py%3A%3Atest_b%5Bxxx")

    def test_the_files_that_explain_pairs_are_called_as_ever(self) -> None:
        assert explained_file("vit-base-int8+compile-b8") == "vit-base-int8+compile-b8.json"


def process(factor: float = 1.0, number: int = 0, **changes: Any) -> Estimates:
    """What a process measured of a callable that takes 10 ms, or ``factor`` as long, beside its sentinel."""
    times = {"latency_ms": 10.0, "latency_low_ms": 9.9, "latency_high_ms": 10.1, "latency_q10_ms": 9.8}
    record = make_callable_record(**{name: factor * ms for name, ms in times.items()}, sentinel_ms=2.5)
    environment = replace(ENVIRONMENT, date_utc=f"2026-01-01T00:{number:02}:00Z")
    return replace(Estimates.of(record, environment), **changes)


def some(number: int = 5, factor: float = 1.0, **changes: Any) -> tuple[Estimates, ...]:
    """Processes that differ by some parts in a thousand."""
    return tuple(process(factor * (1 + (i % 5 - 2) / 500), i, **changes) for i in range(number))


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    """Five processes each of two callables, one with a name too long for a file, and one of a model."""
    made = BaselineStore(tmp_path / "baselines")
    taken = [(name, CALLABLE_SETUP, estimates) for name in (TEST_ID, IDS[-1]) for estimates in some()]
    made.append(SLUG, "A CPU", [*taken, ("net", make_setup(), Estimates.of(make_record(), ENVIRONMENT))])
    return made


class TestStore:
    def test_they_are_kept_in_a_folder_of_their_own(self, store: BaselineStore) -> None:
        kept = sorted(path.relative_to(store.root / SLUG).as_posix() for path in store.root.rglob("*.json"))
        folder = "callables/"
        assert kept == sorted([folder + file_name(TEST_ID, ".json"), folder + file_name(IDS[-1], ".json"), "net.json"])

    def test_they_are_found_by_their_tests(self, store: BaselineStore) -> None:
        assert store.models(SLUG) == ["net", IDS[-1], TEST_ID]
        assert store.devices() == [SLUG]
        for test_id in (TEST_ID, IDS[-1]):
            assert store.entry(SLUG, test_id, CALLABLE_SETUP) is not None
        assert store.entries(SLUG, "tests/test_ops.py::test_matmul[65]") == ()

    def test_callables_alone_make_a_device_known(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        store.append(SLUG, "A CPU", [(TEST_ID, CALLABLE_SETUP, process())])
        assert store.has_baselines(SLUG)
        assert store.devices() == [SLUG]
        for directory in (tmp_path, tmp_path / SLUG):
            (pair,) = read_side(str(directory), "A").pairs
            assert (str(pair.case_id), pair.category) == (TEST_ID, "callable")

    def test_a_device_without_any_file_has_none(self, tmp_path: Path) -> None:
        (tmp_path / SLUG / "callables").mkdir(parents=True)
        assert not BaselineStore(tmp_path).has_baselines(SLUG)
        assert BaselineStore(tmp_path).devices() == []

    def test_a_file_that_was_renamed_is_refused(self, store: BaselineStore) -> None:
        folder = store.root / SLUG / "callables"
        (folder / file_name(TEST_ID, ".json")).rename(folder / file_name("test_a.py::test_b", ".json"))
        with pytest.raises(BaselineError, match="was it copied or renamed"):
            store.entries(SLUG, "test_a.py::test_b")

    def test_a_name_that_is_no_unicode_is_refused(self, store: BaselineStore) -> None:
        with pytest.raises(BaselineError, match="not valid Unicode"):
            store.entries(SLUG, "test_\udcff.py::test_b")

    def test_what_explains_a_fail_is_found_by_the_test_too(self, tmp_path: Path) -> None:
        record = make_callable_record(verdict=Status.FAIL, reason="slower")
        folder = tmp_path / "explain"
        folder.mkdir()
        (folder / explained_file(TEST_ID)).write_text('{"reason":"slower","failed":["latency"],"before":{},"now":{}}')
        assert list(read_explained(tmp_path, [record])) == [record.case_id]


def item_of(*fixtures: str, node_id: str = TEST_ID, marks: Sequence[pytest.Mark] = ()) -> Any:
    """A test as far as it is asked here."""
    return SimpleNamespace(
        nodeid=node_id,
        fixturenames=fixtures,
        iter_markers=lambda name: (mark for mark in marks if mark.name == name),
    )


class TestTests:
    def test_a_test_that_uses_vq_gate_measures_a_callable(self) -> None:
        assert measured_by(item_of("benchmark", "vq_gate")) == CaseId.of_callable(TEST_ID)
        assert measured_by(item_of("benchmark", "vq_case", "vq_gate")) == CaseId.of_callable(TEST_ID)
        assert measured_by(item_of("gpu_timer")) is None

    def test_its_id_is_the_same_in_a_worker_that_appends_the_tests_group(self) -> None:
        marks = [pytest.mark.xdist_group("gpu").mark, pytest.mark.xdist_group(name="a").mark]
        assert id_without_group(item_of(node_id=f"{TEST_ID}@a_gpu", marks=marks)) == TEST_ID
        assert id_without_group(item_of(marks=marks)) == TEST_ID
        assert id_without_group(item_of(node_id="test_a.py::test_b[x@y]")) == "test_a.py::test_b[x@y]"

    def test_tolerances_of_time_and_memory_are_its_own(self) -> None:
        mark = pytest.mark.vq(latency_tolerance=0.1, memory_tolerance=0.5).mark
        check_marker(item_of(marks=[mark]), of_callable=True)

    @pytest.mark.parametrize("name", ["speedup_tolerance", "size_tolerance", "min_sqnr_db", "min_accuracy"])
    def test_what_takes_a_model_is_refused(self, name: str) -> None:
        item = item_of(marks=[pytest.mark.vq(latency_tolerance=0.1, **{name: 0.1}).mark])
        check_marker(item, of_callable=False)
        with pytest.raises(SelectionError) as refused:
            check_marker(item, of_callable=True)
        text = str(refused.value)
        assert text.startswith(f"{TEST_ID}: mark.vq({name}=...) means nothing for vq_gate: ")
        assert text.endswith("it takes latency_tolerance, memory_tolerance")

    def test_an_unknown_keyword_is_still_unknown(self) -> None:
        with pytest.raises(SelectionError, match="unknown keyword 'latency'"):
            check_marker(item_of(marks=[pytest.mark.vq(latency=0.1).mark]), of_callable=True)

    def test_pytest_benchmark_shows_them_together(self) -> None:
        cases = (CaseId.of_callable(TEST_ID), CaseId("net", "int8", 1), None)
        assert [group_of(case) for case in cases] == ["callables", "net", "pytest-vq"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with own_bench(tmp_path, Options(budget=0.02)) as made:
        yield made


def case_of(call: Callable[[], object]) -> CallableCase:
    return CallableCase(TEST_ID, "test_ops.matmul", call)


class TestRecord:
    def test_it_has_what_a_callable_has_and_nothing_else(self, bench: Bench) -> None:
        measured = bench.measure(case_of(lambda: torch.ones(64).sum()), profiled=True)
        record = measured.record
        assert (record.id, record.identity.category, record.identity.method) == (TEST_ID, "callable", "test_ops.matmul")
        assert record.setup == CALLABLE_SETUP
        assert record.timing.latency_q10_ms is not None
        assert record.timing.sentinel_ms is not None
        assert record.memory.peak_memory_bytes is not None
        assert measured.samples.reference is None
        assert measured.operators is not None
        assert "aten::sum" in measured.operators
        empty = """
            architecture parameters batch weights speedup speedup_low speedup_high reference_latency_ms throughput_ips
            energy_per_image_mj model_size_bytes memory_reduction quantized_layers eligible_layers cosine sqnr_db
            max_abs_error top1_agreement accuracy labelled_images execution device_speedup
        """
        assert {name: record.cells()[name] for name in empty.split()} == dict.fromkeys(empty.split())

    def test_it_is_stored_and_read_back_whole(self, tmp_path: Path) -> None:
        record = make_callable_record(verdict=Status.PASS)
        outcome = make_outcome(record)
        writer = ResultsWriter(tmp_path, {})
        writer.add(outcome)
        writer.close()
        (row,) = read_results(tmp_path).rows
        assert (row.record, row.estimates) == (record, outcome.estimates)
        assert (tmp_path / "results.csv").read_text().splitlines()[1].startswith(f"{TEST_ID},callable,,,callable,")

    def test_its_arguments_are_no_part_of_its_memory(self, bench: Bench) -> None:
        held = torch.ones(256 * MIB, dtype=torch.uint8)
        record = bench.measure(case_of(lambda: (held, torch.ones(64 * MIB, dtype=torch.uint8)))).record
        # Resident memory is coarse, in a process of thousands of tests more so: the one is told from the other.
        assert record.memory.peak_memory_bytes == pytest.approx(64 * MIB, abs=32 * MIB)

    def test_it_is_called_before_memory_is_marked_and_once_more_before_it_is_measured(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []

        def measure(meter: HostMemory, call: Callable[[], object], _: object = None) -> MemoryReading:
            events.append("measure")
            return MemoryReading(0, 0, None)

        monkeypatch.setattr(HostMemory, "mark", lambda meter: events.append("mark"))
        monkeypatch.setattr(HostMemory, "measure", measure)
        bench.measure(case_of(lambda: events.append("call")))
        assert events[:4] == ["call", "mark", "call", "measure"]

    def test_it_runs_as_the_session_pins_it_and_may_need_gradients(self, bench: Bench) -> None:
        seen: set[tuple[object, ...]] = set()
        weight = torch.ones(4, requires_grad=True)

        def step() -> None:
            seen.add((torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()))
            (weight * 2).sum().backward()

        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            bench.measure(case_of(step))
        finally:
            torch.set_default_dtype(before)
        assert seen == {(1, torch.float32, True)}

    def test_whatever_it_returns_is_dropped(self, bench: Bench) -> None:
        for answer in (None, "text", {"a": [1, 2]}, iter([1])):
            assert bench.measure(case_of(lambda answer=answer: answer)).record.timing.samples > 0

    def test_one_of_no_library_has_no_operators(self, bench: Bench) -> None:
        assert bench.measure(case_of(lambda: sum(range(100))), profiled=True).operators == {}
        assert what_changed(["latency"], {}, {}, ()) == [
            "no operator of torch's ran, then or now: the time is spent in other code, which is not profiled"
        ]


class TestErrors:
    def test_an_error_of_its_own_keeps_its_class_and_says_whose_it_is(self, bench: Bench) -> None:
        calls = 0

        def breaks() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise ValueError("a buffer is used up")

        with pytest.raises(ValueError, match="a buffer is used up") as raised:
            bench.measure(case_of(breaks))
        note = f"raised while vq_gate called test_ops.matmul again and again, for {TEST_ID}"
        assert raised.value.__notes__ == [note]
        assert bench.measure(case_of(lambda: None)).record.id == TEST_ID  # the next one is unharmed

    def test_running_out_of_memory_names_the_test(self, bench: Bench) -> None:
        def greedy() -> None:
            raise MemoryError

        with pytest.raises(DeviceOutOfMemoryError, match=r"test_matmul\[64\]: out of memory"):
            bench.measure(case_of(greedy))

    def test_what_would_only_run_later_is_refused(self, bench: Bench) -> None:
        async def coroutine() -> None:
            """Never awaited."""

        def generator() -> Iterator[int]:
            yield 1

        for function in (coroutine, generator):
            with pytest.raises(
                MeasurementError, match=rf"test_ops\.matmul returns a {function.__name__}, and does its"
            ):
                bench.measure(case_of(function))
            with pytest.raises(MeasurementError, match="does its work only when"):
                bench.profile(case_of(function))


class Accelerator:
    """A device whose own time is known apart from its latency, on a fake clock."""

    def __init__(self, device_ms: float) -> None:
        self.clock, self.device_ms = FakeClock(), device_ms
        telemetry: Any = SimpleNamespace(
            glance=lambda: {"sm_clock_mhz": 1980}, energy_mj=lambda: pytest.fail("there is no image to share it among")
        )
        self.device: Any = SimpleNamespace(
            clock=self.clock, telemetry=telemetry, environment=SimpleNamespace(date_utc=""), is_accelerator=True
        )

    def spend(self, ms: float) -> None:
        self.clock.now_ms += ms


@pytest.mark.parametrize(("device_ms", "told"), [(1.5, 1.5), (0.0, None)], ids=["launches", "launches nothing"])
def test_on_an_accelerator_the_devices_own_time_is_told_and_nothing_is_counted_in_images(
    device_ms: float, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Accelerator(device_ms)
    monkeypatch.setattr(paired_timing, "device_time_ms", lambda call, latency_ms: world.device_ms)
    partners = Partners(lambda: world.spend(1.0), None)
    samples, found = time_callable(Request(lambda: world.spend(4.0)), partners, world.device, StopRule(budget_s=10))
    assert set(samples.subject.times_ms) == {4.0}
    assert set(samples.sentinel.times_ms) == {1.0}
    assert (found.latency_ms, found.sentinel_ms, found.sm_clock_mhz) == (4.0, 1.0, 1980)
    assert (found.device_time_ms, found.launch_bound) == (told, None if told is None else True)
    ratios = (found.speedup, found.speedup_low, found.speedup_high, found.device_speedup, found.throughput_ips)
    assert ratios == (None,) * 5


def decided(fresh: Sequence[Estimates], recorded: Sequence[Estimates], **more: Any) -> Verdict:
    entry = make_entry(recorded, CALLABLE_SETUP)
    return decide(Question(tuple(fresh), CALLABLE_SETUP, (entry,), **{"comparisons": 1, **more}))


def statuses(verdict: Verdict) -> dict[str, Status]:
    return {metric.metric: metric.status for metric in verdict.metrics}


class TestGate:
    def test_time_and_memory_are_judged_and_nothing_else(self) -> None:
        metrics = dict.fromkeys(("latency", "median latency", "peak_memory"), Status.PASS)
        assert statuses(decided(some(3), some())) == metrics

    def test_a_tenth_slower_fails_after_three_processes(self) -> None:
        assert decided(some(1, 1.1), some()).more_processes == 1
        verdict = decided(some(3, 1.1), some())
        assert statuses(verdict)["latency"] is Status.FAIL
        assert "given the sentinel" in verdict.reason
        assert "5 baseline processes, 3 fresh" in verdict.reason

    def test_thirty_two_mebibytes_more_fail_beside_the_noise_of_resident_memory(self) -> None:
        recorded = [replace(e, peak_memory_bytes=(20 + i) * MIB) for i, e in enumerate(some())]
        for grown, status in ((6, Status.PASS), (32, Status.FAIL)):
            fresh = [replace(e, peak_memory_bytes=(22 + grown) * MIB) for e in some(3)]
            assert statuses(decided(fresh, recorded))["peak_memory"] is status

    def test_without_a_baseline_it_is_said_to_record_one(self) -> None:
        verdict = decide(Question(some(1), CALLABLE_SETUP, ()))
        assert verdict.status is Status.NO_BASELINE
        assert verdict.reason == "no baseline for this callable on this device: record one with --vq-save"

    def test_measured_on_more_threads_it_is_incomparable(self) -> None:
        entry = make_entry(some(), replace(CALLABLE_SETUP, threads=2))
        verdict = decide(Question(some(1), CALLABLE_SETUP, (entry,)))
        assert verdict.status is Status.INCOMPARABLE
        assert "threads 1 here, 2 in the baseline" in verdict.reason

    def test_two_environments_side_by_side_are_compared_in_time_and_memory(self) -> None:
        case_id = CaseId.of_callable(TEST_ID)
        sides = {case_id: Sides(CALLABLE_SETUP, some(3), some(3, 1.2))}
        metrics = {metric.metric for metric in decide_paired(sides)[case_id].metrics}
        assert metrics == {"latency", "median latency", "peak_memory"}

    def test_their_noise_is_learnt_from_them_and_teaches_pairs_nothing(self) -> None:
        entries = [make_entry(some(8), CALLABLE_SETUP) for _ in range(3)]
        learnt = learn_noise(entries)
        assert LATENCY_CALLABLES in learnt.priors
        assert LATENCY not in learnt.priors
        assert Noise({LATENCY: Prior(5.0, 1e-4, 3)}).prior(LATENCY_CALLABLES) is None


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_on_recorded_noise_unchanged_code_never_fails_and_a_tenth_more_time_always_does(factor: float) -> None:
    # Recordings of whole runs of pytest; in the others the machine was as busy as a run now says for itself.
    with importable_calibrations() as calibration:
        replay = calibration("replay")
    found: Counter[Status] = Counter()
    for recording in replay.recordings():
        if recording.name.startswith(("cpu_selftest", "cpu_hours, beside")):
            rng = random.Random(0)
            for workload in recording.workloads:
                taken = [as_callable(process.estimates[workload]) for process in recording.processes]
                for _ in range(20):
                    drawn = rng.sample(taken, 15)
                    found[settled(drawn[:5], [replay.slowed(e, factor) for e in drawn[5:]])] += 1
    assert found.total() >= 80
    assert set(found) == {Status.FAIL} if factor > 1 else Status.FAIL not in found, found


def as_callable(estimates: Estimates) -> Estimates:
    gone = ("speedup", "speedup_low", "speedup_high", "sqnr_db", "cosine", "model_size_bytes", "peak_memory_bytes")
    return replace(estimates, **dict.fromkeys(gone))


def settled(recorded: Sequence[Estimates], fresh: Sequence[Estimates]) -> Status:
    """The verdict after as many of the ``fresh`` processes as the gate asks for."""
    taken, more = 0, 1
    while more and taken < len(fresh):
        taken = min(taken + more, len(fresh))
        verdict = decided(fresh[:taken], recorded)
        more = verdict.more_processes
    return verdict.status


def results_of(*records: Record) -> Results:
    rows = tuple(SimpleNamespace(record=r, environment=ENVIRONMENT, estimates=(process(),)) for r in records)
    return Results({}, (ENVIRONMENT,), rows, (), "", "", complete=True)  # type: ignore[arg-type]


class TestReports:
    FAILED = make_callable_record(verdict=Status.FAIL, reason="latency: slower", latency_p95_ms=12.0)
    DOUBTFUL = make_callable_record("test_a.py::test_b", verdict=Status.INCONCLUSIVE, reason="noisy")
    PAIR = make_record(verdict=Status.PASS)

    def test_pairs_and_callables_are_counted_apart(self) -> None:
        counted = [rows_in_words(records) for records in ([], [self.PAIR], [self.PAIR, self.FAILED], [self.FAILED] * 2)]
        assert counted == ["0 pairs", "1 pair", "1 pair and 1 callable", "2 callables"]

    def test_the_report_has_a_table_of_them_beside_the_pairs(self) -> None:
        text = study_report(results_of(self.FAILED, self.DOUBTFUL, self.PAIR)).decode()
        assert "**1 of 1 pair and 2 callables FAILs.**" in text
        section = text.partition("## Callables\n")[2].partition("\n## ")[0]
        assert "| test_ops.matmul | 10.0 ms | 9.90 ms … 10.1 ms | 12.0 ms |  | 100.0 MiB | FAIL |" in section
        by_category, by_model = (
            text.partition(f"## By {kind}\n")[2].partition("\n## ")[0] for kind in ("category", "model")
        )
        assert "test_" not in by_category + by_model
        assert "callable" not in by_category

    def test_of_callables_alone_the_report_says_nothing_of_models(self) -> None:
        text = study_report(results_of(self.FAILED)).decode()
        assert text.startswith("# Callables on A CPU\n")
        assert all(words not in text for words in ("By category", "figures/", "speedup", "Coverage"))

    def test_the_page_has_them_in_its_table(self) -> None:
        page = render_page(results_of(self.FAILED)).decode()
        assert '<tr data-category="callable" data-scheme="callable" data-verdict="FAIL">' in page
        assert "1 of 1 callable FAILs." in page

    def test_the_terminals_table_leaves_out_what_only_pairs_have(self) -> None:
        assert "speedup" not in records_table([self.FAILED])
        assert "speedup" in records_table([self.FAILED, self.PAIR])

    def test_the_next_command_names_the_test(self) -> None:
        options = {"threads": 2, "weights": "pretrained"}
        again = "pytest 'tests/test_ops.py::test_matmul[64]' --vq-weights=pretrained --vq-threads=2"
        assert measure_again(self.FAILED, options) == f"{again} --vq-runs=3"
        assert record_baselines([self.FAILED, self.DOUBTFUL], {}) == (
            "pytest 'tests/test_ops.py::test_matmul[64]' test_a.py::test_b --vq-save"
        )
