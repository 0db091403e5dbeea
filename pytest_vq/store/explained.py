"""What a run keeps of its FAILs beside its results: where a call spent its time before and now, a file a pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_vq.errors import ResultsError
from pytest_vq.files import file_name
from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId

EXPLAINED = "explain"


@dataclass(frozen=True, slots=True)
class Explained:
    """The operators of one call in the baseline and now, and who holds the memory at the peak, a sentence each."""

    reason: str  # of the verdict that this was taken for
    failed: tuple[str, ...]  # the metrics that did
    before: Mapping[str, Operator]
    now: Mapping[str, Operator]
    peak: tuple[str, ...] = ()


def explained_file(case_id: str) -> str:
    """The name of the file in that folder that explains the FAIL of ``case_id``."""
    return file_name(case_id, ".json", kept="+")  # which stands in the names of schemes


def read_explained(directory: Path, records: Iterable[Record]) -> dict[CaseId, Explained]:
    """What ``directory`` keeps of those of ``records`` that failed.

    A file that an earlier run left there has another reason, and is passed over. Raises ResultsError for a file that
    is not one of these.
    """
    import msgspec

    # Names come from the results, which may be anybody's: only what lies in this folder is opened, never a path.
    folder = directory / EXPLAINED
    kept = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    found = {}
    for record in records:
        path = kept.get(explained_file(record.id))
        if path is None:
            continue
        try:
            explained = msgspec.json.decode(path.read_bytes(), type=Explained)
        except OSError as error:
            raise ResultsError(f"cannot read {path}: {error.strerror or error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ResultsError(f"{path} does not explain a verdict of pytest-vq: {error}") from error
        if explained.reason == record.reason:
            found[record.case_id] = explained
    return found
