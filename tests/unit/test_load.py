"""Load on a service, by LoadGen and by our own schedule: what becomes of every request, whatever the service does."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import pytest
import served

from pytest_vq.errors import (
    DeviceOutOfMemoryError,
    MeasurementError,
    MissingExtraError,
    PrecisionError,
    SelectionError,
    VqError,
)
from pytest_vq.schema.load_run import OK, REFUSED, UNANSWERED, UNSENT, LoadPlan, LoadRun, Requests, why_invalid
from pytest_vq.serve import load
from pytest_vq.serve.builtin_engine import run_builtin
from pytest_vq.serve.ledger import Entry, Ledger
from pytest_vq.serve.load import RaisedError, Served, as_raised, choose_engine, run_load
from pytest_vq.serve.loadgen_engine import read_trace, run_loadgen

MS = 1_000_000
NO_LOADGEN = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason=f"MLPerf's LoadGen has no wheel for {platform.machine()}"
)

DEADLINE_S = 30.0
CALLER = """
import sys
from pytest_vq.schema.load_run import LoadPlan
from pytest_vq.serve.load import Served, run_load

run_load(LoadPlan("SingleStream", 1, warmup_requests=0), Served("served:held", {"fifo": sys.argv[1]}))
"""


def next_of(file: IO[bytes]) -> bytes:
    """What is written to ``file`` next; nothing where nobody has it open to write any more."""
    assert select.select([file], [], [], DEADLINE_S)[0], "nothing was written, and it is still open elsewhere"
    return file.read(100)


def plan(scenario: str = "SingleStream", queries: int = 20, **settings: object) -> LoadPlan:
    defaults = {"target_qps": 400.0 if scenario == "Server" else None, "samples_per_query": 4, "warmup_requests": 2}
    return LoadPlan(scenario, queries, **(defaults | settings))  # type: ignore[arg-type]


def run_of(latencies_ms: list[float], outcomes: list[str] | None = None, **settings: object) -> LoadRun:
    """A run of Server whose queries are a millisecond apart."""
    number = len(latencies_ms)
    due = [i * MS for i in range(number)]
    done = [d + int(latency * MS) for d, latency in zip(due, latencies_ms, strict=True)]
    columns = (range(number), [0] * number, due, due, done, outcomes or [OK] * number)
    requests = Requests(*map(tuple, columns))
    return LoadRun(plan("Server", number, **settings), "builtin", "1", requests)


@pytest.fixture(scope="module", params=["SingleStream", "MultiStream", "Server", "Offline"])
def by_loadgen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadRun, Path]:
    """One run of each scenario, in this process: nothing goes wrong in it."""
    if find_spec("mlperf_loadgen") is None:
        pytest.skip(f"MLPerf's LoadGen has no wheel for {platform.machine()}")
    logs = tmp_path_factory.mktemp(request.param)
    queries = 300 if request.param == "Server" else 100
    return run_loadgen(plan(request.param, queries, seed=3), served.doubling(), logs), logs


def result_of(logs: Path, key: str) -> int:
    lines = (logs / "mlperf_log_detail.txt").read_text().splitlines()
    values = [entry["value"] for entry in (json.loads(line.removeprefix(":::MLLOG ")) for line in lines)
              if entry["key"] == key]  # fmt: skip
    return int(values[0])


def test_our_percentiles_equal_loadgens_on_its_own_trace(by_loadgen: tuple[LoadRun, Path]) -> None:
    run, logs = by_loadgen
    multi = "per_query_" if run.plan.scenario == "MultiStream" else ""
    for percentile in (50, 90, 95, 97, 99, 99.9):
        ours = run.percentile_ms(percentile)
        assert ours is not None
        assert round(ours * MS) == result_of(logs, f"result_{percentile:.2f}_percentile_{multi}latency_ns")


def test_a_models_thread_does_not_keep_the_sender_waiting_for_the_interpreter() -> None:
    run = run_load(plan(queries=20), Served("served:telling_the_switch_interval"), "builtin")
    assert run.messages == {"ValueError": "0.0005 s"}


def test_loadgen_sends_every_query_and_keeps_every_latency(by_loadgen: tuple[LoadRun, Path]) -> None:
    run, _ = by_loadgen
    requests = run.requests
    width = {"MultiStream": 4}.get(run.plan.scenario, 1)
    assert Counter(requests.outcome) == {OK: run.plan.queries * width}
    assert len(run.latencies_ns) == run.plan.queries
    assert min(run.latencies_ns) > 0
    times = zip(requests.scheduled_ns, requests.sent_ns, requests.completed_ns, strict=True)
    assert all(due <= sent <= done for due, sent, done in times)
    assert set(requests.sample) <= set(served.SAMPLES)
    assert (run.load_engine, run.engine_version) == ("loadgen", version("mlcommons-loadgen"))


def test_the_builtin_engine_sends_the_same_scenarios(by_loadgen: tuple[LoadRun, Path]) -> None:
    run = run_builtin(by_loadgen[0].plan, served.doubling())
    theirs = by_loadgen[0].requests
    assert Counter(run.requests.outcome) == Counter(theirs.outcome)
    assert run.requests.query == theirs.query
    assert len(run.latencies_ns) == run.plan.queries
    assert min(run.latencies_ns) > 0


def test_builtin_arrivals_are_poisson_and_repeat_by_their_seed() -> None:
    first, again, other = (
        run_builtin(plan("Server", 400, target_qps=8000.0, seed=seed), served.doubling()).requests for seed in (1, 1, 2)
    )
    assert first.scheduled_ns == again.scheduled_ns != other.scheduled_ns
    gaps = [b - a for a, b in zip(first.scheduled_ns, first.scheduled_ns[1:], strict=False)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1e9 / 8000, rel=0.2)
    assert spread == pytest.approx(mean, rel=0.2)  # as of an exponential distribution, and of no even spacing


@pytest.mark.parametrize("engine", [pytest.param("loadgen", marks=NO_LOADGEN), "builtin"])
def test_whatever_a_service_does_each_request_ends_with_what_became_of_it(engine: str) -> None:
    trouble = Served("served:troubled", {"silent": 10, "failing": 15, "refused": 20})
    asked = plan("Server", 40, warmup_requests=0, query_limit_s=1.0)
    run = run_load(asked, trouble, engine)
    outcomes = {number: outcome for number, outcome in enumerate(run.requests.outcome) if outcome != OK}
    assert outcomes == {10: UNANSWERED, 15: "ValueError", 20: REFUSED}
    assert run.messages == {"ValueError": "no such picture", REFUSED: "64 requests wait already"}
    assert run.latencies_ns[10] >= 1000 * MS
    assert sum(run.violations(1e6)) == 3


class Slow:
    """A service that answers when the test says so, or raises what it says."""

    sample_count = 1

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.futures = error, []

    def submit(self, sample: int) -> Future[int]:
        if self.error is not None:
            raise self.error
        self.futures.append(Future())
        return self.futures[-1]

    def close(self) -> None: ...


@pytest.mark.timeout(30)
def test_an_answer_after_the_limit_ends_nothing_a_second_time() -> None:
    ended: list[int] = []
    slow = Slow()
    with Ledger(slow, plan(query_limit_s=0.05), time.monotonic_ns, ended.append) as ledger:
        ledger.send([(7, 0)])
        while not ended:
            time.sleep(0.01)
        slow.futures[0].set_result(0)
    assert (ended, ledger.entries[0].outcome) == ([7], UNANSWERED)


@pytest.mark.parametrize("error", [SystemExit("stop"), KeyboardInterrupt(), OSError("cable")])
def test_nothing_that_a_service_raises_reaches_who_sends(error: BaseException) -> None:
    ended: list[int] = []
    with Ledger(Slow(error), plan(), time.monotonic_ns, ended.append) as ledger:
        ledger.send([(7, 0), (8, 0)])
    assert (ended, [entry.outcome for entry in ledger.entries]) == ([7, 8], [type(error).__name__] * 2)


def test_one_stall_counts_against_all_that_were_due_in_it() -> None:
    asked = plan("Server", 500, target_qps=200.0, warmup_requests=0)
    run = run_load(asked, Served("served:stalling", {"at": 250, "for_s": 0.3}))
    p95_ms = run.percentile_ms(95)
    assert p95_ms is not None
    assert p95_ms > 100


def test_a_time_limit_ends_what_is_not_answered_and_sends_nothing_more() -> None:
    trouble = Served("served:troubled", {"silent": 5, "failing": -1, "refused": -1})
    run = run_load(plan("SingleStream", 30, warmup_requests=0, query_limit_s=2.0, run_limit_s=1.0), trouble)
    assert run.requests.outcome == (OK,) * 5 + (UNANSWERED,) + (UNSENT,) * 24
    assert run.invalid is not None
    assert "limit of 1 s with 24 of 30 requests not sent" in run.invalid


def test_a_run_whose_own_sending_lagged_is_invalid() -> None:
    run = run_builtin(plan("Server", 30, target_qps=1000.0, warmup_requests=0), served.blocking(0.005))
    assert run.invalid is not None
    assert "its own sending lagged: 99.5 % of 30 queries were sent within" in run.invalid
    assert "1 ms are allowed" in run.invalid


def test_sending_in_time_is_valid_and_only_a_schedule_can_be_lagged_behind() -> None:
    run = run_of([1.0] * 200)
    late = Requests(**{name: getattr(run.requests, name) for name in Requests.__slots__} | {
        "sent_ns": tuple(due + 5 * MS for due in run.requests.scheduled_ns)})  # fmt: skip
    assert why_invalid(run.plan, run.requests) is None
    assert why_invalid(run.plan, late) is not None
    assert why_invalid(plan("Offline", 200), late) is None


def test_a_crash_of_what_is_served_is_an_error_that_names_it() -> None:
    with pytest.raises(MeasurementError, match=r"load on served:exiting ended with exit code 139"):
        run_load(plan("SingleStream", 20, warmup_requests=0), Served("served:exiting", {"at": 3}))


def test_what_cannot_be_built_is_an_error_with_its_last_words() -> None:
    with pytest.raises(MeasurementError, match=r"unexpected keyword argument 'wrong'"):
        run_load(plan(), Served("served:doubling", {"wrong": 1}))


def test_an_error_ends_the_process_at_once_whatever_threads_go_on() -> None:
    with pytest.raises(MeasurementError, match=r"ended with exit code 1; (.*\n)*ValueError: no such checkpoint"):
        run_load(plan(build_limit_s=5.0, run_limit_s=5.0), Served("served:half_built"))


def error_of_building(name: str, message: str, **more: str) -> VqError:
    """What is raised where the factory raises that."""
    with pytest.raises(VqError) as caught:
        run_load(
            plan(build_limit_s=DEADLINE_S), Served("served:unbuildable", {"name": name, "message": message} | more)
        )
    return caught.value


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("PrecisionError", PrecisionError),
        ("DeviceOutOfMemoryError", DeviceOutOfMemoryError),
        ("TheirOwnError", MeasurementError),  # a class that only they know
    ],
)
def test_an_error_of_ours_in_building_is_raised_by_its_class_and_in_its_own_words(
    raised: str, kind: type[VqError]
) -> None:
    error = error_of_building(raised, "my-net-int8: no layer was quantized.\nSee its head.")
    assert type(error) is kind
    assert str(error) == "my-net-int8: no layer was quantized.\nSee its head."
    assert error.__cause__ is None  # with one, a test would show more than those words


def test_what_an_error_of_ours_was_raised_from_is_told_with_its_traceback() -> None:
    error = error_of_building("BuildError", "my-net: its function raised ValueError", cause="no such checkpoint")
    assert str(error) == "my-net: its function raised ValueError"
    assert str(error.__cause__).splitlines()[-1] == "ValueError: no such checkpoint"


def test_a_name_that_is_no_class_of_errors_is_a_measurement_error() -> None:
    assert type(as_raised(RaisedError("first_line", "what happened", ""))) is MeasurementError


def test_a_service_that_is_never_built_is_ended_by_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_GRACE_S", 0.0)
    asked = plan(build_limit_s=0.5, run_limit_s=0.5)
    with pytest.raises(MeasurementError, match=r"served:hanging was ended after its limit of 1 s"):
        run_load(asked, Served("served:hanging"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_called_is_killed_and_the_load_ends_with_all_that_it_started(
    number: signal.Signals, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parents[2])))
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(fifo)], env=environment)
    try:
        with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as held:  # noqa: PTH123  # no writer yet
            assert next_of(held) == b"on load\n"
            caller.send_signal(number)
            assert caller.wait(DEADLINE_S) == -number
            assert next_of(held) == b"", "something that was started keeps the fifo open"
    finally:
        caller.kill()
        caller.wait()


def test_a_service_without_samples_is_an_error() -> None:
    with pytest.raises(MeasurementError, match=r"^served:empty made a service that holds no samples"):
        run_load(plan(), Served("served:empty"))


def test_without_loadgen_the_schedule_is_ours_and_asking_for_loadgen_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: name)
    assert choose_engine() == "loadgen"
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    assert choose_engine() == "builtin"
    with pytest.raises(MissingExtraError, match=r"pip install 'pytest-vq\[serve\]'"):
        choose_engine("loadgen")
    with pytest.raises(SelectionError, match="no load engine 'wrk', only loadgen, builtin"):
        choose_engine("wrk")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scenario": "Burst"}, "no scenario 'Burst'"),
        ({"scenario": "Server"}, "takes a rate"),
        ({"scenario": "Offline", "target_qps": 5.0}, "takes a rate"),
        ({"queries": 0}, "queries must be above 0"),
        ({"query_limit_s": float("nan")}, "query_limit_s must be above 0"),
        ({"percentile": 100}, "between 0 and 100"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        LoadPlan(**({"scenario": "SingleStream", "queries": 5} | wrong))  # type: ignore[arg-type]


def test_what_was_not_answered_is_slower_than_all_that_was() -> None:
    run = run_of([5.0, 1.0, 2.0, 0.1], [OK, OK, OK, REFUSED])
    assert (run.percentile_ms(50), run.percentile_ms(99)) == (5.0, None)
    assert run.violations() == (False, False, False, True)
    assert run.violations(latency_bound_ms=2.0) == (True, False, False, True)


def test_a_query_of_several_samples_ends_with_its_last() -> None:
    requests = Requests((0, 0, 1, 1), (0, 1, 2, 3), (0, 0, 9 * MS, 9 * MS), (0,) * 4, (MS, 3 * MS, 10 * MS, 10 * MS),
                        (OK, OK, OK, "ValueError"))  # fmt: skip
    run = LoadRun(plan("MultiStream", 2, samples_per_query=2), "builtin", "1", requests)
    assert run.latencies_ns == (3 * MS, MS)
    assert run.violations() == (False, True)
    assert run.answered_per_s == pytest.approx(3 / 0.01)


def test_a_trace_that_misses_a_request_is_an_error(by_loadgen: tuple[LoadRun, Path]) -> None:
    run, logs = by_loadgen
    trace = (logs / "mlperf_log_trace.json").read_bytes()
    entries = [Entry(0, sample, 0, OK) for sample in run.requests.sample]
    whole = read_trace(trace, entries)
    assert whole.scheduled_ns == run.requests.scheduled_ns
    with pytest.raises(MeasurementError, match=f"tells of {len(entries)} requests, and not of the {len(entries) + 1}"):
        read_trace(trace, [*entries, Entry(0, 0, 0, OK)])
