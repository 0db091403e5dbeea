"""Where a measurement was taken: named the same each time, and never guessed."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_vq.device import environment
from pytest_vq.device.cpu import instruction_set
from pytest_vq.device.environment import fingerprint, git_commit, slug
from pytest_vq.errors import DeviceUnavailableError

CPU = torch.device("cpu")
MACHINE_ID, CPU_INFO = Path("/etc/machine-id"), Path("/proc/cpuinfo")


def replace_files(monkeypatch: pytest.MonkeyPatch, texts: dict[Path, str | None]) -> None:
    """Let files of the system hold other texts, or not be there: those with ``None``."""
    is_file, read_text = Path.is_file, Path.read_text
    monkeypatch.setattr(Path, "is_file", lambda path: texts[path] is not None if path in texts else is_file(path))
    monkeypatch.setattr(Path, "read_text", lambda path, **how: texts[path] if path in texts else read_text(path, **how))


class TestCpu:
    def test_it_is_the_same_twice(self) -> None:
        first, second = fingerprint(CPU), fingerprint(CPU)
        assert (first.device, first.device_name, first.device_slug, first.device_uuid) == (
            second.device,
            second.device_name,
            second.device_slug,
            second.device_uuid,
        )
        assert first.versions == second.versions
        json.dumps(asdict(first))

    def test_it_names_device_versions_and_date(self) -> None:
        found = fingerprint(CPU)
        assert found.device == "cpu"
        assert found.device_slug == f"cpu-{slug(found.device_name)}-{instruction_set()}"
        assert re.fullmatch(r"CPU-[0-9a-f]{16}", found.device_uuid)
        assert found.versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
        assert {"python", "transformers", "bitsandbytes", "numpy", "pytest-vq", "kernel"} <= found.versions.keys()
        assert list(found.versions) == sorted(found.versions)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.date_utc)

    def test_two_machines_of_one_name_differ(self, monkeypatch) -> None:
        replace_files(monkeypatch, {MACHINE_ID: "one machine\n"})
        first = fingerprint(CPU)
        replace_files(monkeypatch, {MACHINE_ID: "another machine\n"})
        second = fingerprint(CPU)
        assert first.device_slug == second.device_slug
        assert first.device_uuid != second.device_uuid

    @pytest.mark.parametrize("machine_id", [None, "", "\n"], ids=["absent", "empty", "a blank line"])
    def test_where_a_machine_has_no_id_its_host_name_tells_it_apart(self, monkeypatch, machine_id) -> None:
        replace_files(monkeypatch, {MACHINE_ID: machine_id})
        monkeypatch.setattr(platform, "node", lambda: "one")
        first = fingerprint(CPU)
        monkeypatch.setattr(platform, "node", lambda: "another")
        assert fingerprint(CPU).device_uuid != first.device_uuid

    def test_a_processor_without_a_name_is_called_by_its_architecture(self, monkeypatch) -> None:
        replace_files(monkeypatch, {CPU_INFO: None})
        monkeypatch.setattr(platform, "processor", lambda: "")
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        assert fingerprint(CPU).device_slug == f"cpu-aarch64-{instruction_set()}"

    def test_a_library_that_is_not_there_is_said_to_be(self, monkeypatch) -> None:
        def version(name: str) -> str:
            if name == "bitsandbytes":
                raise metadata.PackageNotFoundError(name)
            return "1.0"

        monkeypatch.setattr(metadata, "version", version)
        versions = fingerprint(CPU).versions
        assert (versions["bitsandbytes"], versions["torch"]) == ("not installed", "1.0")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("NVIDIA H200 MIG 1g.18gb", "nvidia-h200-mig-1g-18gb"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon-cpu-2-20ghz"),
        ("../..", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_slug_is_a_directorys_name(name: str, expected: str) -> None:
    assert slug(name) == expected


class TestCommit:
    @pytest.fixture
    def repository(self, tmp_path: Path, monkeypatch) -> Path:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            monkeypatch.delenv(name, raising=False)
        return tmp_path

    def git(self, directory: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        run = subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)
        return run.stdout.strip()

    def test_the_commit_and_whether_tracked_files_differ(self, repository: Path) -> None:
        assert git_commit(repository) is None  # no repository
        self.git(repository, "init", "-q")
        assert git_commit(repository) is None  # no commit
        (repository / "tracked").write_text("1")
        self.git(repository, "add", "tracked")
        self.git(repository, "commit", "-q", "-m", "first")
        commit = self.git(repository, "rev-parse", "--short=12", "HEAD")
        assert git_commit(repository) == commit
        self.git(repository, "tag", "v1")
        assert git_commit(repository) == commit  # and not the tag
        (repository / "untracked").touch()
        assert git_commit(repository) == commit
        (repository / "tracked").write_text("2")
        assert git_commit(repository) == f"{commit}-dirty"

    def test_without_git_there_is_none(self, repository: Path, monkeypatch) -> None:
        monkeypatch.setenv("PATH", str(repository))
        assert git_commit(repository) is None


class NVMLError(Exception):
    """As the library raises it."""


class NotFoundError(NVMLError):
    """What it raises of a device that is not there."""


class InvalidArgumentError(NVMLError):
    """What it raises of a name that is none of a device's."""


