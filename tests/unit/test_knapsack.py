"""The choice of least cost under a budget of noise, against all choices there are."""

from __future__ import annotations

import itertools
import random

import pytest

from pytest_vq.advise.knapsack import Choosable, cheapest_choice

UNITS = 64


def random_layers(generator: random.Random) -> list[dict[str, Choosable]]:
    """Three to six layers with FP32, which is free of noise, and one to three other options, of whole noise."""
    layers = []
    for _ in range(generator.randint(3, 6)):
        others = {
            f"p{number}": Choosable(generator.uniform(-3, 1), generator.randint(0, 40))
            for number in range(generator.randint(1, 3))
        }
        layers.append({"fp32": Choosable(0.0, 0.0), **others})
    return layers


def total(layers: list[dict[str, Choosable]], chosen: tuple[str, ...], figure: str) -> float:
    return sum(getattr(options[name], figure) for options, name in zip(layers, chosen, strict=True))


@pytest.mark.parametrize("seed", range(50))
def test_no_choice_within_the_budget_is_cheaper(seed: int) -> None:
    layers = random_layers(random.Random(seed))
    chosen = cheapest_choice(layers, budget=UNITS, units=UNITS)
    every = itertools.product(*layers)
    least = min(total(layers, other, "cost") for other in every if total(layers, other, "noise") <= UNITS)
    assert chosen is not None
    assert total(layers, chosen, "noise") <= UNITS
    assert total(layers, chosen, "cost") == pytest.approx(least)


@pytest.mark.parametrize("seed", range(20))
def test_noise_that_is_no_whole_unit_keeps_the_budget_too(seed: int) -> None:
    generator = random.Random(seed)
    layers = [
        {name: Choosable(own.cost, own.noise * generator.uniform(0.5, 1)) for name, own in options.items()}
        for options in random_layers(generator)
    ]
    chosen = cheapest_choice(layers, budget=50.0)
    assert chosen is not None
    assert total(layers, chosen, "noise") <= 50.0


def test_without_a_choice_within_the_budget_there_is_none() -> None:
    layers = [{"int8": Choosable(1.0, 3.0)}, {"int8": Choosable(1.0, 3.0)}]
    assert cheapest_choice(layers, budget=5.0) is None
    assert cheapest_choice(layers, budget=6.0) == ("int8", "int8")
    assert cheapest_choice(layers, budget=-1.0) is None


def test_a_budget_of_nothing_leaves_what_is_free_of_noise() -> None:
    layers = [{"fp32": Choosable(2.0, 0.0), "int8": Choosable(1.0, 1e-9)}]
    assert cheapest_choice(layers, budget=0.0) == ("fp32",)


def test_of_equal_costs_the_one_of_less_noise_is_taken() -> None:
    assert cheapest_choice([{"int8": Choosable(1.0, 2.0), "bf16": Choosable(1.0, 1.0)}], budget=4.0) == ("bf16",)
