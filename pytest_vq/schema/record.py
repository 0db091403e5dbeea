"""What was measured, in sections, and the flat row of ``results.csv`` and ``study.json`` that it becomes.

Every field that is a quantity names its unit. ``None`` means "not measured": it is written as an empty cell, never as a
made-up value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_vq.schema.figures import Coverage, Effort, Fidelity, Identity, MemoryFigures, Preparation, TimedFigures
from pytest_vq.schema.serving import LoadEvidence, ServingFigures
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status


@dataclass(frozen=True, slots=True)
class Samples:
    """Times of one workload, in milliseconds per call, in the order they were taken: block by block."""

    blocks_ms: tuple[tuple[float, ...], ...]
    stop_reason: str  # interval, budget, protocol
    warmup_calls: int

    @property
    def times_ms(self) -> tuple[float, ...]:
        """All of them, whatever their block."""
        return tuple(chain.from_iterable(self.blocks_ms))

    @property
    def block_medians_ms(self) -> tuple[float, ...]:
        """The median of each block; blocks of one index were taken side by side with other workloads' of that index."""
        return tuple(median(block) for block in self.blocks_ms)


@dataclass(frozen=True, slots=True)
class PairSamples:
    """Every time that one process took for one pair; ``date_utc`` is when that process began to measure."""

    date_utc: str
    subject: Samples
    reference: Samples | None  # FP32 in the same process; None for FP32 itself, a callable, and under load
    sentinel: Samples | None = None  # None of a process that put load on a service


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a process measured. ``device_slug`` names the baselines' directory."""

    device: str  # "cpu" or "cuda"
    device_name: str
    device_slug: str
    device_uuid: str
    versions: Mapping[str, str]  # library -> version: python, torch, cuda, transformers, bitsandbytes, driver ...
    settings: Mapping[str, str | None]  # power limit, application clocks, MIG profile, CPU governor ...
    commit: str | None  # of the repository under test, with "-dirty" where it has changes
    date_utc: str


@dataclass(frozen=True, slots=True)
class Record:
    """One measured pair, callable, or pair under load: a row of ``results.csv`` and of ``study.json``.

    The name of a column is an attribute too, whatever its section: ``record.latency_ms``.
    """

    identity: Identity
    timing: TimedFigures
    memory: MemoryFigures
    coverage: Coverage
    fidelity: Fidelity
    setup: Setup
    preparation: Preparation = field(default_factory=Preparation)
    effort: Effort = field(default_factory=Effort)
    serving: ServingFigures = field(default_factory=ServingFigures)
    disturbance: str | None = None  # why times taken here cannot be trusted: throttling, a busy neighbour
    telemetry: Mapping[str, Any] = field(default_factory=dict)  # clocks, throttle counters, load: before and after
    verdict: Status | None = None
    reason: str = ""
    right_answers: str | None = None  # of the labelled images, a bit each, hexadecimal; the first image is the highest
    note: str | None = None  # what a reader of this row should know, that is no verdict
    load: LoadEvidence | None = None  # of a serving row

    @property
    def case_id(self) -> CaseId:
        """What identifies it."""
        setup = self.setup
        return CaseId(self.identity.model, setup.scheme, setup.batch, serving=setup.serving is not None)

    @property
    def id(self) -> str:
        """That as text: of a pair as in its test's name, of a callable the id of its test."""
        return str(self.case_id)

    def cells(self) -> dict[str, Any]:
        """The row of the table: column -> value, ``None`` where nothing was measured."""
        values = {
            **asdict(self.identity),
            **asdict(self.timing),
            **asdict(self.memory),
            "quantized_layers": self.coverage.quantized,
            "eligible_layers": self.coverage.eligible,
            **asdict(self.fidelity),
            "disturbance": self.disturbance,
            "verdict": self.verdict,
            "reason": self.reason,
            **asdict(self.preparation),
            "note": self.note,
            **asdict(self.effort),
            **asdict(self.serving),
        }
        return {column: values[column] for column in COLUMNS}

    def to_row(self) -> dict[str, Any]:
        """The row as ``study.json`` has it: the table's cells, and the nested evidence beside them."""
        evidence = {"setup": asdict(self.setup), "coverage": asdict(self.coverage), "telemetry": dict(self.telemetry)}
        if self.load is not None:
            evidence["load"] = asdict(self.load)
        return self.cells() | evidence | {"right_answers": self.right_answers}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """The record in a row of ``study.json``. Raises ``msgspec.ValidationError`` on what is missing or mistyped."""
        from msgspec import convert

        evidence = convert(row, _Evidence)
        return cls(
            identity=convert(row, Identity),
            timing=convert(row, TimedFigures),
            memory=convert(row, MemoryFigures),
            coverage=evidence.coverage,
            fidelity=convert(row, Fidelity),
            setup=evidence.setup,
            preparation=convert(row, Preparation),
            effort=convert(row, Effort),
            serving=convert(row, ServingFigures),
            disturbance=evidence.disturbance,
            telemetry=evidence.telemetry,
            verdict=evidence.verdict,
            reason=evidence.reason,
            right_answers=evidence.right_answers,
            note=evidence.note,
            load=evidence.load,
        )

    if not TYPE_CHECKING:  # for users' tests; within this package the section is named, and checked

        def __getattr__(self, name):
            """The figure in the column ``name``."""
            if name not in _SECTION_OF:
                raise AttributeError(f"a record has no {name!r}; its columns are {', '.join(COLUMNS)}")
            section, attribute = _SECTION_OF[name]
            return getattr(getattr(self, section), attribute)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """The parts of a row that are no section of figures."""

    setup: Setup
    coverage: Coverage
    disturbance: str | None = None
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    verdict: Status | None = None
    reason: str = ""
    right_answers: str | None = None
    note: str | None = None
    load: LoadEvidence | None = None


def _names(section: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(section))


# Those that came after the first version stand last, whatever their section: scripts may count.
_LATER = (
    "execution",
    "reference_latency_ms",
    "note",
    "sentinel_median_ms",
    "device_time_method",
    "device_speedup",
    "energy_per_image_mj",
    "sm_clock_mhz",
    "power_mw",
    "workspace_bytes",
    "prepare_s",
    "prepare_cache",
    "graphs",
    "graph_breaks",
    "recompiles",
    "graph_pool_bytes",
    "build_s",
    "device_held_s",
    *_names(ServingFigures),
)
_FIRST = (
    *_names(Identity),
    *_names(TimedFigures),
    *_names(MemoryFigures),
    "quantized_layers",
    "eligible_layers",
    *_names(Fidelity),
    "disturbance",
    "verdict",
    "reason",
)
COLUMNS = (*(name for name in _FIRST if name not in _LATER), *_LATER)
_SECTION_OF = {"quantized_layers": ("coverage", "quantized"), "eligible_layers": ("coverage", "eligible")} | {
    name: (section, name)
    for section, kind in (
        ("identity", Identity),
        ("timing", TimedFigures),
        ("memory", MemoryFigures),
        ("fidelity", Fidelity),
        ("preparation", Preparation),
        ("effort", Effort),
        ("serving", ServingFigures),
    )
    for name in _names(kind)
}
