"""Everything that knows pytest-xdist. Loaded by every pytest run: it imports nothing of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import pytest

from pytest_vq.errors import VqError
from pytest_vq.options import Options, read_options
from pytest_vq.schema.shard import Selection

# What controller and workers tell each other beside reports; xdist carries builtin types only.
_REFUSED = "vq_refused"  # in a worker's output: why it runs nothing
_LEFT_OUT = "vq_left_out"  # in a worker's output: schemes that a group named and it cannot run, with the reasons
_SELECTION = "vq_selection"  # in a worker's output: what a sharded run selected
_DURATIONS = "vq_durations"  # in a worker's input: seconds that pairs are known to take
_DIST = "vq_dist"  # in a worker's input: how tests are handed out
_VARIABLE = "CUDA_VISIBLE_DEVICES"

_REFUSED_DISTS = {
    "each": (
        "measures every pair once in each worker, and one run holds one row of a pair; leave it out, or start a run "
        "for each device, each with its own --vq-output"
    ),
    "loadgroup": (
        "never ends once a worker has crashed (seen with pytest-xdist 3.8); give --dist=load, which is -n's default, "
        "or --dist=worksteal"
    ),
}


def is_worker(config: pytest.Config) -> bool:
    """True in a process that pytest-xdist started."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """True in the process that hands tests out, and runs and collects none itself."""
    return bool(config.pluginmanager.hasplugin("dsession"))


def will_distribute(config: pytest.Config) -> bool:
    """True where the command line asks for workers; known before any plugin is configured."""
    asked = bool(config.getoption("numprocesses", None) or config.getoption("tx", None))
    return asked and not is_worker(config)  # a worker is given the controller's command line


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


def worker_count(config: pytest.Config) -> int:
    """How many workers there are, in one of them."""
    count: int = config.workerinput["workercount"]  # type: ignore[attr-defined]
    return count


def refuse(config: pytest.Config, reason: str) -> None:
    """Run nothing in this worker: raised here, the reason would be an internal error; the controller raises it."""
    config.workeroutput[_REFUSED] = reason  # type: ignore[attr-defined]


def tell_controller(config: pytest.Config, session: Session) -> None:
    """Let the controller, which collects nothing, know what this worker left out and selected."""
    config.workeroutput[_LEFT_OUT] = dict(session.left_out)  # type: ignore[attr-defined]
    if session.selection is not None:
        config.workeroutput[_SELECTION] = asdict(session.selection)  # type: ignore[attr-defined]


def told_durations(config: pytest.Config) -> Mapping[str, float] | None:
    """Seconds that pairs are known to take, as the controller told this worker; None outside a worker."""
    return getattr(config, "workerinput", {}).get(_DURATIONS)


def distribution_refusal(config: pytest.Config) -> str:
    """Why what measures must not be handed out to workers as it is; empty where it may, and outside a worker."""
    dist = getattr(config, "workerinput", {}).get(_DIST)
    return f"--dist={dist} {_REFUSED_DISTS[dist]}" if dist in _REFUSED_DISTS else ""


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """With ``--gpu``, a worker for each GPU that is visible. Asked before any plugin is configured.

    Otherwise, and where the user's PYTEST_XDIST_AUTO_NUM_WORKERS says it, xdist's own number: it cannot be known here
    whether a run measures at all.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    try:
        is_gpu = read_options(config).gpu
    except VqError:  # said when the plugin is configured
        return None
    # Where there is none, one worker is enough to say what is missing.
    return max(1, len(_visible_gpus())) if is_gpu else None


def _visible_gpus() -> list[str]:
    import pynvml

    from pytest_vq.device.visible import visible_gpus

    try:
        return visible_gpus(os.environ)
    except pynvml.NVMLError:  # no driver: a worker says so, by what torch finds
        return []


