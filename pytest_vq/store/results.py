"""What a run leaves in its output directory: ``results.csv``, a row a pair, and ``study.json`` with all the evidence.

Both are valid files after every pair, so that a killed run keeps what it measured: the table grows by whole lines, the
study is replaced atomically.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.files import append_line, replace_file
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import COLUMNS, SCHEMA_VERSION, Environment, Record, flat_row

TABLE = "results.csv"
STUDY = "study.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that could not be measured: its id, the error's class, and its message."""

    id: str
    error: str
    message: str


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

    def __init__(self, directory: Path, options: Mapping[str, Any]) -> None:
        self.directory = directory
        self._options = _json(options)
        self._started = _now()
        self._environments: list[Environment] = []
        self._rows: list[str] = []
        self._failures: list[Failure] = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
            replace_file(directory / TABLE, _csv_line(COLUMNS))
            self._write_study(complete=False)
        except OSError as error:
            raise self._error(error) from error

    def add(self, record: Record, environment: Environment, others: Sequence[Estimates] = ()) -> None:
        """Append a measured pair and the process it was measured in. Raises ResultsError when it cannot be stored.

        ``others`` are the estimates of further processes that measured the same pair.
        """
        known = self._environments
        source = known.index(environment) if environment in known else len(known)
        row = _study_row(record, source, (Estimates.of(record, environment), *others))
        if source == len(known):
            known.append(environment)
        self._rows.append(row)
        table = self.directory / TABLE
        try:
            size = table.stat().st_size
            try:
                append_line(table, _csv_line([_cell(value) for value in flat_row(record).values()]))
                self._write_study(complete=False)
            except OSError:
                os.truncate(table, size)  # no half a line, and no row that the study lacks
                raise
        except OSError as error:
            self._rows.pop()
            raise self._error(error) from error

    def fail(self, id: str, error: str, message: str) -> None:  # noqa: A002 - the field's name
        """Note that the pair ``id`` could not be measured: the error's class and message."""
        self._failures.append(Failure(id, error, message))
        self._save(complete=False)

    def close(self, complete: bool = True) -> None:
        """Write the last state; ``complete`` says that the run was not interrupted."""
        self._save(complete)

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
        raw = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        hint = f"give a run's output directory (--vq-output) or its {STUDY}"
        raise ResultsError(f"cannot read results from {file}: {error.strerror or error}: {hint}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{file} is not JSON ({error}): truncated, or not a {STUDY}?") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise ResultsError(f"{file} is not a {STUDY} of pytest-vq: it has no schema_version")
    if version > SCHEMA_VERSION:
        message = f"{file} has schema version {version}, this pytest-vq reads up to {SCHEMA_VERSION}"
        raise ResultsError(f"{message}: upgrade pytest-vq")
    try:
        study = msgspec.convert(raw, _Study)
        rows = tuple(_row(stored, study.environments) for stored in study.records)
    except msgspec.ValidationError as error:
        raise ResultsError(f"{file} is not a {STUDY} of pytest-vq: {error}") from error
    return Results(
        study.options, study.environments, rows, study.failures, study.started_utc, study.updated_utc, study.complete
    )


def _row(stored: Mapping[str, Any], environments: Sequence[Environment]) -> Row:
    import msgspec

    source = msgspec.convert(stored.get("environment"), int)
    if not 0 <= source < len(environments):
        raise msgspec.ValidationError(f"it does not hold environment {source}: was it edited by hand?")
    estimates = msgspec.convert(stored.get("estimates"), tuple[Estimates, ...])
    return Row(msgspec.convert(stored, Record), environments[source], estimates)


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

    row = _json({**asdict(record), "environment": source, "estimates": [asdict(e) for e in estimates]})
    try:
        msgspec.json.decode(row, type=Record)
    except msgspec.ValidationError as error:  # e.g. a latency that is not finite: JSON has no such number
        raise ResultsError(f"the record of {record.id} cannot be stored: {error}") from error
    return row


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value, enc_hook=str).decode()


def _listed(rows: list[str]) -> str:
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _cell(value: Any) -> Any:
    """As the study has it: no figure, no cell; booleans in JSON's spelling; floats (by ``csv``) to the last digit."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value


def _csv_line(cells: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
