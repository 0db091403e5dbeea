"""One process at a time measures on a device, and writes to a directory; of the dead, none."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pytest_vq.device.lock import device_lock, lock_path
from pytest_vq.errors import ResultsError
from pytest_vq.files import acquire, lock_of

HOLDER = """
import sys, time
from pathlib import Path
from pytest_vq.device.lock import device_lock

Path(sys.argv[2] + "-wanted").touch()
with device_lock(sys.argv[1]):
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    hangs_at = time.monotonic() + 300
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < hangs_at
        time.sleep(0.01)


def test_it_waits_for_another_process_and_takes_over_from_a_dead_one(tmp_path: Path) -> None:
    held, taken = tmp_path / "held", tmp_path / "taken"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, "GPU-1", str(held)])
    waiter = None
    try:
        wait_for(held, holder)
        waiter = subprocess.Popen([sys.executable, "-c", HOLDER, "GPU-1", str(taken)])
        wait_for(tmp_path / "taken-wanted", waiter)
        with device_lock("GPU-2"):  # another device is free meanwhile
            time.sleep(0.5)  # in which the waiter would take a lock that does not hold
        assert not taken.exists()
        holder.kill()
        wait_for(taken, waiter)
    finally:
        for process in (holder, waiter):
            if process is not None:
                process.kill()
                process.wait()


def test_it_is_given_back_after_an_error() -> None:
    def fail() -> None:
        with device_lock("GPU-1"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with device_lock("GPU-1"):
        pass


@pytest.mark.parametrize("uuid", ["GPU-12ab-34", "MIG-1/7/0", "../../etc/passwd", "CPU-0123456789abcdef"])
def test_its_file_lies_in_the_temporary_directory_whatever_the_device_is_called(tmp_path: Path, uuid: str) -> None:
    assert lock_path(uuid).parent == tmp_path
    assert lock_path(uuid).name.startswith("pytest-vq-")
    assert lock_path(uuid) != lock_path(uuid + "0")


def test_everybody_may_use_its_file() -> None:
    with device_lock("GPU-1"):
        assert lock_path("GPU-1").stat().st_mode & 0o666 == 0o666


KEEPER = """
import sys, time
from pathlib import Path
from pytest_vq.errors import ResultsError
from pytest_vq.files import acquire, lock_of
from pytest_vq.store.baselines import BaselineStore

directory, purpose = Path(sys.argv[1]), sys.argv[2]


def keep(*_):
    Path(sys.argv[3]).touch()
    time.sleep(600)


if purpose == "results":
    lock = lock_of(directory, purpose)
    acquire(lock, ResultsError, "busy")
    keep()
else:
    BaselineStore._read_or_new = keep  # what it does with the lock held
    BaselineStore(directory).append("cpu-a", "A CPU", [("net", None, None)])
"""


@pytest.mark.parametrize(("purpose", "directory"), [("results", "out"), ("baselines", "baselines/cpu-a")])
def test_the_lock_of_a_directory_is_free_again_once_its_holder_is_killed(
    tmp_path: Path, purpose: str, directory: str
) -> None:
    held, given = tmp_path / "held", tmp_path / Path(directory).parts[0]
    holder = subprocess.Popen([sys.executable, "-c", KEEPER, str(given), purpose, str(held)])
    try:
        wait_for(held, holder)
        lock = lock_of(tmp_path / directory, purpose)
        with pytest.raises(ResultsError, match="busy"):
            acquire(lock, ResultsError, "busy")
    finally:
        holder.kill()
        holder.wait()
    acquire(lock, ResultsError, "busy")  # at once: it waits for nobody
    lock.release()
