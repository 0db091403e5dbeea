"""Fidelity and accuracy, gated against what the baseline's processes answered."""

from __future__ import annotations

import random
from typing import Any

import pytest
from factories import make_entry, make_estimates, make_setup

from pytest_vq.gate.decide import decide
from pytest_vq.gate.question import Question
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.verdict import MetricVerdict, Status

IMAGES = 1000


def process(**figures: Any) -> Estimates:
    return make_estimates(**({"sqnr_db": 30.0, "cosine": 0.9995} | figures))


def verdicts(now: Estimates, entry: Entry, **more: Any) -> dict[str, MetricVerdict]:
    found = decide(Question((now,), entry.setup, (entry,), **more)).metrics
    return {verdict.metric: verdict for verdict in found if verdict.metric.endswith("against the baseline")}


def bits(wrong: int, *, of: int = IMAGES, seed: int = 0) -> str:
    """The right answers of a model that has so many of the images wrong."""
    missed = set(random.Random(seed).sample(range(of), wrong))
    text = "".join("0" if image in missed else "1" for image in range(of))
    return f"{int(text, 2):0{of // 4}x}"


@pytest.mark.parametrize(
    ("sqnr_db", "status"),
    [(30.0, Status.PASS), (29.1, Status.PASS), (29.0, Status.FAIL), (18.5, Status.FAIL), (31.5, Status.IMPROVED)],
)
def test_a_decibel_of_sqnr_is_a_change(sqnr_db: float, status: Status) -> None:
    assert verdicts(process(sqnr_db=sqnr_db), make_entry([process()] * 5))["sqnr against the baseline"].status is status


def test_the_reason_names_both_figures() -> None:
    verdict = decide(Question((process(sqnr_db=18.5),), make_setup(), (make_entry([process()] * 5),)))
    assert verdict.status is Status.FAIL
    assert "SQNR against FP32 30.0 dB → 18.5 dB (-11.5 dB), tolerance 1 dB" in verdict.reason


def test_a_spread_between_the_recorded_processes_is_no_change() -> None:
    entry = make_entry([process(sqnr_db=db) for db in (28.0, 30.0, 30.0, 30.0, 30.0)])
    assert verdicts(process(sqnr_db=28.1), entry)["sqnr against the baseline"].status is Status.PASS


def test_a_loss_since_the_anchor_counts_though_the_recent_processes_had_it_too() -> None:
    entry = make_entry([process(sqnr_db=29.2)] * 5, anchor=[process()])
    assert verdicts(process(sqnr_db=28.9), entry)["sqnr against the baseline"].status is Status.FAIL


@pytest.mark.parametrize(
    ("before_db", "now_db", "status"),
    [(150.0, 81.0, Status.PASS), (150.0, 78.0, Status.FAIL), (81.0, 150.0, Status.PASS)],
)
def test_above_eighty_decibels_the_last_bits_are_no_ones_choice(before_db, now_db, status) -> None:
    found = verdicts(process(sqnr_db=now_db), make_entry([process(sqnr_db=before_db)] * 5))
    assert found["sqnr against the baseline"].status is status


@pytest.mark.parametrize(
    ("cosine", "status"), [(0.9995, Status.PASS), (0.9993, Status.FAIL), (0.9997, Status.IMPROVED)]
)
def test_the_cosine_is_gated_by_its_distance_from_one(cosine: float, status: Status) -> None:
    assert verdicts(process(cosine=cosine), make_entry([process()] * 5))["cosine against the baseline"].status is status


def test_an_exact_answer_is_compared_without_a_logarithm_of_nothing() -> None:
    entry = make_entry([process(cosine=1.0, sqnr_db=200.0)] * 5)
    assert {v.status for v in verdicts(process(cosine=1.0, sqnr_db=200.0), entry).values()} == {Status.PASS}


@pytest.mark.parametrize(
    ("wrong", "status"),
    [(43, Status.PASS), (46, Status.PASS), (400, Status.FAIL), (80, Status.FAIL), (1, Status.IMPROVED)],
)
def test_accuracy_is_compared_image_by_image(wrong: int, status: Status) -> None:
    recorded = process(accuracy=1 - 43 / IMAGES, right_answers=bits(43))
    now = process(accuracy=1 - wrong / IMAGES, right_answers=bits(wrong))
    assert verdicts(now, make_entry([recorded] * 5))["accuracy against the baseline"].status is status


def test_as_many_right_but_other_ones_is_no_loss() -> None:
    recorded = process(accuracy=0.9, right_answers=bits(100))
    now = process(accuracy=0.9, right_answers=bits(100, seed=1))
    assert verdicts(now, make_entry([recorded] * 5))["accuracy against the baseline"].status is Status.PASS


def test_a_loss_of_accuracy_says_how_many_images() -> None:
    recorded = process(accuracy=1.0, right_answers=bits(0))
    found = verdicts(process(accuracy=0.6, right_answers=bits(400)), make_entry([recorded] * 5))
    assert found["accuracy against the baseline"].reason == (
        "accuracy 100.0% → 60.0% (400 images changed: 400 to wrong, 0 to right)"
    )


@pytest.mark.parametrize(("accuracy", "status"), [(0.957, Status.PASS), (0.95, Status.PASS), (0.6, Status.FAIL)])
def test_without_the_anchors_answers_a_point_is_the_tolerance(accuracy: float, status: Status) -> None:
    found = verdicts(process(accuracy=accuracy), make_entry([process(accuracy=0.957)] * 5))
    assert found["accuracy against the baseline"].status is status


def test_what_the_baseline_has_and_this_run_has_not_is_open() -> None:
    found = verdicts(process(accuracy=None), make_entry([process(accuracy=0.957)] * 5))
    assert found["accuracy against the baseline"].status is Status.INCONCLUSIVE


def test_what_no_one_measured_is_not_spoken_of() -> None:
    bare = process(sqnr_db=None, cosine=None)
    assert verdicts(bare, make_entry([bare] * 5)) == {}


def test_a_hundred_unchanged_repeats_pass() -> None:
    recorded = process(accuracy=0.957, right_answers=bits(43))
    entry = make_entry([recorded] * 5)
    for _ in range(100):
        assert {v.status for v in verdicts(recorded, entry).values()} == {Status.PASS}
