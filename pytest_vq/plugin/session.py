"""One pytest process's run: its options, its bench and its baselines, kept in ``config.stash``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_vq.device.visible import all_uuids
from pytest_vq.errors import DeviceLostError, MeasurementError
from pytest_vq.options import Options
from pytest_vq.plugin import xdist
from pytest_vq.plugin.alteration import ALTERATION
from pytest_vq.plugin.judging import Demand, Means, judge
from pytest_vq.plugin.serving_tests import LoadMeans, measure_under_load
from pytest_vq.processes.command import Invocation
from pytest_vq.schema.cases import AnyCase, CallableCase, ServingCase
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.outcome import Outcome, Profile
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.shard import Selection
from pytest_vq.schema.spec import Case
from pytest_vq.schema.verdict import Status, Tolerances, fails
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.durations import read_durations
from pytest_vq.store.results import read_results
from pytest_vq.store.resuming import Circumstances, EarlierRun

if TYPE_CHECKING:
    from pytest_vq.gate.noise import Noise
    from pytest_vq.measure.bench import Bench
    from pytest_vq.processes.fresh import ProfiledPairs


@dataclass(slots=True)
class VqSession:
    """The run's state. Nothing in it is opened before something is measured."""

    config: pytest.Config
    options: Options
    comparisons: int = 0  # pairs and callables selected in all shards: the error of the gate is shared among them
    elsewhere: int = 0  # of those, the tests that other shards run
    selection: Selection | None = None  # of a sharded run, once it is known
    left_out: dict[str, str] = field(default_factory=dict)  # scheme -> why this device cannot run it, once asked for
    serving_left_out: int = 0  # tests that put pairs under load, and that nobody asked for
    # In a worker, of all that is selected here: node id -> its place in a run without workers.
    places: dict[str, int] = field(default_factory=dict)
    groups: list[int] = field(default_factory=list)  # in a worker, until it was told: which tests share a model
    device_lost: bool = False
    _bench: Bench | None = None
    _noise: dict[str, Noise] = field(default_factory=dict)  # by device
    _durations: Mapping[str, float] | None = None
    _earlier: EarlierRun | None = None  # what is taken up, once it was asked for
    _others: list[dict[tuple[str, Setup], Estimates]] | None = None

    @property
    def bench(self) -> Bench:
        """The bench, which imports torch at first use."""
        if self._bench is None:
            from pytest_vq.execution.prepared import unaltered
            from pytest_vq.measure.bench import Bench

            self._bench = Bench(self.options, self.config.stash.get(ALTERATION, unaltered))
        return self._bench

    @property
    def store(self) -> BaselineStore:
        """The baselines that this run is compared with."""
        return BaselineStore(self.options.baselines)

    @property
    def durations(self) -> Mapping[str, float]:
        """Pair or callable -> the seconds that it is known to take here. Raises BaselineError for a broken file.

        Workers are told, so that all of them find one order, whatever lies on their hosts.
        """
        if self._durations is None:
            told = xdist.told_durations(self.config)
            kind = "cuda" if self.options.gpu else "cpu"
            self._durations = read_durations(self.options.baselines).get(kind, {}) if told is None else told
        return self._durations

    @property
    def invocation(self) -> Invocation:
        """How this run was started, for other processes to repeat."""
        config = self.config
        return Invocation(
            directory=config.invocation_params.dir,
            rootdir=config.rootpath,
            inifile=config.inipath,
            import_mode=str(config.getoption("importmode")),
            plugins=tuple(config.getoption("plugins")),
            keyword=config.getoption("keyword"),
            markers=config.getoption("markexpr"),
            deselected=tuple(config.getoption("deselect") or ()),
        )

    def release(self) -> None:
        """Give the device's memory back."""
        if self._bench is not None:
            self._bench.release()

    def measure(self, case: AnyCase, node_id: str) -> Outcome:
        """What the test ``node_id`` measures of ``case``; what an earlier run kept of it where this one takes it up."""
        kept = self._kept(case, node_id) if self.options.resume else None
        if isinstance(kept, Outcome):
            return replace(kept, test=node_id, kept=True)
        return replace(self._measure(case, node_id), test=node_id, replaces=kept)

    def _kept(self, case: AnyCase, node_id: str) -> Outcome | str | None:
        """See `EarlierRun.outcome`. Only a process that measures can tell: others know no device."""
        if self._earlier is None:
            self._earlier = EarlierRun(self.options.output)
        from pytest_vq.measure.sections import setup_of

        device = self.bench.device
        environment = device.environment
        # Any worker may be given any pair, and has one of this host's GPUs.
        several = self.options.gpu and xdist.is_worker(self.config)
        cards = all_uuids() if several else (environment.device_uuid,)
        method = case.method if isinstance(case, CallableCase) else None
        now = Circumstances(setup_of(case, device, self.options), environment, cards, method)
        return self._earlier.outcome(node_id, case.case_id, now)

    def _measure(self, case: AnyCase, node_id: str) -> Outcome:
        """Measure ``case``, here or, where a kernel crashed this process's device, its test in a fresh process."""
        if isinstance(case, ServingCase):
            self.release()
            return measure_under_load(
                case, node_id, LoadMeans(self.options, self.invocation, self.bench.device, self.store)
            )
        device = self.bench.device
        self.device_lost = self.device_lost or device.is_lost
        if self.device_lost:
            return self.measure_afresh(node_id)
        try:
            measured = self.bench.measure(case, profiled=self.options.save and not device.keeps_profiler)
        except DeviceLostError:
            self.device_lost = True
            raise
        environment = self.bench.device.environment
        own = Estimates.of(measured.record, environment)
        key = (measured.record.identity.model, measured.record.setup)
        others = tuple(taken[key] for taken in self._other_runs() if key in taken)
        return Outcome(measured.record, environment, (own, *others), (measured.samples,), measured.operators)

    def judge(self, case: AnyCase, node_id: str, outcome: Outcome, tolerances: Tolerances) -> Outcome:
        """``outcome`` of a test with its verdict against the baselines; as it is where the gate is off.

        A verdict that an earlier run came to stands.
        """
        if self.options.gate == "off" or outcome.record.verdict is not None:
            return outcome
        pair = case.case if isinstance(case, ServingCase) else case
        means = Means(
            store=self.store,
            noise=self._noise_of,
            measure_again=partial(self.measure_afresh, node_id),
            profile=partial(self.profile, pair, node_id),
            explanations=self.options.output / "explain",
        )
        min_sqnr_db = pair.min_sqnr_db if isinstance(pair, Case) else None
        return judge(outcome, Demand(tolerances, self.comparisons, min_sqnr_db), means)

    def measure_afresh(self, node_id: str) -> Outcome:
        """What a fresh process measures in the test ``node_id``; this one lends it the device."""
        from pytest_vq.processes.fresh import measure_afresh

        self.release()
        return measure_afresh(self.invocation, self.options, node_id)

    def profile(self, case: Case | CallableCase, node_id: str) -> Profile:
        """What one call of ``case`` spends its time in; found elsewhere where this process would keep the profiler.

        Raises a ``VqError`` where it cannot be found.
        """
        if not self.device_lost and not self.bench.device.keeps_profiler:
            return self.bench.profile(case)
        profiled = self.profile_afresh([node_id])
        if case.id not in profiled.profiles:
            raise MeasurementError(profiled.ending)
        return profiled.profiles[case.id]

    def profile_afresh(self, node_ids: Sequence[str]) -> ProfiledPairs:
        """The pairs of the tests ``node_ids``, profiled by a process of its own; this one lends it the device."""
        from pytest_vq.processes.fresh import profile_afresh

        self.release()
        return profile_afresh(self.invocation, self.options, node_ids)

    def fails(self, status: Status | None) -> bool:
        """True where a row of ``status`` fails its test."""
        return self.options.gate == "fail" and fails(status, strict=self.options.strict, saves=self.options.save)

    def run_output(self, number: int) -> Path:
        """Where the ``number``-th fresh process of ``--vq-runs`` leaves its results (this process is the first)."""
        return self.options.output / f"run-{number}"

    def _noise_of(self, device_slug: str) -> Noise:
        if device_slug not in self._noise:
            from pytest_vq.gate.noise import learn_noise

            stored = self.store.all_entries(device_slug).values()
            self._noise[device_slug] = learn_noise(entry for entries in stored for entry in entries)
        return self._noise[device_slug]

    def _other_runs(self) -> list[dict[tuple[str, Setup], Estimates]]:
        # Read from disk: under xdist the process that started those runs is not the one that needs them.
        if self._others is None:
            results = [read_results(self.run_output(number)) for number in range(2, self.options.runs + 1)]
            self._others = [
                {(row.record.identity.model, row.record.setup): row.estimates[0] for row in result.rows}
                for result in results
            ]
        return self._others


SESSION = pytest.StashKey[VqSession]()
OUTCOME = pytest.StashKey[Outcome]()
# Set by ``profiling``: what ``vq_bench`` and ``vq_gate`` do instead of measuring.
PROFILE_INSTEAD = pytest.StashKey[Callable[[VqSession, Case | CallableCase], NoReturn]]()
