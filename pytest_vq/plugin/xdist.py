"""Everything that knows pytest-xdist. Loaded by every pytest run: it imports nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

_REFUSED = "vq_refused"  # in a worker's output: why it runs nothing


def is_worker(config: pytest.Config) -> bool:
    """True in a process that pytest-xdist started."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """True in the process that hands tests out, and runs and collects none itself."""
    return bool(config.pluginmanager.hasplugin("dsession"))


def will_distribute(config: pytest.Config) -> bool:
    """True where the command line asks for workers; known before any plugin is configured."""
    return bool(config.getoption("numprocesses", None) or config.getoption("tx", None))


def is_crash(report: pytest.TestReport) -> bool:
    """True for the report that stands in for a test whose worker died."""
    phase: str = report.when
    return phase == "???"


def id_without_group(item: pytest.Item) -> str:
    """The id of ``item`` as other processes know it.

    With ``--dist loadgroup`` a worker appends the names of a test's groups to its id (pytest before 9.2).
    """
    marks = item.iter_markers("xdist_group")
    groups = {str(mark.args[0] if mark.args else mark.kwargs.get("name", "default")) for mark in marks}
    return item.nodeid.removesuffix(f"@{'_'.join(sorted(groups))}") if groups else item.nodeid


def refuse(config: pytest.Config, reason: str) -> None:
    """Run nothing in this worker: raised here, the reason would be an internal error; the controller raises it."""
    config.workeroutput[_REFUSED] = reason  # type: ignore[attr-defined]


class ControllerHooks:
    """Hooks of the process that hands tests out."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Refuse what a worker was asked for wrongly."""
        refused = getattr(node, "workeroutput", {}).get(_REFUSED)
        if refused is not None:
            raise pytest.UsageError(refused)
