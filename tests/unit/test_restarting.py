"""An endpoint that restarts: what its callers get from real processes that die, hang, fail and are closed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from restarted import FAULTY

from pytest_vq.errors import EndpointError, QueueFullError
from pytest_vq.serve.load import Served
from pytest_vq.serve.restarting import RestartingEndpoint, RestartSettings

GOOD = np.array([[1.5, -2.0], [0.0, 3.0]], np.float32)
BAD = np.array([[FAULTY, -2.0], [0.0, 3.0]], np.float32)

Make = Callable[..., RestartingEndpoint]

# Has a process answer, or hang, and is killed: nothing of it is left to end that process.
KILLED_PARENT = """
import os, signal, sys, threading, time
import numpy as np
from pytest_vq.serve.load import Served
from pytest_vq.serve.restarting import RestartingEndpoint, RestartSettings

sample, reached = float(sys.argv[1]), sys.argv[2]
served = Served("restarted:model", {"fault": "hang", "reached": reached})
endpoint = RestartingEndpoint(served, RestartSettings(closing_s=0.2))
call = threading.Thread(target=endpoint.infer, args=(np.full((1, 1), sample),), daemon=True)
call.start()
while call.is_alive() and not os.path.exists(reached):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def wait_for(path: Path) -> None:
    """Return when ``path`` is there."""
    while not path.exists():
        time.sleep(0.01)


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes endpoints of ``restarted``'s models, and closes them in the end."""
    made: list[RestartingEndpoint] = []

    def make_one(factory: str, settings: RestartSettings | None = None, /, **given: Any) -> RestartingEndpoint:
        told = {name: given.pop(name) for name in ("on_restart", "clock") if name in given}
        made.append(RestartingEndpoint(Served(f"restarted:{factory}", given), settings, **told))
        return made[-1]

    yield make_one
    for endpoint in made:
        endpoint.close()


def test_the_first_process_begins_with_the_quantized_model(make: Make) -> None:
    np.testing.assert_array_equal(make("model", fault="kill").infer(GOOD), 2 * GOOD + 0.25)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "ended by itself with exit code 7"),
        ("crash", "was ended by signal 11 (Segmentation fault)"),
        ("kill", "was ended by signal 9 (Killed; so does Linux where memory runs out)"),
        ("lost", "lost its device (DeviceLostError: a kernel crashed)"),
        ("hang", "did not answer within 2 s and was ended"),
    ],
)
def test_who_asks_gets_fp32s_answer_from_the_next_process(make: Make, fault: str, reason: str) -> None:
    told: list[str] = []
    endpoint = make("model", RestartSettings(timeout_s=2.0), fault=fault, on_restart=told.append)
    np.testing.assert_array_equal(endpoint.infer(BAD), 2 * BAD)
    assert [words.split(" ", 2)[2] for words in told] == [reason]  # after "process 4711"


def test_a_guarded_model_whose_kernel_crashes_is_replaced_by_its_fp32(make: Make) -> None:
    told: list[str] = []
    np.testing.assert_array_equal(make("guarded", on_restart=told.append).infer(GOOD), 2 * GOOD)
    assert "a kernel crashed (CUDA error: device-side assert triggered)" in told[0]


def test_a_lost_device_is_seen_where_what_the_model_raises_does_not_say_so(make: Make) -> None:
    told: list[str] = []
    np.testing.assert_array_equal(make("poisoned", on_restart=told.append).infer(BAD), 2 * BAD)
    assert "lost its device (ValueError: no such picture)" in told[0]


def test_a_process_that_died_between_two_calls_is_replaced(make: Make) -> None:
    endpoint = make("telling")
    ((first, *_),) = endpoint.infer(GOOD[:1])
    os.kill(first, signal.SIGKILL)
    ((second, *_),) = endpoint.infer(GOOD[:1])
    assert second != first


def test_a_batch_larger_than_a_sockets_buffer_goes_both_ways(make: Make) -> None:
    batch = np.random.default_rng(0).standard_normal((8, 3, 224, 224), dtype=np.float32)[:, ::-1]  # not contiguous
    np.testing.assert_array_equal(make("model", fault="kill").infer(batch), 2 * batch + 0.25)


def test_a_stopped_process_that_takes_no_batch_is_replaced(make: Make) -> None:
    endpoint = make("telling", RestartSettings(timeout_s=1.0))
    ((first, *_),) = endpoint.infer(GOOD[:1])
    os.kill(first, signal.SIGSTOP)
    ((second, *_),) = endpoint.infer(np.zeros((1, 10**6)))
    assert second != first


def test_a_batch_that_fails_in_both_processes_is_an_error_that_says_how(make: Make) -> None:
    endpoint = make("model", fault="exit", always=True)
    twice = r'failed twice on one batch of 2: process \d+ .* exit code 7; .* state="OPEN", process \d+ .* exit code 7\.'
    with pytest.raises(EndpointError, match=twice):
        endpoint.infer(BAD)
    np.testing.assert_array_equal(endpoint.infer(GOOD), 2 * GOOD)  # and the next is answered


def test_a_second_process_that_cannot_be_made_is_an_error_that_says_why(make: Make) -> None:
    both = r"exit code 7; then, .* the model could not be made: OSError: no such checkpoint\. See"
    with pytest.raises(EndpointError, match=both):
        make("failing_again", fault="exit").infer(BAD)


