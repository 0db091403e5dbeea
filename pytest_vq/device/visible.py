"""The GPUs that a process started here may use, by the names that CUDA_VISIBLE_DEVICES takes; found without CUDA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_vq.device.nvml import nvml_session

VARIABLE = "CUDA_VISIBLE_DEVICES"
_GPU, _SLICE = "GPU-", "MIG-"  # how NVML's names of whole GPUs and of slices of them start
_OLD_SLICE = "MIG-GPU-"  # drivers before 470: MIG-GPU-<uuid>/<instance>/<compute instance>


@dataclass(frozen=True, slots=True)
class InstalledGpus:
    """What the driver lists: every GPU's UUID, and of those that are cut into slices (MIG) the slices' UUIDs."""

    gpus: tuple[str, ...]
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # GPU -> its slices, where MIG is enabled

    @property
    def names(self) -> list[str]:
        """All that can be measured on: a GPU that is cut into slices cannot be used whole."""
        return [name for gpu in self.gpus for name in self.slices.get(gpu, (gpu,))]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """A value of CUDA_VISIBLE_DEVICES for each GPU, or slice of one, that a process of ``environment`` may use.

    What that variable names there already is passed on as it is written, as far as CUDA would heed it. Raises
    ``pynvml.NVMLError`` where there is no driver to ask.
    """
    installed = _installed()
    given = environment.get(VARIABLE)
    return installed.names if given is None else heeded(given, installed)


def all_uuids() -> frozenset[str]:
    """The UUIDs of all GPUs of this host and of their slices, whether or not this process may use them."""
    installed = _installed()
    return frozenset((*installed.gpus, *_slices_of(installed)))


def heeded(given: str, installed: InstalledGpus) -> list[str]:
    """The entries of CUDA_VISIBLE_DEVICES that CUDA heeds, as they are written.

    CUDA's rules: all are of the first one's kind (indices, GPUs' UUIDs, slices' UUIDs; a UUID may be cut short where it
    stays unique), the list ends before the first that names nothing, and one that names a device twice shows none.
    """
    entries = [entry.strip() for entry in given.split(",")]
    kind = next((kind for kind in (_SLICE, _GPU) if entries[0].startswith(kind)), "")
    known: list[str] = []
    for entry in entries:
        name = _named_by(entry, kind, installed)
        if name is None:
            break
        if name in known:
            return []
        known.append(name)
    return entries[: len(known)]


def _named_by(entry: str, kind: str, installed: InstalledGpus) -> str | None:
    """The device that ``entry`` names, if it is of this kind and names one."""
    if not kind:
        return _by_index(entry, installed.gpus)
    if not entry.startswith(kind):
        return None
    if entry.startswith(_OLD_SLICE):
        whole = entry.removeprefix(_SLICE).partition("/")[0]
        return entry if whole in installed.slices else _only(entry, _slices_of(installed))
    return _only(entry, installed.gpus if kind == _GPU else _slices_of(installed))


def _by_index(entry: str, gpus: Sequence[str]) -> str | None:
    # As the C function strtol reads it, by which CUDA does: the number that the text starts with. A GPU of that index
    # need not be NVML's of the same one; how many there are is all that counts here.
    digits = entry.removeprefix("+")
    number = digits[: next((at for at, char in enumerate(digits) if not char.isdecimal()), len(digits))]
    return gpus[int(number)] if number and int(number) < len(gpus) else None


def _only(start: str, names: Sequence[str]) -> str | None:
    found = [name for name in names if name.startswith(start)]
    return found[0] if len(found) == 1 else None


def _slices_of(installed: InstalledGpus) -> list[str]:
    return [name for slices in installed.slices.values() for name in slices]


def _installed() -> InstalledGpus:
    with nvml_session() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        gpus = {nvml.nvmlDeviceGetUUID(handle): handle for handle in handles}
        slices = {uuid: _slices(nvml, handle) for uuid, handle in gpus.items()}
    return InstalledGpus(tuple(gpus), {uuid: found for uuid, found in slices.items() if found is not None})


def _slices(nvml: Any, gpu: Any) -> tuple[str, ...] | None:
    """The slices of ``gpu``; None where it is not cut."""
    try:
        enabled, _ = nvml.nvmlDeviceGetMigMode(gpu)
    except nvml.NVMLError_NotSupported:  # most GPUs cannot be cut
        return None
    if not enabled:
        return None
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found.append(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)))
        except nvml.NVMLError_NotFound:  # places of slices that were not made
            continue
    return tuple(found)
