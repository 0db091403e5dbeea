from __future__ import annotations

import math

import pytest
import torch

from pytest_vq.errors import OutputError
from pytest_vq.precision.fidelity import MAX_SQNR_DB, check_output, find_right, measure_fidelity, ratio_db, to_bits
from pytest_vq.schema.record import Fidelity


def test_known_figures():
    reference = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    candidate = torch.tensor([[4.0, 3.0], [0.0, 5.0]])
    fidelity = measure_fidelity(reference, candidate)
    assert fidelity.cosine == pytest.approx((24 / 25 + 1) / 2)
    assert fidelity.sqnr_db == pytest.approx(10 * math.log10(50 / 2))
    assert fidelity.max_abs_error == 1.0
    assert fidelity.top1_agreement == 0.5


def test_an_exact_match_is_finite_and_the_most_there_is():
    outputs = torch.randn(4, 10)
    assert measure_fidelity(outputs, outputs.clone()) == Fidelity(
        cosine=pytest.approx(1.0), sqnr_db=MAX_SQNR_DB, max_abs_error=0.0, top1_agreement=1.0
    )
    nearly = outputs.double() + 1e-13
    assert measure_fidelity(outputs.double(), nearly).sqnr_db == MAX_SQNR_DB


def test_sqnr_follows_the_noise():
    torch.manual_seed(0)
    signal = torch.randn(64, 1000, dtype=torch.float64)
    for scale, expected_db in [(1.0, 0.0), (0.1, 20.0), (0.001, 60.0)]:
        assert measure_fidelity(signal, signal + scale * torch.randn_like(signal)).sqnr_db == pytest.approx(
            expected_db, abs=0.1
        )


def test_sqnr_is_of_the_whole_and_cosine_of_the_rows():
    # One weak row turned round: the energy hardly notices, the mean of the rows' cosines does.
    reference = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    candidate = torch.tensor([[100.0, 0.0], [0.0, -1.0]])
    fidelity = measure_fidelity(reference, candidate)
    assert fidelity.sqnr_db == pytest.approx(10 * math.log10(10001 / 4))
    assert fidelity.cosine == 0.0


def test_the_comparison_adds_no_error_of_its_own():
    # In float16, the squares of these overflow and the differences vanish.
    reference = torch.tensor([[300.0, 60000.0]], dtype=torch.float16)
    candidate = torch.tensor([[301.0, 60000.0]], dtype=torch.bfloat16)
    fidelity = measure_fidelity(reference.double(), candidate)
    assert math.isfinite(fidelity.sqnr_db)
    tiny = torch.full((1, 3), 1e-30)
    assert measure_fidelity(tiny, tiny * (1 + 1e-3)).sqnr_db == pytest.approx(60, abs=0.1)
    assert measure_fidelity(tiny, tiny.clone()).cosine == pytest.approx(1.0)


def test_directions_of_zero_vectors():
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert measure_fidelity(zeros, zeros).cosine == 1.0
    assert measure_fidelity(zeros, ones).cosine == 0.0
    assert measure_fidelity(zeros, ones).sqnr_db == -MAX_SQNR_DB
    assert measure_fidelity(ones, zeros).sqnr_db == 0.0


def test_more_axes_are_flattened_and_one_feature_has_no_top1():
    maps = torch.randn(2, 3, 4, 4)
    assert measure_fidelity(maps, maps).top1_agreement == 1.0
    assert measure_fidelity(torch.randn(5, 1), torch.randn(5, 1)).top1_agreement is None
    assert measure_fidelity(torch.randn(5), torch.randn(5)).top1_agreement is None


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(OutputError, match=r"\[2, 3\] and \[2, 4\]"):
        measure_fidelity(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(OutputError, match="not finite"):
        measure_fidelity(torch.zeros(1, 2), torch.tensor([[0.0, math.nan]]))


def test_good_outputs_pass():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        check_output(torch.randn(3, 10).to(dtype), "m")
    check_output(torch.randn(3, 10).half(), "m", like=torch.zeros(3, 10))
    check_output(torch.randn(1, 1), "m")
    check_output(torch.randn(3, 1), "m")
    check_output(torch.randn(2, 3, 4, 4), "m")


@pytest.mark.parametrize(
    ("output", "match"),
    [
        ((torch.zeros(2), torch.zeros(2)), "m-int8: the output is a tuple, not a tensor"),
        (None, "a NoneType"),
        (torch.zeros(2, 3, dtype=torch.int64), "torch.int64"),
        (torch.tensor([[1.0, math.nan, 2.0]]), "1 of 3 output values are NaN"),
        (torch.tensor([[1.0, math.inf, -math.inf]]), "2 of 3"),
        (torch.zeros(2, 3), "degenerate"),
        (torch.full((2, 3), 7.0), "degenerate"),
        (torch.randn(2, 3) * 1e-30, "degenerate"),
        (torch.tensor([[1.0, 2.0], [5.0, 5.0]]), "degenerate"),
        (torch.ones(4, 1), "degenerate"),
        (torch.tensor(1.0), "shape"),
        (torch.zeros(0, 3), "shape"),
        (torch.zeros(3, 0), "shape"),
    ],
)
def test_bad_outputs_are_refused(output, match):
    with pytest.raises(OutputError, match=match):
        check_output(output, "m-int8")


def test_another_shape_than_the_reference():
    with pytest.raises(OutputError, match=r"has shape \[2, 3\], FP32's has \[3, 3\]"):
        check_output(torch.randn(2, 3), "m", like=torch.randn(3, 3))


def test_accuracy():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [2.0, 1.0]]).half()
    assert find_right(logits, torch.tensor([1, 0, 0, 0])).double().mean() == 0.75
    for wrong in (torch.tensor([1, 0]), torch.zeros(4, 1)):
        with pytest.raises(OutputError, match="accuracy needs"):
            find_right(logits, wrong)
    with pytest.raises(OutputError):
        find_right(torch.zeros(0, 2), torch.zeros(0))


@pytest.mark.parametrize(
    ("signal", "noise", "expected_db"),
    [
        (100.0, 1.0, 20.0),
        (1.0, 100.0, -20.0),
        (1.0, 0.0, MAX_SQNR_DB),
        (0.0, 0.0, MAX_SQNR_DB),  # nothing was lost
        (0.0, 1.0, -MAX_SQNR_DB),
        (1.0, math.inf, -MAX_SQNR_DB),
        (1.0, math.nan, -MAX_SQNR_DB),
        (1.0, 1e-30, MAX_SQNR_DB),
        (1e-30, 1.0, -MAX_SQNR_DB),
    ],
)
def test_a_ratio_is_finite_whatever_the_powers(signal, noise, expected_db):
    assert ratio_db(signal, noise) == pytest.approx(expected_db)


@pytest.mark.parametrize(
    ("right", "digits"), [([1], "8"), ([1, 0, 1, 1], "b"), ([0, 0, 0, 0, 1], "08"), ([0] * 5, "00")]
)
def test_right_answers_are_a_bit_each_the_first_one_highest(right: list[int], digits: str) -> None:
    assert to_bits(torch.tensor(right, dtype=torch.bool)) == digits
