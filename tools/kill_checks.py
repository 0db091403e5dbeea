"""What a killed run must leave, and what the run that takes it up must make of that: read from the files alone."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_vq.errors import VqError
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.durations import read_durations
from pytest_vq.store.results import STUDY, TABLE, Results, Row, read_results
from pytest_vq.store.samples import samples_by_pair

Files = dict[Path, bytes]


@dataclass(frozen=True, slots=True)
class Finished:
    """The pairs that a run had finished when it was killed: each one's row as stored, and its lines of samples."""

    rows: Mapping[str, dict[str, Any]]
    samples: Mapping[str, list[bytes]]
    complete: bool = False


def baselines_in(root: Path) -> Files:
    """What every file of baselines holds, but for what a killed process had begun to write beside one."""
    files = sorted(root.glob("*/**/*.json"))
    return {path: path.read_bytes() for path in files if not path.name.startswith(".")}


def finished_in(output: Path, losses: list[str]) -> Finished:
    """What the run in ``output`` had finished; where its files do not agree, ``losses`` say how."""
    if not (output / STUDY).exists():
        begun = [name for name in _models_in_table(output) if name]
        losses += [f"{TABLE} has rows of {begun}, and there is no {STUDY}"] if begun else []
        return Finished({}, {})
    try:
        results, samples = read_results(output), samples_by_pair(output)
    except VqError as error:
        losses.append(str(error))
        return Finished({}, {})
    lines = {row.record.id: _lines_of(row, samples) for row in results.rows}
    losses += [f"{pair} has a row and no samples" for pair, found in lines.items() if not found]
    losses += _disagreements(output, results, {str(pair) for _, pair in samples})
    return Finished(_stored_rows(output), lines, results.complete)


def losses_of_resumed(output: Path, before: Finished, pairs: set[str]) -> list[str]:
    """What the run that was taken up in ``output`` lost of ``before``, or lacks of ``pairs``, in words."""
    losses: list[str] = []
    after = finished_in(output, losses)
    counted = Counter(after.rows)
    losses += [f"{pair} is missing" for pair in sorted(pairs - counted.keys())]
    losses += [f"{pair} was not asked for" for pair in sorted(counted.keys() - pairs)]
    losses += [] if after.complete else ["it is not complete"]
    for pair, row in before.rows.items():
        if after.rows.get(pair) != row:
            losses.append(f"{pair} was finished, and its row is another one now")
        if after.samples.get(pair) != before.samples[pair]:
            losses.append(f"{pair} was finished, and its samples are others now")
    return losses


def losses_of_baselines(root: Path, before: Files, added: tuple[int, ...]) -> list[str]:
    """How the baselines below ``root`` differ from ``before`` with as many processes ``added`` as there may be."""
    now = baselines_in(root)
    losses = [f"{path} is gone" for path in before.keys() - now.keys()]
    losses += [f"{path} is new" for path in now.keys() - before.keys()]
    try:
        store = BaselineStore(root)
        for device in store.devices():
            store.all_entries(device)  # which reads and checks each of them
        read_durations(root)
    except VqError as error:
        return [*losses, str(error)]
    for path in before.keys() & now.keys():
        if before[path] == now[path] and 0 in added:
            continue
        for old, new in zip(_processes(before[path]), _processes(now[path]), strict=True):
            if new[: len(old)] != old or len(new) - len(old) not in added:
                losses.append(
                    f"{path} had {len(old)} processes of an entry, and has {len(new)}: none, or {added}, more"
                )
    return losses


def _lines_of(row: Row, samples: Mapping[Any, list[tuple[str, bytes]]]) -> list[bytes]:
    dates = {estimates.date_utc for estimates in row.estimates}
    return [line for date, line in samples.get(row.key, []) if date in dates]


def _disagreements(output: Path, results: Results, sampled: set[str]) -> list[str]:
    """The study counts: beside its rows the other files may have one pair more, which was being added."""
    known = [row.record.id for row in results.rows]
    table = _models_in_table(output)
    losses = []
    if table[: len(known)] != known or len(table) > len(known) + 1:
        losses.append(f"{TABLE} has {table}, and {STUDY} has {known}")
    if not set(known) <= sampled or len(sampled) > len(known) + 1:
        losses.append(f"the samples are of {sorted(sampled)}, and {STUDY} has {known}")
    return losses


def _models_in_table(output: Path) -> list[str]:
    """The pairs of the table; the end of a line that was being written is none."""
    if not (output / TABLE).exists():
        return []
    content = (output / TABLE).read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode()
    return [f"{row['model']}-{row['precision']}" for row in csv.DictReader(io.StringIO(whole, newline=""))]


def _stored_rows(output: Path) -> dict[str, dict[str, Any]]:
    study = json.loads((output / STUDY).read_text())
    environments = study["environments"]
    return {
        f"{row['model']}-{row['precision']}": row | {"environment": environments[row["environment"]]}
        for row in study["records"]
    }


def _processes(content: bytes) -> list[list[Any]]:
    return [entry["processes"] for entry in json.loads(content)["entries"]]
