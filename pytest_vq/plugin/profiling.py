"""A process that only profiles: ``pytest -p pytest_vq.plugin.profiling``.

A profiler stays attached to a process on some devices (`Device.keeps_profiler`) and slows what is timed there from then
on. There `processes.fresh` starts this process beside the one that measures: every selected pair and callable is
profiled instead of measured, and its test is skipped where the record would be returned.
"""

from __future__ import annotations

from typing import NoReturn

import pytest

from pytest_vq.plugin.session import PROFILE_INSTEAD, VqSession
from pytest_vq.schema.cases import CallableCase
from pytest_vq.schema.spec import Case
from pytest_vq.store.profiled_pairs import append_profile


def pytest_configure(config: pytest.Config) -> None:
    """Let ``vq_bench`` and ``vq_gate`` profile."""
    config.stash[PROFILE_INSTEAD] = profile_instead


def profile_instead(session: VqSession, case: Case | CallableCase) -> NoReturn:
    """Profile ``case`` and keep what was found; no assertion on a record must run, for there is none."""
    append_profile(session.options.output, session.bench.profile(case))
    pytest.skip("profiled, not measured")
