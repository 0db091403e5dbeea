"""Profiling in a process of its own: how it is started, what it leaves, and what becomes of a pair that is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factories import make_case, make_outcome, make_record

from pytest_vq.device.device import open_device
from pytest_vq.errors import DeviceOutOfMemoryError, MeasurementError, ResultsError
from pytest_vq.options import Options
from pytest_vq.plugin import profiling
from pytest_vq.plugin.run import Run
from pytest_vq.plugin.session import VqSession
from pytest_vq.processes.command import Invocation
from pytest_vq.processes.fresh import ProfiledPairs, profile_afresh
from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.outcome import Failure, Outcome, Profile
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.profiled_pairs import PROFILES, append_profile, read_profiles
from pytest_vq.store.results_writer import ResultsWriter

CASE = make_case()
OPERATORS = {"aten::addmm": Operator(calls=48, self_ms=6.0, self_bytes=0)}
PROFILE = Profile(CASE.id, OPERATORS, ("64.0 MiB at the peak (50%) from net.py:7 forward",))
NODE_ID = "tests/test_a.py::test_precision[net-int8]"
PROVOKE = "pytest_vq.plugin.provoke"


class TestFile:
    def test_profiles_are_read_back_by_pair(self, tmp_path: Path) -> None:
        other = Profile("net-fp32", {})
        append_profile(tmp_path, PROFILE)
        append_profile(tmp_path, other)
        assert read_profiles(tmp_path) == {"net-int8": PROFILE, "net-fp32": other}

    def test_a_line_that_a_killed_process_did_not_finish_is_passed_over(self, tmp_path: Path) -> None:
        append_profile(tmp_path, PROFILE)
        with (tmp_path / PROFILES).open("a") as file:
            file.write(Profile("net-fp32", OPERATORS).to_json()[:20])
        assert read_profiles(tmp_path) == {"net-int8": PROFILE}

    def test_without_a_file_there_are_none(self, tmp_path: Path) -> None:
        assert read_profiles(tmp_path) == {}

    def test_a_file_of_something_else_is_named(self, tmp_path: Path) -> None:
        (tmp_path / PROFILES).write_text("[]\n")
        with pytest.raises(ResultsError, match=r"profiles\.jsonl is not a profiles\.jsonl"):
            read_profiles(tmp_path)

    def test_a_line_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ResultsError, match=r"cannot write .*profiles\.jsonl: No such file or directory"):
            append_profile(tmp_path / "nowhere", PROFILE)


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    return Invocation(
        directory=tmp_path / "here",
        rootdir=tmp_path,
        inifile=None,
        import_mode="importlib",
        plugins=("my_plugin", PROVOKE),
        keyword="net",
        markers="",
        deselected=(),
    )


Ending = Callable[[Path], int]


class TestProcess:
    @pytest.fixture
    def ended(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Ending], list[Any]]:
        """Let the next process do this to the directory of its output, and exit with that code; what was started."""
        started: list[Any] = []

        def end(how: Ending) -> list[Any]:
            def run(command: list[str], **given: Any) -> SimpleNamespace:
                started.append((command, given))
                (output,) = (word.partition("=")[2] for word in command if word.startswith("--vq-output="))
                return SimpleNamespace(returncode=how(Path(output)))

            monkeypatch.setattr(subprocess, "run", run)
            return started

        return end

    def test_it_repeats_the_invocation_with_its_plugins_and_neither_judges_nor_records(
        self, invocation: Invocation, ended, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VQ_PROVOKE_SLOWDOWN", "int8=0.1")
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
        started = ended(lambda output: 0)
        options = Options(gpu=True, save=True, runs=3, precisions="int8", output=Path("/mine"))
        profile_afresh(invocation, options, [NODE_ID, "test_b.py::test"])
        ((command, given),) = started
        assert command[:3] == [sys.executable, "-m", "pytest"]
        assert command[3:5] == [str(invocation.rootdir / NODE_ID), str(invocation.rootdir / "test_b.py::test")]
        loaded = [name for flag, name in pairwise(command) if flag == "-p" and not name.startswith("no:")]
        assert loaded == ["my_plugin", PROVOKE, "pytest_vq.plugin.profiling"]
        assert {"--gpu", "--vq-gate=off", "--vq-runs=1", "--vq-precisions=int8", "vq_save=false"} <= set(command)
        assert {"--vq-save", "--vq-output=/mine"}.isdisjoint(command)
        assert given["cwd"] == invocation.directory
        assert given["env"]["VQ_PROVOKE_SLOWDOWN"] == "int8=0.1"  # what is provoked here is provoked there
        assert "PYTEST_XDIST_WORKER" not in given["env"]

    def test_what_it_found_is_handed_on(self, invocation: Invocation, ended) -> None:
        def end(output: Path) -> int:
            append_profile(output, PROFILE)
            return 0

        ended(end)
        assert profile_afresh(invocation, Options(), [NODE_ID]).profiles == {"net-int8": PROFILE}

    def test_what_it_found_before_a_pair_failed_counts_and_the_failure_is_told(self, invocation, ended) -> None:
        def end(output: Path) -> int:
            append_profile(output, PROFILE)
            ResultsWriter(output, {}).fail(Failure("net-int4", "OutputError", "net-int4: gave NaN\nat a layer"))
            (output / "pytest.log").write_text("1 failed, 1 skipped\n")
            return 1

        ended(end)
        found = profile_afresh(invocation, Options(), [NODE_ID])
        assert found.profiles == {"net-int8": PROFILE}
        assert found.ending == "a process that only profiles ended with exit code 1: OutputError: net-int4: gave NaN"

    @pytest.mark.parametrize(
        ("printed", "words"),
        [("collected\nSegmentation fault\n", "Segmentation fault"), ("", "it printed nothing")],
    )
    def test_where_it_crashes_its_last_line_is_told(self, invocation, ended, printed: str, words: str) -> None:
        def end(output: Path) -> int:
            append_profile(output, PROFILE)
            (output / "pytest.log").write_text(printed)
            return -11

        ended(end)
        found = profile_afresh(invocation, Options(), [NODE_ID])
        assert found == ProfiledPairs(
            {"net-int8": PROFILE}, f"a process that only profiles ended with exit code -11: {words}"
        )


def test_an_accelerator_keeps_the_profiler_and_a_cpu_does_not() -> None:
    cpu = open_device(gpu=False, threads=1)
    assert not cpu.keeps_profiler
    assert replace(cpu, torch_device=torch.device("cuda")).keeps_profiler


class Bench:
    """A bench on a device that keeps profilers or does not; it notes what it is asked for, in order."""

    def __init__(self, keeps_profiler: bool) -> None:
        self.device = SimpleNamespace(
            keeps_profiler=keeps_profiler, is_lost=False, environment=make_outcome().environment
        )
        self.calls: list[str] = []

    def measure(self, case: Any, *, profiled: bool) -> SimpleNamespace:
        self.calls.append("measure and profile" if profiled else "measure")
        samples = make_outcome().samples[0]
        return SimpleNamespace(record=make_record(), samples=samples, operators=OPERATORS if profiled else None)

    def profile(self, case: Any) -> Profile:
        self.calls.append("profile")
        return PROFILE

    def release(self) -> None:
        self.calls.append("release")


@pytest.fixture
def session_on(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """A session on a device, and its bench; ``found`` is what a process that only profiles finds."""

    def make(keeps_profiler: bool, found: ProfiledPairs | None = None, **options: Any) -> tuple[VqSession, Bench]:
        bench = Bench(keeps_profiler)
        given = {"baselines": pytester.path / "baselines", "output": pytester.path / "out", **options}
        session = VqSession(pytester.parseconfig(), Options(**given))
        session._bench = bench  # type: ignore[assignment]

        def afresh(invocation: Invocation, options: Options, node_ids: list[str]) -> ProfiledPairs:
            bench.calls.append(f"profile {' '.join(node_ids)} afresh")
            assert found is not None
            return found

        monkeypatch.setattr("pytest_vq.processes.fresh.profile_afresh", afresh)
        return session, bench

    return make


FOUND = ProfiledPairs({CASE.id: PROFILE}, "it ended with exit code 0")
NOTHING = ProfiledPairs({}, "it ended with exit code 1: OutputError: gave NaN")


class TestMeasuringProcess:
    def test_on_a_cpu_it_profiles_what_it_measures(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=False, save=True)
        assert session.measure(CASE, NODE_ID).operators == OPERATORS
        assert session.profile(CASE, NODE_ID) == PROFILE
        assert bench.calls == ["measure and profile", "profile"]

    def test_where_it_would_keep_the_profiler_another_one_profiles_and_has_the_device(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=True, found=FOUND, save=True)
        assert session.measure(CASE, NODE_ID).operators is None
        assert session.profile(CASE, NODE_ID) == PROFILE
        assert bench.calls == ["measure", "release", f"profile {NODE_ID} afresh"]

    def test_where_its_device_is_lost_another_one_profiles(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=False, found=FOUND)
        session.device_lost = True
        assert session.profile(CASE, NODE_ID) == PROFILE
        assert bench.calls == ["release", f"profile {NODE_ID} afresh"]

    def test_a_pair_that_the_other_one_did_not_get_to_is_an_error_that_says_why(self, session_on) -> None:
        session, _ = session_on(keeps_profiler=True, found=NOTHING)
        with pytest.raises(MeasurementError, match=r"^it ended with exit code 1: OutputError: gave NaN$"):
            session.profile(CASE, NODE_ID)

    def test_without_saving_nothing_is_profiled(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=False)
        assert session.measure(CASE, NODE_ID).operators is None
        assert bench.calls == ["measure"]


def saving(session: VqSession, *outcomes: Outcome) -> tuple[list[str], BaselineStore]:
    """Record these rows at the end of a run that went well: what the summary says of it, and the baselines."""
    run = Run(session)
    run.open()
    run.rows = [(f"test_a.py::test[{outcome.record.id}]", outcome) for outcome in outcomes]
    assert run.finish(0, stopped=False) == 0
    return run.notes, session.store


class TestSaving:
    def stored(self, store: BaselineStore, outcome: Outcome) -> Any:
        entry = store.entry(outcome.environment.device_slug, "net", outcome.record.setup)
        assert entry is not None
        return entry.operators

    def test_after_the_last_pair_one_process_profiles_them_all(self, session_on) -> None:
        pairs = [make_outcome(make_record("net", precision)) for precision in ("fp32", "int8")]
        other = {"aten::mm": Operator(1, 1.0, 0)}
        found = ProfiledPairs({"net-int8": PROFILE, "net-fp32": Profile("net-fp32", other)}, "")
        session, bench = session_on(keeps_profiler=True, found=found, save=True)
        notes, store = saving(session, *pairs)
        assert bench.calls == ["release", "profile test_a.py::test[net-fp32] test_a.py::test[net-int8] afresh"]
        assert [self.stored(store, pair) for pair in pairs] == [other, OPERATORS]
        assert len(notes) == 1
        assert notes[0].startswith("recorded 2 lines in 1 files")

    def test_where_operators_are_stored_nothing_is_profiled_again(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=True, found=FOUND, save=True)
        saving(session, make_outcome())
        bench.calls.clear()
        _, store = saving(session, make_outcome())
        assert bench.calls == []
        assert self.stored(store, make_outcome()) == OPERATORS

    def test_what_the_measuring_process_profiled_is_not_profiled_again(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=False, save=True)
        _, store = saving(session, make_outcome(operators=OPERATORS))
        assert bench.calls == []
        assert self.stored(store, make_outcome()) == OPERATORS

    def test_a_pair_that_could_not_be_profiled_is_recorded_without(self, session_on) -> None:
        session, _ = session_on(keeps_profiler=True, found=NOTHING, save=True)
        notes, store = saving(session, make_outcome())
        assert self.stored(store, make_outcome()) == {}
        assert notes[0].startswith("WARNING: recorded without operators")
        assert notes[0].endswith("net-int8; it ended with exit code 1: OutputError: gave NaN")
        assert notes[1].startswith("recorded 1 lines in 1 files")

    def test_a_run_that_failed_profiles_nothing(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=True, save=True)
        run = Run(session)
        run.open()
        run.rows = [(NODE_ID, make_outcome())]
        assert run.finish(1, stopped=False) == 1
        assert bench.calls == []


class TestPlugin:
    def test_a_pair_is_profiled_and_its_test_ends_there(self, session_on) -> None:
        session, bench = session_on(keeps_profiler=True)
        session.options.output.mkdir()
        with pytest.raises(pytest.skip.Exception, match="profiled, not measured"):
            profiling.profile_instead(session, CASE)
        assert bench.calls == ["profile"]
        assert read_profiles(session.options.output) == {CASE.id: PROFILE}

    def test_a_pair_that_fails_leaves_nothing(self, session_on, monkeypatch: pytest.MonkeyPatch) -> None:
        session, bench = session_on(keeps_profiler=True)

        def fail(case: Any) -> Profile:
            raise DeviceOutOfMemoryError("net-int8: out of memory")

        monkeypatch.setattr(bench, "profile", fail)
        with pytest.raises(DeviceOutOfMemoryError):
            profiling.profile_instead(session, CASE)
        assert read_profiles(session.options.output) == {}
