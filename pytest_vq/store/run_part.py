"""One of the runs that are merged: its rows as they are stored, in the study and the table, and its samples as lines.

Of a hundred thousand rows, making a `Record` each would take minutes: what merging does not read it copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import COLUMNS, Environment
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.shard import Selection, Shard
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.store.csv_table import head_line, row_lines
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned
from pytest_vq.store.results import SCHEMA_VERSION, STUDY, TABLE
from pytest_vq.store.samples import SAMPLES, Dated, SamplesLine
from pytest_vq.store.selection_file import read_selection

_ENVIRONMENT = b'"environment":'  # a key of each row; in a text its quotes would be escaped
_HEAD_END = b',"samples":'  # in a line of samples: before it stands what identifies the pair
_SERVED_END = b',"serving":true}\n'  # of a line whose pair was under load; in a text its quotes would be escaped
_cells = itemgetter(*COLUMNS)

Pieces = tuple[bytes | memoryview, ...]  # of a row's text


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What merging reads of a row."""

    model: str
    category: str
    precision: str
    latency_ms: float
    environment: int
    setup: Setup
    estimates: tuple[Dated, ...]
    architecture: str | None = None
    parameters: int | None = None
    peak_memory_bytes: int | None = None
    memory_reduction: float | None = None
    verdict: Status | None = None

    @property
    def case_id(self) -> CaseId:
        """The pair or callable that it is of."""
        return CaseId(self.model, self.setup.scheme, self.setup.batch, serving=self.setup.serving is not None)


@dataclass(frozen=True, slots=True)
class _Study:
    schema_version: int
    complete: bool
    started_utc: str
    updated_utc: str
    options: dict[str, Any]
    environments: tuple[Environment, ...]
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class RunPart:
    """A run as merging reads it: ``texts`` are its ``rows`` as they stand in the study."""

    directory: Path
    options: Mapping[str, Any]
    environments: tuple[Environment, ...]
    failures: tuple[Failure, ...]
    started_utc: str
    updated_utc: str
    complete: bool
    selection: Selection | None
    rows: Sequence[StoredRow]
    texts: Sequence[memoryview]

    @property
    def shard(self) -> Shard:
        """The share of the selection that it measured."""
        return Shard.parse(str(self.options.get("shard", Shard())))


def read_part(path: Path) -> RunPart:
    """The run in ``path``, an output directory or its ``study.json``.

    Raises ResultsError where there is none, or one of another version of this package.
    """
    import msgspec

    file = path / STUDY if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        hint = f"give runs' output directories (--vq-output) or their {STUDY}"
        raise ResultsError(f"cannot read results from {file}: {error.strerror or error}: {hint}") from error
    decode = msgspec.json.Decoder(StoredRow).decode
    try:
        sections = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        texts = msgspec.json.decode(sections.pop("records", b""), type=list[msgspec.Raw])
        study = msgspec.json.decode(msgspec.json.encode(sections), type=_Study)
        if study.schema_version == SCHEMA_VERSION:
            rows = [decode(text) for text in texts]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _error_of(data, file, error) from error
    if study.schema_version != SCHEMA_VERSION:
        raise ResultsError(
            f"{file} has schema version {study.schema_version}; only runs of version {SCHEMA_VERSION} can be merged"
        )
    if not all(0 <= row.environment < len(study.environments) for row in rows):
        raise ResultsError(f"{file} is not a {STUDY} of pytest-vq: it lacks an environment; was it edited by hand?")
    selection = read_selection(file.parent)
    if selection is not None and selection.shard != study.options.get("shard"):
        selection = None  # left there by an earlier run
    told = (study.options, study.environments, study.failures, study.started_utc, study.updated_utc, study.complete)
    return RunPart(file.parent, *told, selection, rows, [memoryview(text) for text in texts])


def _error_of(data: bytes, file: Path, raised: Exception) -> ResultsError:
    """Why ``data`` could not be read, as it is said of every file of ours."""
    try:
        read_versioned(data, str(file), SCHEMA_VERSION, ResultsError)
    except NotJsonError as error:
        return ResultsError(f"{error}: truncated, or not a {STUDY}?")
    except NoSchemaError as error:
        return ResultsError(f"{file} is not a {STUDY} of pytest-vq: {error}")
    except ResultsError as error:  # of a newer version
        return error
    return ResultsError(f"{file} is not a {STUDY} of pytest-vq: {raised}")


def with_environment(text: memoryview, old: int, new: int) -> Pieces:
    """The pieces of a row whose environment ``old`` is now the ``new``-th."""
    import msgspec

    if old == new:
        return (text,)
    row, named = bytes(text), _ENVIRONMENT + str(old).encode()
    end = row.rfind(named) + len(named)
    if row.count(_ENVIRONMENT) == 1 and row[end : end + 1] in (b",", b"}") and end > len(named):
        return text[: end - len(str(old))], str(new).encode(), text[end:]
    return (msgspec.json.encode({**msgspec.json.decode(row), "environment": new}),)  # laid out by somebody else


def table_lines(part: RunPart) -> list[bytes]:
    """Each row as its line of the table: those of the part's own table where it has just these rows."""
    path = part.directory / TABLE
    try:
        head, *lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else [b""]
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror or error}") from error
    is_same = head == head_line() and len(lines) == len(part.rows)
    if is_same and all(map(_begins_with, lines, part.rows)):
        return lines
    return made_table_lines(part.texts)


def made_table_lines(texts: Iterable[bytes | memoryview]) -> list[bytes]:
    """The lines of the table for rows of the study. Raises ResultsError where one lacks columns."""
    import msgspec

    try:
        return row_lines([_cells(msgspec.json.decode(text)) for text in texts])
    except KeyError as error:
        raise ResultsError(f"a row lacks the column {error}: is it of another version of pytest-vq?") from error


def _begins_with(line: bytes, row: StoredRow) -> bool:
    parameters = "" if row.parameters is None else row.parameters
    return line.startswith(
        f"{row.model},{row.category},{row.architecture or ''},{parameters},{row.precision},".encode()
    )


def samples_lines(directory: Path, cases: Mapping[CaseId, str]) -> Iterator[tuple[str, memoryview]]:
    """The samples of ``cases`` (with their ids) that ``directory`` keeps: the pair's id and the line, as it stands.

    Lines of other pairs are from a process that was killed before it had their rows, and stay behind. Raises
    ResultsError for what is no line of samples.
    """
    import msgspec

    path = directory / SAMPLES
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ResultsError(f"cannot read samples from {path}: {error.strerror or error}") from error
    encode, view, start = msgspec.json.encode, memoryview(data), 0
    heads = {
        (encode({"model": case.model, "scheme": case.scheme, "batch": case.batch})[:-1], case.serving): pair
        for case, pair in cases.items()
    }
    while end := data.find(b"\n", start) + 1:
        is_served = data.endswith(_SERVED_END, start, end)
        pair = heads.get((data[start : data.find(_HEAD_END, start, end)], is_served))
        if pair is None:
            try:
                pair = cases.get(msgspec.json.decode(view[start:end], type=SamplesLine).case_id)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ResultsError(f"{path} is not a {SAMPLES} of pytest-vq: {error}") from error
        if pair is not None:
            yield pair, view[start:end]
        start = end
