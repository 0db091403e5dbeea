"""The entry point of the plugin: declares the options and fixtures, and wakes the rest where a run uses it.

Every pytest run of an environment loads this module, few measure: it imports no torch, and little of this package.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from pytest_vq.errors import VqError
from pytest_vq.options import add_options, any_given, read_options
from pytest_vq.plugin import xdist
from pytest_vq.plugin.fixtures import gpu_timer, vq_bench, vq_case, vq_gate, vq_serve
from pytest_vq.plugin.xdist import pytest_xdist_auto_num_workers

__all__ = [
    "gpu_timer",
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_xdist_auto_num_workers",
    "vq_bench",
    "vq_case",
    "vq_gate",
    "vq_serve",
]

_FIXTURES = frozenset(name for name in __all__ if not name.startswith("pytest_"))
_HOOKS = "vq-tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and their ini keys."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and refuse here what can be refused before anything is collected."""
    config.addinivalue_line("markers", "vq(**tolerances): tolerances of a test's gate, relative to the baseline")
    config.addinivalue_line("markers", "vq_serving(**terms): what a pair under load must keep, and how it is served")
    # Under xdist the controller collects nothing: its first word of a pair would come too late to open the results.
    if any_given(config) or xdist.will_distribute(config):
        _wake(config)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The first test that uses one of our fixtures wakes the rest; its pairs become its parameters."""
    if not _FIXTURES.isdisjoint(metafunc.fixturenames):
        hooks = _wake(metafunc.config)
        if "vq_case" in metafunc.fixturenames:
            hooks.parametrize(metafunc)


def _wake(config: pytest.Config) -> Any:
    """The hooks of this run, registered at the first call."""
    if config.pluginmanager.has_plugin(_HOOKS):
        return config.pluginmanager.get_plugin(_HOOKS)
    from pytest_vq.plugin import ci, collecting, reporting
    from pytest_vq.plugin.session import SESSION, VqSession

    try:
        session = config.stash[SESSION] = VqSession(config, read_options(config))
        hooks = collecting.CollectingHooks(session)
        hooks.check_usage()
    except VqError as error:
        raise pytest.UsageError(str(error)) from None
    if not xdist.is_worker(config):
        run_hooks = reporting.RunHooks(session)
        config.pluginmanager.register(run_hooks, "vq-run")
        config.pluginmanager.register(ci.GitHubHooks(run_hooks.run, os.environ), "vq-github")
        config.pluginmanager.register(xdist.ControllerHooks(session), "vq-xdist")
    config.pluginmanager.register(reporting.ReportingHooks(session), "vq-reports")
    config.pluginmanager.register(ci.PropertyHooks(), "vq-properties")
    config.pluginmanager.register(hooks, _HOOKS)
    return hooks
