"""Hollow green: a run that has baselines for its device, and yet compared nothing with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_vq.device.environment import former_slug
from pytest_vq.schema.record import Environment
from pytest_vq.schema.verdict import Status

_NOT_COMPARED = {Status.NO_BASELINE, Status.INCOMPARABLE, None}


def is_compared(verdict: Status | None) -> bool:
    """True where a row was compared with a baseline."""
    return verdict not in _NOT_COMPARED


def hollow_error(
    measured: str, environments: Iterable[Environment], root: Path, has_baselines: Callable[[str], bool]
) -> str | None:
    """Why a run that compared nothing is no green one; None where there was nothing to compare it with.

    ``measured`` is what it did measure, in words; ``has_baselines`` tells by a device's slug whether ``root`` has any
    of it.
    """
    # A device once, however many rows it has: each look at its baselines lists a directory.
    devices = {environment.device_slug: environment for environment in environments}
    known = [slug for slug in devices if has_baselines(slug)]
    if known:
        return (
            f"ERROR: {root / known[0]} has baselines, but of {measured} measured none could be compared with them; see "
            "the reasons above. Select what has baselines, record this with --vq-save, or pass --vq-gate=report to "
            "measure without a gate."
        )
    former = [slug for environment in devices.values() if (slug := former_slug(environment)) and has_baselines(slug)]
    if former:
        return (
            f"ERROR: {root / former[0]} is from before the instruction set was part of a CPU's name: machines of that "
            f"name differ, so nothing was compared with it. Record this one anew with --vq-save, as "
            f"{next(iter(devices))}, and remove that directory; or pass --vq-gate=report."
        )
    return None
