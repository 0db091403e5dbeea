"""A bench of a test's own: its lock, its registered models and schemes, and the number of threads are nobody else's."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pytest_vq.catalog import models
from pytest_vq.execution import own_executions
from pytest_vq.measure.bench import Bench
from pytest_vq.options import Options
from pytest_vq.precision import own_precisions


@contextlib.contextmanager
def own_place(directory: Path) -> Iterator[None]:
    """The device's lock lies in ``directory``, so that no test waits for a benchmark that runs on this machine too.

    What is registered inside is forgotten afterwards.
    """
    threads = torch.get_num_threads()
    registries = models.isolated(), own_precisions.isolated(), own_executions.isolated()
    with registries[0], registries[1], registries[2], pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(directory))
        patch.setattr(tempfile, "tempdir", str(directory))
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextlib.contextmanager
def own_bench(directory: Path, options: Options) -> Iterator[Bench]:
    """A bench in its ``own_place``, released at the end."""
    with own_place(directory):
        made = Bench(options)
        try:
            yield made
        finally:
            made.release()
