"""pytest-xdist's workers on other hosts: over ssh, to an sshd of this test's own, and over a socket."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nets import PAIRS, ROOT, Ended, make_nets, run_in

from pytest_vq.processes.command import clean_environment

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def over_ssh(place: Path) -> Iterator[str]:
    """How xdist reaches a host whose sshd listens on a port of this one; its directory is ``first``."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no sshd: install openssh-server")
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd, run as root, wants the directory /run/sshd")
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = place / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host_key\nAuthorizedKeysFile {place}/key.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
    )
    (place / "ssh_config").write_text(
        f"Host first\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {place}/key\n"
        " IdentitiesOnly yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
    )
    python = place / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}:{ROOT}/tests exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with (place / "sshd.log").open("w") as log, subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log) as sshd:
        try:
            wait_for("Server listening", place / "sshd.log", sshd)
            yield f"ssh=first//ssh_config={place}/ssh_config//python={python}//chdir={place}/first"
        finally:
            sshd.terminate()


@pytest.fixture(scope="module")
def over_socket(place: Path) -> Iterator[str]:
    """How xdist reaches a host where execnet's server listens; its directory is ``second``."""
    command = [sys.executable, "-u", "-m", "execnet.script.socketserver", "127.0.0.1:0"]
    environment = clean_environment() | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    log = place / "socket.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as server:
        try:
            wait_for("Accept loop", log, server)
            (port,) = re.findall(r"\('127.0.0.1', (\d+)\)", log.read_text())
            yield f"socket=127.0.0.1:{port}//chdir={place}/second"
        finally:
            server.terminate()


def wait_for(words: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    ends_s = time.monotonic() + 60
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends_s, log.read_text()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def run(place: Path, over_ssh: str, over_socket: str) -> Ended:
    """A run of this host whose workers are on the two others, each with a checkout of the project of its own."""
    for name in ("here", "first", "second"):
        make_nets(place / name)
    return run_in(place / "here", "-p", "instant", "-d", "--tx", over_ssh, "--tx", over_socket, "--vq-gate=off")


def test_every_pair_is_measured_on_one_of_the_hosts_and_its_row_is_stored_here(run: Ended, place: Path) -> None:
    assert run.code == 0, run.output
    assert run.pairs == PAIRS
    measured = {name: (place / name / "measured").read_text().splitlines() for name in ("first", "second")}
    assert all(measured.values())  # both took part
    assert sorted(line.split()[0] for lines in measured.values() for line in lines) == sorted(PAIRS)
    assert not (place / "here" / "measured").exists()
    assert not (place / "first" / "vq-results").exists()


def test_a_path_of_this_host_is_refused_with_what_to_give_instead(run: Ended, place: Path, over_socket: str) -> None:
    refused = run_in(place / "here", "test_nets.py", "-p", "instant", "-d", "--tx", over_socket, "--vq-gate=off")
    assert refused.code == 4
    assert "say what to run as -o testpaths=test_nets.py" in refused.output


def test_further_processes_of_this_host_are_refused(run: Ended, place: Path, over_socket: str) -> None:
    refused = run_in(place / "here", "-p", "instant", "-d", "--tx", over_socket, "--vq-runs=2")
    assert refused.code == 4
    assert "which says nothing about workers on other hosts" in refused.output
