"""``results.csv``, ``study.json`` and ``samples.jsonl``: a run's results, whole after every pair.

A killed run keeps all it had finished: rows of the table and samples are appended by whole lines, the study is replaced
atomically.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.files import append_line, replace_file
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.record import Environment, Record, Setup
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.csv_table import head_line, record_line
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned, upgraded_setup
from pytest_vq.store.samples import SAMPLES, SamplesLine, append_samples, encode_samples, read_samples

SCHEMA_VERSION = 2  # 1 had neither execution nor type of the rest in its rows, and no model in its failures
TABLE = "results.csv"
STUDY = "study.json"


@dataclass(frozen=True, slots=True)
class Row:
    """A measured pair, the process that measured it, and the estimates of every process that did, that one first."""

    record: Record
    environment: Environment
    estimates: tuple[Estimates, ...]


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


class ResultsWriter:
    """Writes a run's results as its pairs finish, into ``directory``; an earlier run's files there are replaced.

    Raises ResultsError at once where it cannot write, so that nothing is measured in vain, and later when the disk
    fills up: the rows before that stay intact.
    """

    def __init__(self, directory: Path, options: Mapping[str, Any], earlier: Results | None = None) -> None:
        self.directory = directory
        self._options = _json(options)
        self._started = earlier.started_utc if earlier else _now()
        self._environments: list[Environment] = list(earlier.environments) if earlier else []
        self._failures: list[Failure] = list(earlier.failures) if earlier else []
        self._rows: list[str] = []
        for row in earlier.rows if earlier else ():
            self._rows.append(_study_row(row.record, self._environments.index(row.environment), row.estimates))
        self._write_all(earlier.records if earlier else ())

    @classmethod
    def reopen(cls, directory: Path) -> ResultsWriter:
        """The writer of an earlier run's ``directory``, to go on where that run ended, with its options.

        The study is what counts: a row of the table or samples of a pair that it lacks are from a process that was
        killed between two writes, and go. Raises ResultsError where there are no results to go on with.
        """
        earlier = read_results(directory)
        return cls(directory, earlier.options, earlier)

    def add(self, outcome: Outcome) -> None:
        """Append a measured pair. Raises ResultsError when it cannot be stored."""
        record, environment, known = outcome.record, outcome.environment, self._environments
        source = known.index(environment) if environment in known else len(known)
        row = _study_row(record, source, outcome.estimates)
        is_new = source == len(known)
        known += [environment] if is_new else []
        self._rows.append(row)
        # The study, replaced whole, is written last: what it has is in the other files too.
        ends = {path: path.stat().st_size for path in (self.directory / TABLE, self.directory / SAMPLES)}
        try:
            try:
                append_samples(self.directory, _lines_of(outcome))
                append_line(self.directory / TABLE, record_line(record))
                self._write_study(complete=False)
            except OSError:
                for path, size in ends.items():
                    os.truncate(path, size)  # no half a line, and no row that the study lacks
                raise
        except OSError as error:
            self._rows.pop()
            del known[len(known) - is_new :]
            raise self._error(error) from error

    def fail(self, failure: Failure) -> None:
        """Note that a pair could not be measured."""
        self._failures.append(failure)
        self._save(complete=False)

    def close(self, complete: bool = True) -> None:
        """Write the last state; ``complete`` says that the run was not interrupted."""
        self._save(complete)

    def _write_all(self, records: Sequence[Record]) -> None:
        known = {record.case_id for record in records}
        samples = [line for line in read_samples(self.directory) if line.case_id in known] if known else []
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            replace_file(self.directory / TABLE, b"".join([head_line(), *map(record_line, records)]))
            replace_file(self.directory / SAMPLES, encode_samples(samples))
            self._write_study(complete=False)
        except OSError as error:
            raise self._error(error) from error

    def _save(self, complete: bool) -> None:
        try:
            self._write_study(complete)
        except OSError as error:
            raise self._error(error) from error

    def _write_study(self, complete: bool) -> None:
        parts = {
            "schema_version": str(SCHEMA_VERSION),
            "complete": _json(complete),
            "started_utc": _json(self._started),
            "updated_utc": _json(_now()),
            "options": self._options,
            "environments": _listed([_json(environment) for environment in self._environments]),
            "records": _listed(self._rows),
            "failures": _listed([_json(failure) for failure in self._failures]),
        }
        text = ",\n".join(f'"{name}":{value}' for name, value in parts.items())
        replace_file(self.directory / STUDY, f"{{{text}}}\n".encode())

    def _error(self, error: OSError) -> ResultsError:
        where = error.filename or self.directory
        return ResultsError(
            f"cannot write results to {where}: {error.strerror or error}: free some space, check its owner and "
            f"permissions, or point --vq-output elsewhere"
        )


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
    return Row(Record.from_row(row), environments[source], estimates)


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


def _study_row(record: Record, source: int, estimates: Sequence[Estimates]) -> str:
    import msgspec

    row = _json({**record.to_row(), "environment": source, "estimates": [asdict(e) for e in estimates]})
    try:
        Record.from_row(msgspec.json.decode(row))
    except msgspec.ValidationError as error:  # e.g. a latency that is not finite: JSON has no such number
        raise ResultsError(f"the record of {record.id} cannot be stored: {error}") from error
    return row


def _lines_of(outcome: Outcome) -> list[SamplesLine]:
    """The samples of every process that ``outcome`` was measured in."""
    pair = outcome.record.case_id
    return [SamplesLine(pair.model, pair.scheme, pair.batch, samples) for samples in outcome.samples]


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value, enc_hook=str).decode()


def _listed(rows: list[str]) -> str:
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
