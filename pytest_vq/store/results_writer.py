"""``results.csv``, ``study.json`` and ``samples.jsonl``: a run's results, whole after every pair.

A killed run keeps all it had finished: rows of the table and samples are appended by whole lines, the study is replaced
atomically.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.files import append_line, replace_file, replace_together
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.csv_table import head_line, record_line
from pytest_vq.store.results import SCHEMA_VERSION, STUDY, TABLE, Results, Row
from pytest_vq.store.samples import SAMPLES, append_samples, encode_samples, filter_samples, lines_of

_Key = tuple[str | None, CaseId, int]  # the last tells rows apart whose test is not known


@dataclass(frozen=True, slots=True)
class _Line:
    """A row as it is written: into the study, whose number of its process is still open, and into the table."""

    study: str
    environment: int  # its place among the writer's
    table: bytes


class ResultsWriter:
    """Writes a run's results as its pairs finish, into ``directory``; an earlier run's files there are replaced.

    With the ``earlier`` run's results it goes on where that ended. Its study is what counts: a row of the table or
    samples of a pair that it lacks are from a process that was killed between two writes, and go.

    Raises ResultsError at once where it cannot write, so that nothing is measured in vain, and later when the disk
    fills up: the rows before that stay intact.
    """

    def __init__(self, directory: Path, options: Mapping[str, Any], earlier: Results | None = None) -> None:
        self.directory = directory
        self._options = _json(options)
        self._started = earlier.started_utc if earlier else _now()
        self._environments: list[Environment] = []
        self._failures: list[Failure] = []
        self._earlier_failures: list[Failure] = list(earlier.failures) if earlier else []
        self._lines: dict[_Key, _Line] = {}
        self._unnamed: Counter[CaseId] = Counter()
        for row in earlier.rows if earlier else ():
            self._lines[self._key(row)] = self._line(row)
        self._write_all(earlier.rows if earlier else ())

    def add(self, outcome: Outcome) -> None:
        """Append a measured pair. Raises ResultsError when it cannot be stored.

        An earlier row of the same test and pair, and an earlier failure of the pair, give way to it. A row that is
        already there as it is changes nothing.
        """
        row = Row.of(outcome)
        line = self._line(row)
        self._forget_failure(row.record.id)
        before, key = dict(self._lines), self._key(row)
        if self._lines.get(key) == line:
            return
        gone = [self._lines.pop(other, None) for other in self._giving_way(row)]
        self._lines[key] = line
        try:
            if any(gone):
                self._replace(outcome)
            else:
                self._append(outcome, line)
        except OSError as error:
            self._lines = before
            raise self._error(error) from error

    def fail(self, failure: Failure) -> None:
        """Note that a pair could not be measured; an earlier run's note of it gives way."""
        self._forget_failure(failure.id)
        self._failures.append(failure)
        self._save(complete=False)

    def close(self, complete: bool = True) -> None:
        """Write the last state; ``complete`` says that the run was not interrupted."""
        self._save(complete)

    def _key(self, row: Row) -> _Key:
        pair = row.record.case_id
        if row.test is not None:
            return row.test, pair, 0
        self._unnamed[pair] += 1
        return None, pair, self._unnamed[pair]

    def _giving_way(self, row: Row) -> list[_Key]:
        """The keys of what gives way to ``row``: nothing to one whose test is not known."""
        if row.test is None:
            return []
        pair = row.record.case_id
        return [(row.test, pair, 0), *((None, pair, number) for number in range(1, self._unnamed[pair] + 1))]

    def _line(self, row: Row) -> _Line:
        known = self._environments
        if row.environment not in known:
            known.append(row.environment)
        return _Line(_study_row(row), known.index(row.environment), record_line(row.record))

    def _forget_failure(self, case_id: str) -> None:
        self._earlier_failures = [failure for failure in self._earlier_failures if failure.id != case_id]

    def _append(self, outcome: Outcome, line: _Line) -> None:
        """Add one row. The study, replaced whole, is written last: what it has is in the other files too."""
        ends = {path: path.stat().st_size for path in (self._path(TABLE), self._path(SAMPLES))}
        try:
            append_samples(self.directory, lines_of(outcome))
            append_line(self._path(TABLE), line.table)
            replace_file(self._path(STUDY), self._study(False))
        except OSError:
            for path, size in ends.items():
                os.truncate(path, size)  # no half a line, and no row that the study lacks
            raise

    def _replace(self, outcome: Outcome) -> None:
        """Write all files anew where a row gave way to another one.

        Where it is killed in between, the study still has the earlier row, and its samples are gone or not of it: it
        is measured again.
        """
        pair, tests = outcome.record.case_id, (outcome.test, None)
        others = filter_samples(self.directory, lambda line: line.case_id != pair or line.test not in tests)
        samples = others + encode_samples(lines_of(outcome))
        replace_together(
            {self._path(SAMPLES): samples, self._path(TABLE): self._table(), self._path(STUDY): self._study(False)}
        )

    def _write_all(self, rows: Iterable[Row]) -> None:
        """Write all files at the start, the study first: no earlier run's rows may be left there without samples."""
        taken: dict[tuple[str | None, CaseId], set[str]] = {}
        for row in rows:
            taken.setdefault(row.key, set()).update(estimates.date_utc for estimates in row.estimates)
        kept = filter_samples(self.directory, lambda line: line.date_utc in taken.get(line.key, ())) if taken else b""
        try:
            replace_together(
                {self._path(STUDY): self._study(False), self._path(TABLE): self._table(), self._path(SAMPLES): kept}
            )
        except OSError as error:
            raise self._error(error) from error

    def _save(self, complete: bool) -> None:
        try:
            replace_file(self._path(STUDY), self._study(complete))
        except OSError as error:
            raise self._error(error) from error

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _table(self) -> bytes:
        return b"".join([head_line(), *(line.table for line in self._lines.values())])

    def _study(self, complete: bool) -> bytes:
        # An environment whose rows all gave way is one of this run no more.
        places = list(dict.fromkeys(line.environment for line in self._lines.values()))
        rows = [f'{line.study},"environment":{places.index(line.environment)}}}' for line in self._lines.values()]
        failures = [*self._earlier_failures, *self._failures]
        parts = {
            "schema_version": str(SCHEMA_VERSION),
            "complete": _json(complete),
            "started_utc": _json(self._started),
            "updated_utc": _json(_now()),
            "options": self._options,
            "environments": _listed([_json(self._environments[place]) for place in places]),
            "records": _listed(rows),
            "failures": _listed([_json(failure) for failure in failures]),
        }
        text = ",\n".join(f'"{name}":{value}' for name, value in parts.items())
        return f"{{{text}}}\n".encode()

    def _error(self, error: OSError) -> ResultsError:
        where = error.filename or self.directory
        return ResultsError(
            f"cannot write results to {where}: {error.strerror or error}: free some space, check its owner and "
            f"permissions, or point --vq-output elsewhere"
        )


def _study_row(row: Row) -> str:
    """A row of the study but for the number of its process, and the brace that ends it."""
    import msgspec

    stored: dict[str, Any] = {**row.record.to_row(), "estimates": [asdict(e) for e in row.estimates]}
    stored |= {"test": row.test, "explanation": row.explanation}
    stored |= {"time_decided": row.time_decided, "tolerances_over": row.tolerances_over}
    text = _json(stored)
    try:
        Record.from_row(msgspec.json.decode(text))
    except msgspec.ValidationError as error:  # e.g. a latency that is not finite: JSON has no such number
        raise ResultsError(f"the record of {row.record.id} cannot be stored: {error}") from error
    return text[:-1]


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value, enc_hook=str).decode()


def _listed(rows: list[str]) -> str:
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
