"""A user's project in which no process that measures can be profiled, and each process says what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Behind what a conftest.py has already. ``said`` in the project's directory holds a word a line.
UNPROFILED = """

import pytest
import torch.autograd.profiler


def say(word):
    with open("said", "a") as file:
        file.write(f"{word}\\n")


def refuse(*args, **kwargs):
    raise AssertionError("a process that measures was profiled")


@pytest.fixture(autouse=True, scope="session")
def unprofiled(request):
    profiles = request.config.pluginmanager.hasplugin("pytest_vq.plugin.profiling")
    say("profiles" if profiles else "measures")
    with pytest.MonkeyPatch.context() as patch:
        if not profiles:
            patch.setattr(torch.autograd.profiler, "profile", refuse)
        yield
"""


def take_said(project: Path) -> list[str]:
    """What processes said in ``project`` since this was last asked."""
    path = project / "said"
    words = path.read_text().split()
    path.unlink()
    return words


def stored_entries(project: Path) -> list[dict[str, Any]]:
    """The entries of ``my-net`` in the baselines of ``project``."""
    (path,) = (project / "baselines").rglob("my-net.json")
    entries: list[dict[str, Any]] = json.loads(path.read_text())["entries"]
    return entries
