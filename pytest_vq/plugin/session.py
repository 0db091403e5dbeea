"""One pytest process's run: its options, its bench and its baselines, kept in ``config.stash``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vq.errors import DeviceLostError, SelectionError
from pytest_vq.files import write_json
from pytest_vq.options import Options
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.outcome import Outcome
from pytest_vq.schema.verdict import Status, Tolerances, Verdict
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results import read_results

if TYPE_CHECKING:
    from pytest_vq.gate.stats import Noise
    from pytest_vq.measure.bench import Bench
    from pytest_vq.schema.spec import Case

MARKER = "vq"
_TOLERANCE_NAMES = tuple(f.name for f in fields(Tolerances))


@dataclass(slots=True)
class VqSession:
    """The run's state. Nothing in it is opened before a pair is measured."""

    config: pytest.Config
    options: Options
    comparisons: int = 0  # pairs selected in this run: the error of the gate is shared among them
    device_lost: bool = False
    _bench: Bench | None = None
    _noise: Noise | None = None
    _others: list[dict[str, Estimates]] | None = None

    @property
    def bench(self) -> Bench:
        """The bench, which imports torch at first use."""
        if self._bench is None:
            from pytest_vq.measure.bench import Bench

            self._bench = Bench(self.options)
        return self._bench

    @property
    def store(self) -> BaselineStore:
        """The baselines that this run is compared with."""
        return BaselineStore(self.options.baselines)

    def release(self) -> None:
        """Give the device's memory back."""
        if self._bench is not None:
            self._bench.release()

    def measure(self, case: Case, item: pytest.Item) -> Outcome:
        """Measure ``case``, here or, where a kernel crashed this process's device, in a fresh process."""
        self.device_lost = self.device_lost or self.bench.device.is_lost
        if self.device_lost:
            return self._measure_afresh(item)
        try:
            measured = self.bench.measure(case, profiled=self.options.save)
        except DeviceLostError:
            self.device_lost = True
            raise
        environment = self.bench.device.environment
        own = Estimates.of(measured.record, environment)
        others = tuple(taken[case.id] for taken in self._other_runs() if case.id in taken)
        return Outcome(measured.record, environment, (own, *others), measured.samples_ms, measured.operators)

    def judge(self, case: Case, outcome: Outcome, item: pytest.Item) -> Outcome:
        """Compare with the baselines; a suspect is measured again, in fresh processes, before it is called one."""
        if self.options.gate == "off":
            return outcome
        verdict = self._decide(case, outcome, item)
        while verdict.look_again:
            again = self._measure_afresh(item)
            doubt = outcome.record.disturbance or again.record.disturbance
            record = replace(outcome.record, disturbance=doubt)
            outcome = replace(outcome, record=record, estimates=(*outcome.estimates, *again.estimates))
            verdict = self._decide(case, outcome, item)
        outcome = replace(outcome, record=replace(outcome.record, verdict=verdict.status, reason=verdict.reason))
        return self._explained(case, outcome, verdict) if verdict.status is Status.FAIL else outcome

    def fails(self, status: Status | None) -> bool:
        """True where a row of ``status`` fails its test."""
        if self.options.gate != "fail" or status is None:
            return False
        doubtful = {Status.INCOMPARABLE, Status.INCONCLUSIVE}
        if not self.options.save:  # what is being recorded for the first time has no baseline yet
            doubtful.add(Status.NO_BASELINE)
        return status is Status.FAIL or (self.options.strict and status in doubtful)

    def _explained(self, case: Case, outcome: Outcome, verdict: Verdict) -> Outcome:
        """One profiled pass against the baseline's: in the failure's text, and both tables as a file."""
        from pytest_vq.gate.bounds import MEMORY
        from pytest_vq.gate.explain import explain, explain_memory

        entry = self.store.entry(outcome.environment.device_slug, case.model.name, outcome.record.setup)
        if entry is None or self.device_lost:  # a lower bound was missed: there is no before
            return outcome
        now, stacks = self.bench.profile(case)
        sentences = explain(entry.operators, now)
        if any(metric.status is Status.FAIL and metric.metric == MEMORY for metric in verdict.metrics):
            sentences = [*explain_memory(entry.operators, now), *stacks]
        tables = {"reason": outcome.record.reason, "before": entry.operators, "now": now, "peak": stacks}
        write_json(self.options.output / "explain" / f"{case.id}.json", tables)
        return replace(outcome, explanation=tuple(sentences))

    def run_output(self, number: int) -> Path:
        """Where the ``number``-th fresh process of ``--vq-runs`` leaves its results (this process is the first)."""
        return self.options.output / f"run-{number}"

    def _other_runs(self) -> list[dict[str, Estimates]]:
        # Read from disk: under xdist the process that started those runs is not the one that needs them.
        if self._others is None:
            results = [read_results(self.run_output(number)) for number in range(2, self.options.runs + 1)]
            self._others = [{row.record.id: row.estimates[0] for row in result.rows} for result in results]
        return self._others

    def _measure_afresh(self, item: pytest.Item) -> Outcome:
        from pytest_vq.processes.fresh import measure_afresh

        self.release()
        return measure_afresh(item, self.options)

    def _decide(self, case: Case, outcome: Outcome, item: pytest.Item) -> Verdict:
        from pytest_vq.gate.decide import decide
        from pytest_vq.gate.stats import learn_noise

        device = outcome.environment.device_slug
        if self._noise is None:
            stored = self.store.all_entries(device)
            self._noise = learn_noise((model, entry) for model, entries in stored.items() for entry in entries)
        return decide(
            outcome.estimates,
            outcome.record.setup,
            self.store.entries(device, case.model.name),
            self._noise,
            tolerances_of(item),
            min_sqnr_db=case.min_sqnr_db,
            disturbance=outcome.record.disturbance,
            comparisons=max(1, self.comparisons),
        )


SESSION = pytest.StashKey[VqSession]()
OUTCOME = pytest.StashKey[Outcome]()


def tolerances_of(item: pytest.Item) -> Tolerances:
    """The tolerances of ``@pytest.mark.vq``; the nearest marker wins, name by name."""
    given: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        given |= marker.kwargs
    return Tolerances(**given)


def check_marker(item: pytest.Item) -> None:
    """Raise ``SelectionError`` for what ``@pytest.mark.vq`` does not take."""
    for marker in item.iter_markers(MARKER):
        unknown = set(marker.kwargs) - set(_TOLERANCE_NAMES)
        if marker.args or unknown:
            what = f"unknown keyword {min(unknown)!r}" if unknown else "positional arguments"
            raise SelectionError(f"{item.nodeid}: mark.vq has {what}; it takes {', '.join(_TOLERANCE_NAMES)}")
        for name, value in marker.kwargs.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise SelectionError(f"{item.nodeid}: mark.vq({name}={value!r}) is not a number of 0 or more")
