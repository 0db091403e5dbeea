"""A card that the baseline never met, judged by how much the cards that it knows differ."""

from __future__ import annotations

import math
import random

import pytest
from factories import make_entry, make_estimates, make_setup

from pytest_vq.gate.decide import decide
from pytest_vq.gate.noise import Noise, learn_noise
from pytest_vq.gate.question import Question
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.verdict import MetricVerdict, Status, Verdict

PAIRS, CARDS, PROCESSES = 64, 5, 3
CARD_SIGMA, PROCESS_SIGMA = 0.02, 0.01
SETUP = make_setup("fp32", threads=None)


def process(card: str, log_time: float) -> Estimates:
    """A process of an FP32 pair that took 10 ms, but for a factor."""
    factor = math.exp(log_time)
    times = {"latency_ms": 10 * factor, "latency_low_ms": 9.99 * factor, "latency_high_ms": 10.01 * factor}
    figures = {"speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0, "sqnr_db": None, "sentinel_ms": None}
    return make_estimates(**times, **figures, latency_q10_ms=10 * factor, device_uuid=card)


def suite(rng: random.Random, slowdown: float = 0.0, pairs: int = PAIRS) -> tuple[list[Entry], list[list[Estimates]]]:
    """The baselines of five cards, and the fresh processes of a sixth, for each pair; a card's effect is all pairs'."""
    cards = [rng.gauss(0, CARD_SIGMA) for _ in range(CARDS)]
    sixth = rng.gauss(0, CARD_SIGMA) + math.log1p(slowdown)
    entries = [
        make_entry(
            [process(f"GPU-{n}", card + rng.gauss(0, PROCESS_SIGMA)) for n, card in enumerate(cards) for _ in "abc"],
            SETUP,
        )
        for _ in range(pairs)
    ]
    fresh = [[process("GPU-new", sixth + rng.gauss(0, PROCESS_SIGMA)) for _ in "abc"] for _ in range(pairs)]
    return entries, fresh


def judged(entry: Entry, fresh: list[Estimates], noise: Noise) -> Verdict:
    """The verdict after as many looks as it asks for."""
    taken, more = 0, 1
    while more and taken < len(fresh):
        taken += more
        verdict = decide(Question(tuple(fresh[:taken]), SETUP, (entry,), noise, comparisons=PAIRS))
        more = verdict.more_processes
    return verdict


def latency(verdict: Verdict) -> MetricVerdict:
    return next(metric for metric in verdict.metrics if metric.metric == "latency")


def steady(cards: int, spread: float = 0.02) -> tuple[Entry, Noise]:
    """A pair's baseline of cards that differ by ``spread`` in turn, and what it teaches."""
    entry = make_entry([process(f"GPU-{n}", spread * (n % 3 - 1)) for n in range(cards) for _ in "abc"], SETUP)
    return entry, learn_noise([entry] * 4)


def test_a_much_slower_card_fails() -> None:
    entry, noise = steady(5)
    verdict = judged(entry, [process("GPU-new", math.log(1.3))] * 3, noise)
    assert latency(verdict).status is Status.FAIL
    assert "on a card that is new to the baseline, judged by how much its 5 cards differ, 3 fresh" in verdict.reason


def test_a_much_faster_card_is_an_improvement() -> None:
    entry, noise = steady(5)
    assert latency(judged(entry, [process("GPU-new", -math.log(1.3))] * 3, noise)).status is Status.IMPROVED


def test_a_card_like_the_others_is_open_and_names_the_smallest_change_it_could_have_seen() -> None:
    entry, noise = steady(5)
    found = latency(judged(entry, [process("GPU-new", 0.0)] * 3, noise))
    assert found.status is Status.INCONCLUSIVE
    assert found.detectable is not None
    assert 0.05 < found.detectable < 0.25
    assert "the smallest this run could have seen is" in found.reason


def test_cards_that_hardly_differ_let_a_new_one_pass() -> None:
    entry, noise = steady(8, spread=0.001)
    assert latency(judged(entry, [process("GPU-new", 0.0)] * 3, noise)).status is Status.PASS


@pytest.mark.parametrize("cards", [1, 2])
def test_one_or_two_cards_know_too_little(cards: int) -> None:
    entry, noise = steady(cards)
    found = latency(judged(entry, [process("GPU-new", math.log(1.3))] * 3, noise))
    assert found.status is Status.INCONCLUSIVE
    assert "is not among the baseline's" in found.reason


def test_a_card_that_is_known_is_compared_with_itself() -> None:
    entry, noise = steady(5)
    verdict = judged(entry, [process("GPU-0", -0.02)] * 3, noise)
    assert latency(verdict).status is not Status.FAIL
    assert "new to the baseline" not in verdict.reason


def test_a_cards_effect_is_known_as_well_as_there_are_cards_however_many_pairs_show_it() -> None:
    entries, _ = suite(random.Random(0))
    cards = learn_noise(entries).cards
    assert cards is not None
    assert (cards.df, cards.pairs) == (CARDS - 1, PAIRS)


def failing_suites(slowdown: float, suites: int, pairs: int) -> tuple[float, float]:
    """The share of suites with any FAIL, and of pairs that FAIL, over simulated fleets."""
    any_fail, fails = 0, 0
    for seed in range(suites):
        entries, fresh = suite(random.Random(seed), slowdown, pairs)
        noise = learn_noise(entries)
        failed = sum(
            latency(judged(entry, taken, noise)).status is Status.FAIL
            for entry, taken in zip(entries, fresh, strict=True)
        )
        any_fail += failed > 0
        fails += failed
    return any_fail / suites, fails / suites / pairs


def test_an_unchanged_sixth_card_fails_in_one_suite_of_a_hundred_at_most() -> None:
    assert failing_suites(0.0, suites=300, pairs=8)[0] <= 0.01


def test_a_sixth_card_that_is_fifteen_per_cent_slower_is_found() -> None:
    assert failing_suites(0.15, suites=200, pairs=8)[1] >= 0.85
