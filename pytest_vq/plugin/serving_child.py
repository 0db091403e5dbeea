"""How the process that puts load on a pair gets it: it collects the pair's test, as any pytest, and runs nothing.

So whatever a test's conftest files and ``-p`` plugins register or alter holds there too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from pytest_vq.errors import MeasurementError
from pytest_vq.execution.prepared import unaltered
from pytest_vq.options import read_options
from pytest_vq.plugin.alteration import ALTERATION
from pytest_vq.plugin.items import case_of
from pytest_vq.schema.cases import ServingCase
from pytest_vq.schema.serving import ServingTerms
from pytest_vq.serve.case_service import CaseService, ServingManner


class _Found:
    """Keeps the tests that were collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know them."""
        self.items = list(session.items)


def build(words: Sequence[str], directory: str, terms: Mapping[str, Any], manner: Mapping[str, Any]) -> CaseService:
    """The pair of the one test that ``words``, a command line of pytest's, select from ``directory``, as a service.

    Raises MeasurementError where that is not one test of a pair, and what `CaseService` raises.
    """
    os.chdir(directory)
    found = _Found()
    code = pytest.main([*words, "--collect-only", "-q"], plugins=[found])
    cases = [(item.config, case) for item in found.items if (case := case_of(item)) is not None]
    if len(cases) != 1:
        raise MeasurementError(f"a fresh process found {len(cases)} pairs to serve (pytest ended with {int(code)})")
    config, case = cases[0]
    serving = ServingCase(case, msgspec.convert(terms, ServingTerms))
    alter = config.stash.get(ALTERATION, unaltered)
    return CaseService(serving, read_options(config), alter, msgspec.convert(manner, ServingManner))
