"""All that one run left behind, read together: its results, every sample, and what explains its FAILs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_vq.schema.spec import CaseId
from pytest_vq.store.explained import Explained, read_explained
from pytest_vq.store.results import STUDY, Results, read_results
from pytest_vq.store.samples import SamplesLine, read_samples

REPORT_FOLDER = "report"  # in the run's directory, unless another is asked for


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as it was saved; ``file`` is the one that its results were read from."""

    file: Path
    results: Results
    samples: tuple[SamplesLine, ...]
    explained: Mapping[CaseId, Explained]


def read_saved_run(path: Path) -> SavedRun:
    """The run in ``path``, an output directory or its ``study.json``.

    Raises ResultsError, naming the file, where one is missing, truncated, of a newer schema, or something else.
    """
    results = read_results(path)
    file = path / STUDY if path.is_dir() else path
    return SavedRun(file, results, read_samples(file.parent), read_explained(file.parent, results.records))
