"""A run's results, as ``study.json`` holds them; ``results_writer`` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.record import Environment, PairSamples, Record
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned, upgraded_setup

SCHEMA_VERSION = 2  # 1 had neither execution nor type of the rest in its rows, and no model in its failures
TABLE = "results.csv"
STUDY = "study.json"


@dataclass(frozen=True, slots=True)
class Row:
    """A measured pair, the process that measured it, and the estimates of every process that did, that one first.

    The rest is what an `Outcome` says beside them; files of before it was kept hold none of it.
    """

    record: Record
    environment: Environment
    estimates: tuple[Estimates, ...]
    test: str | None = None
    explanation: tuple[str, ...] = ()
    time_decided: bool | None = None
    tolerances_over: float | None = None

    @classmethod
    def of(cls, outcome: Outcome) -> Row:
        """The row that ``outcome`` leaves."""
        return cls(**{f.name: getattr(outcome, f.name) for f in fields(cls)})

    @property
    def key(self) -> tuple[str | None, CaseId]:
        """What there is one row of in a run: two tests may measure one pair."""
        return self.test, self.record.case_id

    def outcome(self, samples: tuple[PairSamples, ...]) -> Outcome:
        """What its test handed on, with the ``samples`` of the same processes."""
        return Outcome(samples=samples, **{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Results:
    """One run's results, as read back. ``environments`` are the processes that measured; usually one."""

    options: Mapping[str, Any]
    environments: tuple[Environment, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    started_utc: str
    updated_utc: str
    complete: bool

    @property
    def records(self) -> tuple[Record, ...]:
        """The records alone, in the order they were measured."""
        return tuple(row.record for row in self.rows)


def read_results(path: Path) -> Results:
    """The results in ``path``, an output directory or its ``study.json``.

    Raises ResultsError when there are none, when the file is truncated or something else, or of a newer schema.
    """
    import msgspec

    file = path / STUDY if path.is_dir() else path
    try:
        raw, version = read_versioned(file.read_bytes(), str(file), SCHEMA_VERSION, ResultsError)
    except OSError as error:
        hint = f"give a run's output directory (--vq-output) or its {STUDY}"
        raise ResultsError(f"cannot read results from {file}: {error.strerror or error}: {hint}") from error
    except NotJsonError as error:
        raise ResultsError(f"{error}: truncated, or not a {STUDY}?") from error
    except NoSchemaError as error:
        raise ResultsError(f"{file} is not a {STUDY} of pytest-vq: {error}") from error
    try:
        study = msgspec.convert(raw, _Study)
        rows = tuple(_row(stored, study.environments, version) for stored in study.records)
    except msgspec.ValidationError as error:
        raise ResultsError(f"{file} is not a {STUDY} of pytest-vq: {error}") from error
    return Results(
        study.options, study.environments, rows, study.failures, study.started_utc, study.updated_utc, study.complete
    )


def rows_of_pairs(rows: Iterable[Row]) -> dict[tuple[CaseId, Setup], list[Row]]:
    """Each pair and setup with its rows, one a process; of a pair measured twice by one process, the last counts."""
    groups: dict[tuple[CaseId, Setup], dict[int, Row]] = {}
    for row in rows:
        groups.setdefault((row.record.case_id, row.record.setup), {})[id(row.environment)] = row
    return {pair: list(taken.values()) for pair, taken in groups.items()}


def estimates_of(rows: Iterable[Row]) -> tuple[Estimates, ...]:
    """The estimates of all processes that measured ``rows``, in their order."""
    return tuple(estimates for row in rows for estimates in row.estimates)


def _row(stored: Mapping[str, Any], environments: Sequence[Environment], version: int) -> Row:
    import msgspec

    source = msgspec.convert(stored.get("environment"), int)
    if not 0 <= source < len(environments):
        raise msgspec.ValidationError(f"it does not hold environment {source}: was it edited by hand?")
    estimates = msgspec.convert(stored.get("estimates"), tuple[Estimates, ...])
    row = {**stored, "setup": upgraded_setup(stored.get("setup"), version)}
    beside = msgspec.convert(stored, _Beside)
    return Row(Record.from_row(row), environments[source], estimates, **asdict(beside))


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a row of ``study.json`` holds beside the record, its process and the estimates."""

    test: str | None = None
    explanation: tuple[str, ...] = ()
    time_decided: bool | None = None
    tolerances_over: float | None = None


@dataclass(frozen=True, slots=True)
class _Study:
    """``study.json`` as stored; a record's row also holds ``environment``, the index of its process."""

    complete: bool
    started_utc: str
    updated_utc: str
    options: dict[str, Any]
    environments: tuple[Environment, ...]
    records: tuple[dict[str, Any], ...]
    failures: tuple[Failure, ...] = ()