def test_it_is_restarted_so_many_times_and_again_when_those_are_long_ago(make: Make) -> None:
    now_s = [0.0]
    told: list[str] = []
    settings = RestartSettings(max_restarts=2, within_s=600.0)
    always = {"fault": "exit", "always": True, "on_restart": told.append, "clock": lambda: now_s[0]}
    endpoint = make("model", settings, **always)
    with pytest.raises(EndpointError, match="failed twice"):
        endpoint.infer(BAD)
    now_s[0] = 1.0
    with pytest.raises(EndpointError, match=r"not started again: that was done 2 times within 600 s .* exit code 7$"):
        endpoint.infer(BAD)
    with pytest.raises(EndpointError, match="not started again"):
        endpoint.infer(GOOD)  # at once: there is no process
    assert len(told) == 2
    now_s[0] = 600.0
    np.testing.assert_array_equal(endpoint.infer(GOOD), 2 * GOOD)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("error", EndpointError, "the model of restarted:model raised ValueError: no such picture$"),
        ("busy", QueueFullError, "restarted:model: 64 requests wait already"),
    ],
)
def test_what_a_model_raises_is_no_reason_to_restart(make: Make, fault: str, kind: type[Exception], words: str) -> None:
    endpoint = make("model", RestartSettings(max_restarts=0), fault=fault)
    with pytest.raises(kind, match=words):
        endpoint.infer(BAD)
    np.testing.assert_array_equal(endpoint.infer(GOOD), 2 * GOOD + 0.25)


def test_an_answer_with_other_rows_than_the_batch_is_an_error(make: Make) -> None:
    with pytest.raises(EndpointError, match=r"restarted:short answered a batch of 2 with an output of shape \[1, 2\]"):
        make("short").infer(GOOD)


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        ("unbuildable", {}, "restarted:unbuildable: the model could not be made: ValueError: no such checkpoint"),
        ("nothing", {}, "AttributeError: module 'restarted' has no attribute 'nothing'"),
        ("endless", {"build_timeout_s": 0.5}, r"process \d+ did not answer within 0.5 s"),
    ],
)
def test_a_model_that_cannot_be_made_is_an_error_at_once(
    make: Make, factory: str, settings: dict[str, float], words: str
) -> None:
    with pytest.raises(EndpointError, match=words):
        make(factory, RestartSettings(**settings))


def test_arguments_that_are_no_json_are_refused(make: Make) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        make("model", fault=object())


def test_its_process_needs_neither_pytest_nor_torch(make: Make) -> None:
    assert make("telling").infer(GOOD[:1])[0, 1:].tolist() == [0, 0]


def test_calls_of_several_threads_go_one_after_the_other_to_one_process(make: Make) -> None:
    endpoint = make("counting", RestartSettings(max_restarts=0))
    batches = [np.full((2, 1), float(number)) for number in range(20)]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(endpoint.infer, batches))
    np.testing.assert_array_equal(answers, batches)


def test_two_threads_that_meet_a_fault_are_both_answered(make: Make) -> None:
    endpoint = make("model", fault="kill")
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(endpoint.infer, [BAD, BAD]))
    np.testing.assert_array_equal(answers, [2 * BAD, 2 * BAD])


def test_closing_closes_the_model_and_leaves_no_process(make: Make, tmp_path: Path) -> None:
    endpoint = make("telling", closed=str(tmp_path / "closed"))
    pid = int(endpoint.infer(GOOD[:1])[0, 0])
    endpoint.close()
    assert (tmp_path / "closed").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EndpointError, match="the endpoint of restarted:telling was closed"):
        endpoint.infer(GOOD)


def test_what_the_model_started_ends_with_its_process(make: Make, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    endpoint = make("with_helper", fifo=str(fifo))
    with fifo.open() as held:
        endpoint.close()
        assert select.select([held], [], [], 10.0)[0], "the fifo is still open elsewhere"


def test_an_interrupted_call_leaves_no_answer_to_the_next(make: Make, tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def when_reached() -> None:
        wait_for(tmp_path / "reached")
        os.kill(os.getpid(), signal.SIGUSR1)

    told: list[str] = []
    endpoint = make("model", fault="hang", reached=str(tmp_path / "reached"), on_restart=told.append)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=when_reached).start()
        with pytest.raises(KeyboardInterrupt):
            endpoint.infer(BAD)
    finally:
        signal.signal(signal.SIGUSR1, before)
    np.testing.assert_array_equal(endpoint.infer(GOOD), 2 * GOOD)
    assert told == ["a call was interrupted before it was answered"]


def test_closing_ends_a_call_that_hangs(make: Make, tmp_path: Path) -> None:
    settings = RestartSettings(timeout_s=40.0, closing_s=0.1)
    endpoint = make("model", settings, fault="hang", reached=str(tmp_path / "reached"))
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(endpoint.infer, BAD)
        wait_for(tmp_path / "reached")
        threads.submit(endpoint.close)
        with pytest.raises(EndpointError, match="was closed"):
            call.result(20.0)


@pytest.mark.parametrize("sample", [1.0, FAULTY], ids=["idle", "in a call that hangs"])
def test_its_process_ends_when_its_parent_is_killed(sample: float, tmp_path: Path) -> None:
    # The process writes to the same pipe as its parent: the run is over when both have ended.
    path = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parents[2])))
    run = subprocess.run(
        [sys.executable, "-c", KILLED_PARENT, str(sample), str(tmp_path / "reached")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr


@pytest.mark.parametrize(
    ("setting", "value"), [("timeout_s", 0.0), ("build_timeout_s", -1.0), ("within_s", 0.0), ("max_restarts", -1)]
)
def test_a_setting_without_sense_is_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting}: {value} is"):
        RestartSettings(**{setting: value})