class KeepsModels:
    """Part of xdist's scheduler for ``--dist=load``: of what is left, a worker gets what it has built the model of.

    Else what no worker has built, and only then what another one has. Used before ``LoadScheduling`` in a class of
    both. Until it is told which tests share a model it hands them out as they come.
    """

    pending: list[int]  # LoadScheduling's: the tests that no worker has yet, by their number
    node2pending: dict[Any, list[int]]  # and those that each worker has
    groups: Sequence[int] = ()  # of each test, by its number: those that share a model have one; -1: it needs none

    def check_schedule(self, node: Any, duration: float = 0) -> None:
        """Give ``node`` more to do if it will need it, best first."""
        if self.groups and self.pending:
            here = self._models_of(node)
            elsewhere = {model for other in self.node2pending if other is not node for model in self._models_of(other)}

            def rank(test: int) -> int:
                model = self.groups[test]
                return 0 if model in here else 2 if model in elsewhere else 1

            self.pending.sort(key=rank)  # stable: as they come, otherwise
        super().check_schedule(node, duration)  # type: ignore[misc]

    def _models_of(self, node: Any) -> set[int]:
        return {self.groups[test] for test in self.node2pending.get(node, ())} - {-1}


def model_scheduling(config: Any, log: Any) -> Any:
    """The scheduler of xdist for ``--dist=load``, which here keeps a model's pairs with few workers."""
    from xdist.scheduler import LoadScheduling

    return type("ModelScheduling", (KeepsModels, LoadScheduling), {})(config, log)


class Session(Protocol):
    """As much of ``VqSession`` as is needed here; that module knows this one."""

    config: pytest.Config
    options: Options
    left_out: dict[str, str]
    selection: Selection | None

    @property
    def durations(self) -> Mapping[str, float]:
        """Pair or callable -> the seconds that it is known to take."""


class ControllerHooks:
    """Hooks of the process that hands tests out."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._scheduler: Any = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """A scheduler that keeps a model's pairs together, where the user asks for no other."""
        if config.getoption("dist") == "load":
            self._scheduler = model_scheduling(config, log)
        return self._scheduler

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Learn which tests share a model from the first report of a worker that measures."""
        groups: list[int] | None = getattr(report, "vq_groups", None)
        if groups is not None and self._scheduler is not None:
            self._scheduler.groups = groups

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Give each worker of this host one GPU, before anything there can start CUDA.

        The specification is kept when its worker crashes and is replaced, and with it the GPU. More workers than GPUs
        take turns on them. Workers elsewhere, and those with a GPU of their own already, are left alone.
        """
        gpus = _visible_gpus() if self._session.options.gpu else []
        local = [spec for spec in specs if spec.popen and not spec.via]
        self._refuse_runs(remote=len(specs) - len(local), gpus=min(len(gpus), len(local)))
        if any(not spec.popen for spec in specs):
            self._refuse_paths()
        if gpus:
            for number, spec in enumerate(spec for spec in local if _VARIABLE not in spec.env):
                spec.env[_VARIABLE] = gpus[number % len(gpus)]

    def _refuse_runs(self, remote: int, gpus: int) -> None:
        """``--vq-runs`` measures in further processes of this one: on its host, and on the first of its GPUs."""
        runs = self._session.options.runs
        if runs > 1 and (remote or gpus > 1):
            where = "workers on other hosts" if remote else f"workers on {gpus} GPUs"
            raise pytest.UsageError(
                f"--vq-runs={runs} measures its further processes on this host and on one GPU, which says nothing "
                f"about {where}; give the command without it {runs} times, with --vq-save to record each"
            )

    def _refuse_paths(self) -> None:
        """Words that are paths here: xdist would end in an internal error, for it does not know them elsewhere."""
        config = self._session.config
        if config.getoption("rsyncdir") or config.getini("rsyncdirs"):
            return  # then xdist copies them there, and knows
        paths = [str(word) for word in config.invocation_params.args if Path(str(word).partition("::")[0]).exists()]
        if paths:
            raise pytest.UsageError(
                f"{paths[0]} is a path on this host, and pytest-xdist cannot name it on another; say what to run as "
                f"-o testpaths={paths[0]}, which each host reads in its own chdir, and give options as --name=value"
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell each worker how tests are handed out, which its own options do not say, and what pairs take."""
        node.workerinput[_DIST] = node.config.getoption("dist")
        try:
            node.workerinput[_DURATIONS] = dict(self._session.durations)
        except VqError as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Refuse what a worker was asked for wrongly, and keep what it left out and selected."""
        output = getattr(node, "workeroutput", {})  # a worker that crashed leaves none
        if _REFUSED in output:
            raise pytest.UsageError(output[_REFUSED])
        self._session.left_out.update(output.get(_LEFT_OUT, {}))
        if _SELECTION in output:
            told = output[_SELECTION]
            self._session.selection = Selection(**{**told, "here": tuple(told["here"])})