def knows(*names: str, otherwise: type[NVMLError] = NotFoundError) -> Callable[[str], str]:
    """How NVML finds only devices called ``names``."""

    def find(name: str) -> str:
        if name not in names:
            raise otherwise(name)
        return f"handle of {name}"

    return find


class TestGpu:
    """What is asked of torch and NVML, with both faked. (The real ones: tests/gpu.)"""

    @pytest.fixture
    def gpu(self, monkeypatch):
        def make(name: str = "NVIDIA H200", uuid: str = "12ab-34", **answers: Any) -> Any:
            asked: list[Any] = []

            def refuse(*_: object) -> None:
                raise NVMLError("Not Supported")

            nvml = SimpleNamespace(
                NVMLError=NVMLError,
                NVMLError_NotFound=NotFoundError,
                NVMLError_InvalidArgument=InvalidArgumentError,
                NVML_CLOCK_SM=1,
                nvmlDeviceGetHandleByUUID=lambda given: asked.append(given) or "handle",
                nvmlDeviceGetEnforcedPowerLimit=lambda _: 700_000,
                nvmlDeviceGetMaxClockInfo=lambda _handle, _clock: 1980,
                nvmlDeviceGetApplicationsClock=refuse,
                nvmlDeviceGetPersistenceMode=lambda _: 1,
                nvmlSystemGetDriverVersion=lambda: "580.159.04",
            )
            vars(nvml).update(answers)
            monkeypatch.setattr(environment, "nvml_session", lambda: contextlib.nullcontext(nvml))
            properties = SimpleNamespace(name=name, uuid=uuid)
            monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
            return fingerprint(torch.device("cuda", 0)), asked

        return make

    def test_a_whole_gpu(self, gpu) -> None:
        found, asked = gpu()
        assert asked == ["GPU-12ab-34"]
        assert (found.device, found.device_name, found.device_slug) == ("cuda", "NVIDIA H200", "nvidia-h200")
        assert found.device_uuid == "GPU-12ab-34"
        assert found.settings == {
            "power_limit_mw": "700000",
            "max_sm_clock_mhz": "1980",
            "application_sm_clock_mhz": None,  # not supported there: unknown, not zero
            "persistence_mode": "1",
            "mig": None,
        }
        assert found.versions["driver"] == "580.159.04"
        assert {"cuda", "cudnn", "torch"} <= found.versions.keys()

    @pytest.mark.parametrize("uuid", ["56cd", "MIG-56cd"], ids=["bare, as torch gives it", "with its kind"])
    @pytest.mark.parametrize("otherwise", [NotFoundError, InvalidArgumentError])
    def test_a_slice_of_one_is_another_device(self, gpu, uuid: str, otherwise: type[NVMLError]) -> None:
        name, handles = "NVIDIA H200 MIG 1g.18gb", []
        found, _ = gpu(
            name=name,
            uuid=uuid,
            nvmlDeviceGetHandleByUUID=knows("MIG-56cd", otherwise=otherwise),
            nvmlDeviceGetPersistenceMode=handles.append,
        )
        assert (found.device_uuid, found.device_slug) == ("MIG-56cd", "nvidia-h200-mig-1g-18gb")
        assert found.settings["mig"] == name
        assert handles == ["handle of MIG-56cd"]

    def test_a_device_that_nvml_does_not_know_is_said_to_be(self, gpu) -> None:
        words = "knows no device GPU-56cd or MIG-56cd, which torch measures on: .*nvidia-smi -L"
        with pytest.raises(DeviceUnavailableError, match=words):
            gpu(uuid="56cd", nvmlDeviceGetHandleByUUID=knows("GPU-12ab-34"))

    def test_any_other_trouble_with_nvml_is_not_taken_for_that(self, gpu) -> None:
        with pytest.raises(NVMLError, match="GPU-56cd"):
            gpu(uuid="56cd", nvmlDeviceGetHandleByUUID=knows("MIG-56cd", otherwise=NVMLError))
