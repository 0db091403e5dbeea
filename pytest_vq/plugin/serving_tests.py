"""Tests that put a pair under load: which of them run, what they ask for, and how it is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.options import Options
from pytest_vq.plugin.items import case_of
from pytest_vq.plugin.marker import check_keywords, keywords_of
from pytest_vq.processes.command import Invocation
from pytest_vq.schema.cases import ServingCase
from pytest_vq.schema.serving import SERVER, ServingTerms
from pytest_vq.schema.spec import Case
from pytest_vq.store.baselines import BaselineStore

if TYPE_CHECKING:
    from pytest_vq.device.device import Device
    from pytest_vq.schema.outcome import Outcome
    from pytest_vq.serve.serving_runs import PutLoad, Runs

MARKER = "vq_serving"
_NAMES = tuple(f.name for f in fields(ServingTerms) if f.name not in {"scenario", "load_engine"})
_WHOLE = ("max_batch_size", "max_queue_delay_microseconds", "samples_per_query")
_CHILD = "pytest_vq.plugin.serving_child:build"
_NOBODY_IS_REFUSED = 2**31


def check_serving_marker(item: pytest.Item) -> None:
    """Raise ``SelectionError`` for what ``@pytest.mark.vq_serving`` does not take."""
    for marker in item.iter_markers(MARKER):
        check_keywords(item, marker, _NAMES)
        for name, value in marker.kwargs.items():
            kinds, what = (int, "a whole number") if name in _WHOLE else (int | float, "a finite number")
            if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
                raise SelectionError(f"{item.nodeid}: mark.{MARKER}({name}={value!r}) is not {what}")
    try:
        ServingTerms(SERVER, "", **keywords_of(item, MARKER))
    except SelectionError as error:
        raise SelectionError(f"{item.nodeid}: mark.{MARKER}: {error}") from None


def serving_case(item: pytest.Item, case: Case, scenario: str, *, fallback: bool) -> ServingCase:
    """``case`` as the test of ``item`` puts it under load.

    Raises ``SelectionError`` for a scenario that is none, and for another pair than the test's own: fresh processes
    find the pair by the test.
    """
    from pytest_vq.serve.load import choose_engine

    if (own := case_of(item)) is None or case != own:
        raise SelectionError(f"{item.nodeid}: vq_serve serves its test's own pair: pass it the argument vq_case")
    try:
        return ServingCase(case, ServingTerms(scenario, choose_engine(), **keywords_of(item, MARKER)), fallback)
    except SelectionError as error:
        raise SelectionError(f"{item.nodeid}: {error}") from None


def left_out(config: pytest.Config, options: Options, serving_items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Those of ``serving_items`` that nobody asked for: neither ``--vq-serving`` nor their file is named."""
    if options.serving:
        return []
    named = {(config.invocation_params.dir / str(argument).partition("::")[0]).resolve() for argument in config.args}
    return [item for item in serving_items if Path(item.path).resolve() not in named]


@dataclass(frozen=True, slots=True)
class LoadMeans:
    """What a pair is put under load with."""

    options: Options
    invocation: Invocation
    device: Device
    store: BaselineStore


def measure_under_load(case: ServingCase, node_id: str, means: LoadMeans) -> Outcome:
    """What the test ``node_id`` measures of ``case``: in fresh processes, while this one keeps the device for them.

    It must not keep memory there itself.
    """
    from pytest_vq.measure.sections import setup_of
    from pytest_vq.schema.figures import Effort
    from pytest_vq.schema.outcome import Outcome
    from pytest_vq.serve.serving_record import estimates_of_loads, record_of, samples_of_loads
    from pytest_vq.serve.serving_runs import BUDGET_S, Wanted, serve
    from pytest_vq.serve.serving_verdict import stored_qps

    options, device = means.options, means.device
    setup = setup_of(case, device, options)
    entry = means.store.entry(device.environment.device_slug, case.case.model.name, setup)
    wanted = Wanted(case.terms, stored_qps(entry), options.search, options.budget or BUDGET_S)
    with device.held() as held:
        served = serve(wanted, _runs(case, node_id, means))
    record = record_of(served, setup, Effort(device_held_s=held.seconds))
    estimates = estimates_of_loads(record, served, device.environment)
    return Outcome(record, device.environment, estimates, samples_of_loads(served))


def _runs(case: ServingCase, node_id: str, means: LoadMeans) -> Runs:
    from pytest_vq.processes.fresh import words_to_find
    from pytest_vq.serve.load import Served, run_load
    from pytest_vq.serve.serving_runs import Runs

    words, directory = words_to_find(means.invocation, means.options, node_id), str(means.invocation.directory)

    def by(**manner: Any) -> PutLoad:
        arguments = {"words": words, "directory": directory, "terms": asdict(case.terms), "manner": manner}
        served = Served(_CHILD, arguments)
        return lambda plan: run_load(plan, served, case.terms.load_engine)

    return Runs(
        look_over=by(looks_over=True),
        load=by(),
        offline=by(max_queue_size=_NOBODY_IS_REFUSED),
        fallback=by(fallback_answers=True) if case.with_fallback else None,
    )
