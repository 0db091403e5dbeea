"""The entry point of the plugin: declares the options and puts the run's state in place. Imports no torch."""

from __future__ import annotations

import pytest

from pytest_vq import hooks
from pytest_vq.errors import VqError
from pytest_vq.fixtures import gpu_timer, vq_bench, vq_case
from pytest_vq.options import add_options, read_options
from pytest_vq.session import MARKER, SESSION, VqSession

__all__ = ["gpu_timer", "pytest_addoption", "pytest_configure", "vq_bench", "vq_case"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and their ini keys."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and refuse here what can be refused before anything is collected."""
    config.addinivalue_line("markers", f"{MARKER}(**tolerances): tolerances of a test's gate, relative to the baseline")
    try:
        session = config.stash[SESSION] = VqSession(config, read_options(config))
        hooks.check_usage(session)
    except VqError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(hooks.TestHooks(session), "vq-tests")
    if not hooks.is_worker(config):
        config.pluginmanager.register(hooks.RunHooks(session), "vq-run")
