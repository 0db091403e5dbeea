"""An earlier run that is taken up: which of its rows stand, why others do not, and which options it must repeat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, make_callable_record, make_outcome, make_record, make_samples

from pytest_vq.errors import ResultsError, SelectionError
from pytest_vq.options import OPTIONS, Options
from pytest_vq.plugin.resumption import Resumption
from pytest_vq.schema.outcome import Failure, Outcome
from pytest_vq.schema.shard import Shard
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.resuming import Circumstances, EarlierRun, earlier_results

TEST = "test_nets.py::test_precision[net-int8]"
STORED = make_outcome(test=TEST)
SAME = Circumstances(STORED.record.setup, replace(ENVIRONMENT, date_utc="later"), {ENVIRONMENT.device_uuid})


def left(directory: Path, *outcomes: Outcome) -> EarlierRun:
    """What a run that measured ``outcomes`` left in ``directory``."""
    writer = ResultsWriter(directory, {})
    for outcome in outcomes:
        writer.add(outcome)
    return EarlierRun(directory)


def found(directory: Path, now: Circumstances = SAME) -> Outcome | str | None:
    return left(directory, STORED).outcome(TEST, STORED.record.case_id, now)


class TestRows:
    def test_a_row_of_the_same_environment_is_handed_on_as_it_was(self, tmp_path: Path) -> None:
        assert found(tmp_path) == STORED

    def test_the_samples_of_all_its_processes_come_along(self, tmp_path: Path) -> None:
        fresh = replace(STORED.estimates[0], date_utc="2026-01-01T00:01:00Z")
        samples = (*STORED.samples, make_samples((7.0, 8.0), date_utc=fresh.date_utc))
        several = replace(STORED, estimates=(*STORED.estimates, fresh), samples=samples)
        assert left(tmp_path, several).outcome(TEST, STORED.record.case_id, SAME) == several

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"versions": {"torch": "2.14.0", "python": "3.11"}}, "torch 2.13.0 → 2.14.0"),
            ({"versions": {"torch": "2.13.0"}}, "python 3.11 → none"),
            ({"settings": {"power_limit_mw": "500000"}}, "power_limit_mw none → 500000"),
            ({"commit": "abc-dirty"}, "commit abc → abc-dirty"),
            ({"commit": None, "settings": {"mig": "1g"}}, "mig none → 1g, commit abc → none"),
        ],
    )
    def test_a_row_of_another_environment_is_not(self, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
        assert found(tmp_path, replace(SAME, environment=replace(SAME.environment, **changes))) == words

    def test_neither_is_one_of_another_setup(self, tmp_path: Path) -> None:
        setup = replace(SAME.setup, rest="fp16", recipe="0a")
        assert found(tmp_path, replace(SAME, setup=setup)) == "rest bf16 → fp16, recipe none → 0a"

    def test_a_card_is_another_unless_this_run_measures_on_it_too(self, tmp_path: Path) -> None:
        other = replace(SAME.environment, device_uuid="GPU-2", device_name="A GPU")
        alone = replace(SAME, environment=other, cards={"GPU-2"})
        assert found(tmp_path, alone) == "A CPU (CPU-1) → A GPU (GPU-2)"
        assert found(tmp_path, replace(alone, cards={"GPU-2", "CPU-1"})) == STORED

    def test_a_row_whose_samples_are_gone_is_measured_again(self, tmp_path: Path) -> None:
        left(tmp_path, STORED)
        (tmp_path / "samples.jsonl").write_bytes(b"")
        assert EarlierRun(tmp_path).outcome(TEST, STORED.record.case_id, SAME) == "its samples are missing"

    def test_samples_of_a_process_that_replaced_nothing_are_not_its_own(self, tmp_path: Path) -> None:
        left(tmp_path, STORED)
        table = tmp_path / "samples.jsonl"
        table.write_text(table.read_text() + table.read_text().replace(ENVIRONMENT.date_utc, "2026-01-02T00:00:00Z"))
        assert EarlierRun(tmp_path).outcome(TEST, STORED.record.case_id, SAME) == STORED

    def test_another_tests_row_of_the_pair_is_not_this_ones(self, tmp_path: Path) -> None:
        earlier = left(tmp_path, STORED)
        assert earlier.outcome("test_nets.py::test_other[net-int8]", STORED.record.case_id, SAME) is None

    def test_rows_from_before_tests_were_named_are_anyones(self, tmp_path: Path) -> None:
        unnamed = replace(STORED, test=None)
        assert left(tmp_path, unnamed).outcome(TEST, STORED.record.case_id, SAME) == unnamed

    def test_a_callable_of_another_name_is_another(self, tmp_path: Path) -> None:
        record = make_callable_record()
        stored = make_outcome(record, test=record.id)
        earlier = left(tmp_path, stored)
        now = replace(SAME, setup=record.setup, method="test_ops.matmul")
        assert earlier.outcome(record.id, record.case_id, now) == stored
        other = replace(now, method="test_ops.fused_matmul")
        words = "callable test_ops.matmul → test_ops.fused_matmul"
        assert earlier.outcome(record.id, record.case_id, other) == words

    def test_where_there_are_no_results_nothing_was_kept(self, tmp_path: Path) -> None:
        assert EarlierRun(tmp_path).outcome(TEST, STORED.record.case_id, SAME) is None

    def test_what_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        left(tmp_path, STORED)
        (tmp_path / "samples.jsonl").write_text("mine\n")
        with pytest.raises(ResultsError, match=r"samples\.jsonl is not"):
            EarlierRun(tmp_path)


# What a run that is taken up may be given otherwise.
FREE = {"gate", "strict", "save", "baselines", "output", "report", "resume"}
OTHER: dict[str, Any] = {
    "gpu": True,
    "models": "vit-*",
    "precisions": "int8",
    "batch": (8, 1),
    "weights": "pretrained",
    "protocol": "study",
    "budget": 7.0,
    "threads": 3,
    "save": True,
    "baselines": Path("/elsewhere"),
    "gate": "off",
    "strict": True,
    "runs": 2,
    "report": True,
    "shard": Shard(2, 3),
}


class TestOptions:
    @pytest.fixture
    def options(self, tmp_path: Path) -> Options:
        """Those of a run that left its results, and is to be taken up."""
        options = Options(output=tmp_path)
        ResultsWriter(tmp_path, options.to_json()).add(STORED)
        return replace(options, resume=True)

    def test_the_same_options_take_it_up(self, options: Options) -> None:
        found = earlier_results(options)
        assert found is not None
        assert found.records == (STORED.record,)

    @pytest.mark.parametrize("field", [name for name in OTHER if name not in FREE])
    def test_one_that_changes_what_is_measured_is_refused(self, options: Options, field: str) -> None:
        (option,) = (option for option in OPTIONS if option.field == field)
        with pytest.raises(SelectionError, match=r"^--vq-resume: .*study\.json is of a run with ") as error:
            earlier_results(replace(options, **{field: OTHER[field]}))
        there, _, here = str(error.value).partition("; this one has ")
        assert f"--{option.name}" in there
        assert " ".join(option.spelled(OTHER[field])) in here

    @pytest.mark.parametrize("field", [name for name in OTHER if name in FREE])
    def test_one_that_does_not_is_free(self, options: Options, field: str) -> None:
        assert earlier_results(replace(options, **{field: OTHER[field]})) is not None

    def test_all_that_differ_are_named(self, options: Options) -> None:
        with pytest.raises(SelectionError) as error:
            earlier_results(replace(options, gpu=True, budget=2.0))
        assert str(error.value).startswith(
            f"--vq-resume: {options.output / 'study.json'} is of a run with no --gpu, no --vq-budget; this one has "
            "--gpu, --vq-budget=2.0, and would measure something else. Give what that run was given, or "
        )

    def test_an_option_that_the_run_did_not_know_yet_had_its_default(self, options: Options) -> None:
        stored = {name: value for name, value in options.to_json().items() if name != "threads"}
        ResultsWriter(options.output, stored)
        assert earlier_results(options) is not None
        with pytest.raises(SelectionError, match="--vq-threads=1; this one has --vq-threads=2"):
            earlier_results(replace(options, threads=2))

    def test_nothing_is_taken_up_unasked_or_where_there_is_nothing(self, options: Options, tmp_path: Path) -> None:
        assert earlier_results(replace(options, resume=False)) is None
        assert earlier_results(replace(options, output=tmp_path / "absent")) is None


class TestNotes:
    @pytest.fixture
    def earlier(self, tmp_path: Path):
        """A run that was cut short with rows of these models, and failures of those."""

        def make(*models: str, failed: tuple[str, ...] = (), complete: bool = False) -> Resumption:
            writer = ResultsWriter(tmp_path, {})
            for model in models:
                writer.add(make_outcome(make_record(model), test=model))
            for model in failed:
                writer.fail(Failure(f"{model}-int8", "OutputError", "nan", model))
            writer.close(complete)
            return Resumption(read_results(tmp_path))

        return make

    def test_kept_and_measured_rows_are_counted_with_the_reasons(self, earlier, tmp_path: Path) -> None:
        resumption = earlier("a", "b", "c")
        resumption.take(make_outcome(make_record("a"), test="a", kept=True))
        for model in ("b", "c"):
            resumption.take(make_outcome(make_record(model), test=model, replaces="torch 2.12.0 → 2.13.0"))
        resumption.take(make_outcome(make_record("d"), test="d"))
        (note,) = resumption.notes(tmp_path)
        assert note.endswith(": 1 pair kept, 3 pairs measured (2 again, for torch 2.12.0 → 2.13.0)")
        assert not resumption.leaves_a_gap

    def test_what_was_not_selected_leaves_a_gap_in_a_run_that_was_cut_short(self, earlier, tmp_path: Path) -> None:
        resumption = earlier("a", "b")
        resumption.take(make_outcome(make_record("a"), test="a", kept=True))
        assert resumption.leaves_a_gap
        assert resumption.notes(tmp_path)[1] == (
            "not selected here, and left as before: 1 pair of the earlier run, and the run stays marked as interrupted"
        )

    def test_a_failure_that_was_not_tried_again_is_one_too(self, earlier) -> None:
        resumption = earlier(failed=("a", "b"))
        resumption.take_failure("a-int8")
        assert resumption.leaves_a_gap
        resumption.take(make_outcome(make_record("b"), test="b"))
        assert not resumption.leaves_a_gap

    def test_a_run_that_was_whole_stays_whole(self, earlier) -> None:
        assert not earlier("a", complete=True).leaves_a_gap

    @pytest.mark.parametrize(
        ("commit", "words"),
        [(None, "there is no git repository here"), ("abc-dirty", "the tree has changes that are not committed")],
    )
    def test_code_that_may_have_changed_is_said(self, earlier, tmp_path: Path, commit: str | None, words: str) -> None:
        resumption = earlier("a")
        kept = make_outcome(make_record("a"), replace(ENVIRONMENT, commit=commit), test="a", kept=True)
        resumption.take(kept)
        assert resumption.notes(tmp_path)[1].startswith(f"WARNING: {words}: ")

    def test_a_run_with_nothing_to_take_up_says_so(self, tmp_path: Path) -> None:
        resumption = Resumption(None)
        resumption.take(STORED)
        assert resumption.notes(tmp_path) == [
            f"--vq-resume: {tmp_path} held no results to go on with: this run began them"
        ]
        assert not resumption.leaves_a_gap
