"""``selection.json``: which pairs of its selection a sharded run measures. Merging reads it.

By it the merged rows stand in catalog order, whatever order workers finished them in, and shards that were not cut
alike (by other durations, or from another selection) are told apart from those that are missing.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pytest_vq.errors import ResultsError
from pytest_vq.files import replace_file
from pytest_vq.schema.shard import Selection
from pytest_vq.store.reading import NoSchemaError, NotJsonError, read_versioned

SELECTION = "selection.json"
SCHEMA_VERSION = 1


def write_selection(directory: Path, selection: Selection | None) -> None:
    """Keep ``selection`` beside the results in ``directory``; None removes what an earlier run left there.

    Raises ResultsError where that fails.
    """
    import msgspec

    path = directory / SELECTION
    try:
        if selection is None:
            path.unlink(missing_ok=True)
        else:
            stored = {"schema_version": SCHEMA_VERSION, **asdict(selection)}
            replace_file(path, msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from error


def read_selection(directory: Path) -> Selection | None:
    """The selection beside the results in ``directory``; None where none was kept.

    Raises ResultsError for a file that is none.
    """
    import msgspec

    path = directory / SELECTION
    try:
        raw, _ = read_versioned(path.read_bytes(), str(path), SCHEMA_VERSION, ResultsError)
        return msgspec.convert(raw, Selection)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror or error}") from error
    except (NotJsonError, NoSchemaError, msgspec.ValidationError) as error:
        raise ResultsError(f"{path} is not a {SELECTION} of pytest-vq: {error}") from error
