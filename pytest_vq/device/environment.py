"""The fingerprint of where something was measured: device, driver, libraries, settings, git."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vq.device.cpu import cpu_info, cpu_name, instruction_set
from pytest_vq.device.nvml import nvml_session
from pytest_vq.errors import DeviceUnavailableError
from pytest_vq.schema.record import Environment

if TYPE_CHECKING:
    import torch

_KINDS = ("GPU-", "MIG-")  # of devices, as NVML's names start
_LIBRARIES = ("torch", "transformers", "bitsandbytes", "numpy", "pytest-vq")


def fingerprint(device: torch.device) -> Environment:
    """The environment of this process, measuring on ``device``."""
    described = _describe_gpu(device) if device.type == "cuda" else _describe_cpu()
    versions = {name: _version(name) for name in _LIBRARIES} | {"python": platform.python_version()}
    return Environment(
        device=device.type,
        device_name=described["name"],
        device_slug=described["slug"],
        device_uuid=described["uuid"],
        versions=dict(sorted((versions | described["versions"]).items())),
        settings=described["settings"],
        commit=git_commit(),
        date_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def slug(name: str) -> str:
    """``NVIDIA H200`` -> ``nvidia-h200``: a directory's name, without the marks of trademarks."""
    plain = re.sub(r"\((?:r|tm)\)", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "unknown"


def former_slug(environment: Environment) -> str | None:
    """What the baselines' directory of a CPU was called before its instruction set was part of it; None on a GPU."""
    return f"cpu-{slug(environment.device_name)}" if environment.device == "cpu" else None


def git_commit(directory: Path | None = None) -> str | None:
    """The commit checked out here, with ``-dirty`` where tracked files differ; None outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet: there is none to name
        return None
    return run.stdout.strip()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _describe_cpu() -> dict[str, Any]:
    info, name = cpu_info(), cpu_name()
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    # A CPU has no serial number that can be read: what tells two machines of one name apart is hashed instead.
    parts = [name, *(info.get(key, "") for key in ("cpu family", "model", "stepping", "flags", "cache size"))]
    return {
        "name": name,
        "slug": f"cpu-{slug(name)}-{slug(instruction_set())}",
        "uuid": "CPU-" + hashlib.sha256("\n".join([*parts, _machine_id()]).encode()).hexdigest()[:16],
        "versions": {"kernel": platform.release()},
        "settings": {"governor": governor.read_text().strip() if governor.is_file() else None},
    }


def _machine_id() -> str:
    path = Path("/etc/machine-id")
    machine = path.read_text().strip() if path.is_file() else ""
    return machine or platform.node()  # images of containers leave it empty


def _describe_gpu(device: torch.device) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(device)
    with nvml_session() as nvml:
        uuid, handle = _find_device(nvml, str(properties.uuid))
        is_mig = uuid.startswith("MIG-")
        settings = {
            "power_limit_mw": _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            "max_sm_clock_mhz": _ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
            "application_sm_clock_mhz": _ask(nvml, nvml.nvmlDeviceGetApplicationsClock, handle, nvml.NVML_CLOCK_SM),
            "persistence_mode": _ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle),
            "mig": properties.name if is_mig else None,
        }
        driver = nvml.nvmlSystemGetDriverVersion()
    return {
        "name": properties.name,
        "slug": slug(properties.name),  # a MIG device's name holds its profile
        "uuid": uuid,
        "versions": {
            "cuda": torch.version.cuda or "none",
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "driver": driver,
        },
        "settings": settings,
    }


def _find_device(nvml: Any, uuid: str) -> tuple[str, Any]:
    """The name and the handle by which NVML knows the device that torch gives as ``uuid``.

    torch gives the bare UUID of a whole GPU and of a slice of one (MIG) alike; NVML's names say which it is.

    Raises:
        DeviceUnavailableError: NVML knows neither.
    """
    names = [uuid] if uuid.startswith(_KINDS) else [kind + uuid for kind in _KINDS]
    for name in names:
        # Only that there is no such device: what else NVML says, no permission for one, is raised as it is.
        with contextlib.suppress(nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument):
            return name, nvml.nvmlDeviceGetHandleByUUID(name)
    raise DeviceUnavailableError(
        f"NVML, the driver's management library, knows no device {' or '.join(names)}, which torch measures on: "
        "without it nothing tells whether that device is throttled or shared. Check that `nvidia-smi -L` lists it here "
        "(a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
    )


def _ask(nvml: Any, query: Any, *args: Any) -> str | None:
    try:
        return str(query(*args))
    except nvml.NVMLError:  # many settings are not readable on some GPUs or in containers: then they are unknown
        return None
