"""The shards of a run, merged into the files that one run would have left. Nothing is written unless all of it fits."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_vq.errors import ResultsError
from pytest_vq.files import Content, write_together
from pytest_vq.schema.figures import ACCELERATOR_RESOLUTION_BYTES, CPU_RESOLUTION_BYTES, memory_reduction
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Environment
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.shard import Shard
from pytest_vq.schema.verdict import Status
from pytest_vq.store.csv_table import head_line
from pytest_vq.store.explained import EXPLAINED, explained_file
from pytest_vq.store.merge_checks import TakenPairs, check_alike, check_environments
from pytest_vq.store.results import SCHEMA_VERSION, STUDY, TABLE
from pytest_vq.store.run_part import (
    Pieces,
    RunPart,
    StoredRow,
    made_table_lines,
    read_part,
    samples_lines,
    table_lines,
    with_environment,
)
from pytest_vq.store.samples import SAMPLES
from pytest_vq.store.selection_file import read_selection
from pytest_vq.wording import listed

_SHOWN = 3  # pairs in a message


@dataclass(frozen=True, slots=True)
class MergedRow:
    """One row on its way: as text of the study and of the table, and what the end of the run is judged by."""

    id: str
    verdict: Status | None
    setup: Setup
    study: Pieces
    table: bytes


@dataclass(slots=True)
class Merge:
    """Runs as they are merged: `add` each, `check` all of them, then `write`."""

    parts: list[RunPart] = field(default_factory=list)
    rows: list[MergedRow] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    _taken: TakenPairs = field(default_factory=TakenPairs)
    _samples: list[tuple[str, memoryview]] = field(default_factory=list)
    _explained: dict[str, bytes] = field(default_factory=dict)
    _lacking: dict[int, tuple[StoredRow, Environment]] = field(default_factory=dict)  # without a reduction of memory
    _fp32_peaks: dict[tuple[str, int], int | None] = field(default_factory=dict)  # by model and batch

    @property
    def options(self) -> dict[str, Any]:
        """The options of the whole run: where its parts lay is no part of them."""
        return {**self.parts[0].options, "shard": str(Shard())}

    @property
    def failures(self) -> list[Failure]:
        """Of all parts."""
        return [failure for part in self.parts for failure in part.failures]

    @property
    def gaps(self) -> list[str]:
        """What keeps the merged run from being complete, a sentence each."""
        present, total = {part.shard for part in self.parts}, self.parts[0].shard.count
        absent = [str(shard) for number in range(total) if (shard := Shard(number + 1, total)) not in present]
        gaps = [f"no results of shard {', '.join(absent)}"] if absent else []
        gaps += [f"{part.directory} is of a run that was interrupted" for part in self.parts if not part.complete]
        known = {row.id for row in self.rows} | {failure.id for failure in self.failures}
        missing = [pair for pair in self._order() if pair not in known]
        return gaps + ([f"not measured: {listed(missing, _SHOWN)}"] if gaps and missing else [])

    def add(self, path: Path) -> None:
        """Read the run in ``path``. Raises ResultsError where it cannot be read, or an earlier one has its pairs."""
        part = read_part(path)
        cases = [row.case_id for row in part.rows]
        ids = [str(case) for case in cases]
        self._taken.take(part.directory, zip(ids, part.rows, strict=True))
        places = [self._place_of(environment) for environment in part.environments]
        taken = zip(ids, part.rows, part.texts, table_lines(part), strict=True)
        for pair, row, text, table in taken:
            if row.setup.is_reference:
                self._fp32_peaks[row.model, row.setup.batch] = row.peak_memory_bytes
            elif row.setup.is_pair and row.memory_reduction is None and row.peak_memory_bytes is not None:
                self._lacking[len(self.rows)] = row, part.environments[row.environment]
            study = with_environment(text, row.environment, places[row.environment])
            self.rows.append(MergedRow(pair, row.verdict, row.setup, study, table))
        self._samples += samples_lines(part.directory, dict(zip(cases, ids, strict=True)))
        failed = [pair for pair, row in zip(ids, part.rows, strict=True) if row.verdict is Status.FAIL]
        self._explained |= explained_files(part.directory, failed)
        self.parts.append(part)

    def check(self) -> None:
        """Raise ResultsError, with the reason, unless all that was added are parts of one run."""
        check_alike(self.parts)
        check_environments(self.parts)

    def write(self, directory: Path) -> None:
        """Write the files of the run into ``directory``. Raises ResultsError where that fails."""
        self._fill_memory()
        order = {pair: place for place, pair in enumerate(self._order())}
        rows = sorted(self.rows, key=lambda row: order.get(row.id, len(order)))
        samples = sorted(self._samples, key=lambda line: order.get(line[0], len(order)))
        contents: dict[str, Content] = {f"{EXPLAINED}/{name}": text for name, text in self._explained.items()}
        contents[TABLE] = [head_line(), *(row.table for row in rows)]
        contents[SAMPLES] = [line for _, line in samples]
        contents[STUDY] = self._study(directory, rows)
        write_together(directory, contents)

    def _order(self) -> list[str]:
        """The ids of the selection in catalog order, as far as parts of it know theirs."""
        known = [part.selection for part in self.parts if part.selection is not None]
        return [pair for selection in sorted(known, key=lambda one: one.first) for pair in selection.here]

    def _place_of(self, environment: Environment) -> int:
        if environment not in self.environments:
            self.environments.append(environment)
        return self.environments.index(environment)

    def _fill_memory(self) -> None:
        """Give rows the reduction that they lack, where FP32's row is there: another shard's, it may be."""
        import msgspec

        for place, (row, environment) in self._lacking.items():
            resolution = CPU_RESOLUTION_BYTES if environment.device == "cpu" else ACCELERATOR_RESOLUTION_BYTES
            fp32_peak = self._fp32_peaks.get((row.model, row.setup.batch))
            saved = memory_reduction(row.peak_memory_bytes, fp32_peak, resolution)
            if saved is not None:
                stored = msgspec.json.decode(b"".join(self.rows[place].study))
                text = msgspec.json.encode({**stored, "memory_reduction": saved})
                self.rows[place] = replace(self.rows[place], study=(text,), table=made_table_lines([text])[0])

    def _study(self, directory: Path, rows: Sequence[MergedRow]) -> list[bytes | memoryview]:
        import msgspec

        encode = msgspec.json.encode
        parts: dict[str, Iterable[bytes | memoryview]] = {
            "schema_version": [encode(SCHEMA_VERSION)],
            "complete": [encode(not self.gaps)],
            "started_utc": [encode(min(part.started_utc for part in self.parts))],
            "updated_utc": [encode(max(part.updated_utc for part in self.parts))],
            "options": [encode({**self.options, "output": str(directory.absolute())})],
            "environments": _listed([encode(environment)] for environment in self.environments),
            "records": _listed(row.study for row in rows),
            "failures": _listed([encode(failure)] for failure in self.failures),
        }
        pieces: list[bytes | memoryview] = []
        for name, value in parts.items():
            pieces += [b",\n" if pieces else b"{", encode(name), b":", *value]
        return [*pieces, b"}\n"]


def merge_runs(paths: Sequence[Path], directory: Path) -> Merge:
    """The runs in ``paths``, merged into ``directory``.

    Raises ResultsError where they are not parts of one run, or ``directory`` has results already.
    """
    places = [(path if path.is_dir() else path.parent).resolve() for path in paths]
    if directory.resolve() in places:
        raise ResultsError(f"{directory} is one of the runs to merge; give --output another directory")
    taken = [directory / name for name in (STUDY, TABLE, SAMPLES) if (directory / name).exists()]
    if taken:
        raise ResultsError(f"{taken[0]} is there already; give --output a directory without results")
    twice = next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise ResultsError(f"{twice} is given twice; give each run once")
    merge = Merge()
    with _without_collector():
        for path in sorted(paths, key=_number_of_shard):
            merge.add(path)
        merge.check()
        merge.write(directory)
    return merge


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector from looking through rows again and again, of which none is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def explained_files(directory: Path, failed: Iterable[str]) -> dict[str, bytes]:
    """The files in ``directory`` that explain the FAILs of those pairs, by their names."""
    folder = directory / EXPLAINED
    files = [folder / explained_file(pair) for pair in failed]
    try:
        return {file.name: file.read_bytes() for file in files if file.is_file()}
    except OSError as error:
        raise ResultsError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def _number_of_shard(path: Path) -> int:
    """By it parts are read in the order of their shards, in whatever order they were given; runs that are none stay."""
    selection = read_selection(path if path.is_dir() else path.parent)
    return 0 if selection is None else Shard.parse(selection.shard).number


def _listed(items: Iterable[Iterable[bytes | memoryview]]) -> Iterator[bytes | memoryview]:
    """The pieces of a list of ``items``, a line each."""
    yield b"["
    before = b"\n"
    for item in items:
        yield before
        yield from item
        before = b",\n"
    yield b"]" if before == b"\n" else b"\n]"
