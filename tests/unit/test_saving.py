"""What ``--vq-save`` leaves out: a pair under load without a rate, to which nobody could be held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import ENVIRONMENT, alter, make_outcome, make_record, make_serving_record

from pytest_vq.plugin.run import Run
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.outcome import Outcome
from pytest_vq.schema.record import Record
from pytest_vq.schema.serving import ServingEstimates, ServingTerms
from pytest_vq.store.baselines import BaselineStore

UNTOLD = alter(make_serving_record(), max_qps_low=None, max_qps_high=None)


def outcome_of(record: Record, **serving: Any) -> Outcome:
    known = ServingEstimates(10_000, 10, 200.0, 8.0, 400.0, **serving)
    return make_outcome(record, estimates=(replace(Estimates.of(record, ENVIRONMENT), serving=known),))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    options = SimpleNamespace(output=tmp_path)
    session: Any = SimpleNamespace(
        store=BaselineStore(tmp_path / "baselines"), options=options, profile_afresh=lambda _: pytest.fail("profiled")
    )
    return Run(session)


def saved(run: Run, *outcomes: Outcome) -> list[str]:
    run.rows = [("test", outcome) for outcome in outcomes]
    run._save(pytest.ExitCode.OK)
    entries = run.session.store.all_entries(ENVIRONMENT.device_slug).get("net", ())
    return sorted(entry.setup.words for entry in entries)


def test_a_row_under_load_without_a_rate_is_named_and_not_recorded(run: Run) -> None:
    pair = make_outcome(make_record(), operators={})
    run.session.profile_afresh = lambda _: SimpleNamespace(profiles={}, ending="")
    assert saved(run, pair, outcome_of(UNTOLD)) == ["int8 at batch 1"]
    assert "WARNING: not recorded, for want of a rate to store: net-int8-serving; measure again" in run.notes


def test_one_with_a_bracket_is_recorded_and_so_is_what_is_measured_at_its_rate_later(run: Run) -> None:
    found = outcome_of(make_serving_record(), max_qps_low=222.0, max_qps_high=240.0)
    assert len(saved(run, found)) == 1
    assert len(saved(run, outcome_of(UNTOLD))) == 1
    (entry,) = run.session.store.entries(ENVIRONMENT.device_slug, "net")
    assert len(entry.processes) == 2


def test_one_of_which_no_rate_kept_the_bound_is_recorded(run: Run) -> None:
    record = alter(make_serving_record(), max_qps_low=0.0, target_qps=None)
    assert len(saved(run, outcome_of(record, max_qps_low=0.0, max_qps_high=30.0))) == 1


ASKED = ServingTerms("Server", "loadgen", target_qps=100.0)


@pytest.mark.parametrize("terms", [ASKED, ServingTerms("Offline", "loadgen")])
def test_one_that_asks_for_no_rate_is_recorded(run: Run, terms: ServingTerms) -> None:
    record = make_serving_record(terms=terms, max_qps_low=None, max_qps_high=None)
    assert len(saved(run, outcome_of(record))) == 1
