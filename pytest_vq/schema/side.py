"""One side of a comparison: a run, a device's baselines or published figures, read into the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_vq.schema.estimates import Anchor, Entry, Estimates
from pytest_vq.schema.serving import ServingFigures
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import FP32, CaseId

# Named as in `Estimates`, with their units.
FIGURES = (
    "latency_ms",
    "speedup",
    "peak_memory_bytes",
    "resting_memory_bytes",
    "model_size_bytes",
    "sqnr_db",
    "accuracy",
)


class SideKind(StrEnum):
    """Where a side's figures come from."""

    STUDY = "published study"
    RUN = "run"
    BASELINES = "baselines"


@dataclass(frozen=True, slots=True)
class SidePair:
    """One pair's figures on one side. ``entry`` is what the gate compares; published figures have no processes."""

    case_id: CaseId
    category: str | None  # None where nobody knows the model
    figures: Mapping[str, tuple[float, ...]]  # of `FIGURES`: one value a process; absent where none measured it
    entry: Entry | None = None
    disturbance: str | None = None  # why times taken here cannot be trusted

    @classmethod
    def of(cls, case_id: CaseId, category: str | None, entry: Entry, disturbance: str | None = None) -> SidePair:
        """The pair of ``entry``, with the figures of its processes."""
        return cls(case_id, category, _figures(case_id, entry.processes), entry, disturbance)

    @property
    def setup(self) -> Setup | None:
        """What must be equal for a verdict; None for published figures."""
        return self.entry.setup if self.entry else None

    @property
    def processes(self) -> tuple[Estimates, ...]:
        """The estimates of each process; empty for published figures."""
        return self.entry.processes if self.entry else ()

    @property
    def precision(self) -> str:
        """The scheme's precision."""
        return self.setup.precision if self.setup else self.case_id.scheme


@dataclass(frozen=True, slots=True)
class SideServing:
    """One pair under load on one side."""

    case_id: CaseId
    setup: Setup
    figures: ServingFigures  # of baselines those that are stored: no bounds on the share of late requests


@dataclass(frozen=True, slots=True)
class Side:
    """Everything that one side holds."""

    label: str  # "A"
    name: str  # as the user named it
    kind: SideKind
    facts: Mapping[str, str]  # what its figures were measured with, in the order to show it
    pairs: tuple[SidePair, ...]
    failures: tuple[str, ...] = ()  # pairs that it could not measure, each with the error's class
    faults: tuple[str, ...] = ()  # what is known to be wrong with its figures
    serving: tuple[SideServing, ...] = ()  # pairs under load, which are none of its ``pairs``


def entry_of(setup: Setup, processes: Sequence[Estimates], reason: str) -> Entry:
    """A run's processes as a baseline that others can be compared with."""
    return Entry(setup, Anchor(tuple(processes), reason, processes[-1].date_utc), tuple(processes))


def _figures(case_id: CaseId, processes: Sequence[Estimates]) -> dict[str, tuple[float, ...]]:
    # FP32's speedup over itself is 1 by definition, and no figure.
    names = [name for name in FIGURES if not (name == "speedup" and case_id.scheme == FP32)]
    taken = {name: [getattr(process, name) for process in processes] for name in names}
    known = {name: tuple(value for value in values if value is not None) for name, values in taken.items()}
    return {name: values for name, values in known.items() if values}
