"""The device is glanced at now and then, and the medians of what was seen are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_vq.measure.watch import Watch


class World:
    """A clock that a test moves, and a device that shows one state after another."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.now = 0.0
        self.left: Iterator[dict[str, Any]] = iter(states)
        self.glances_s: list[float] = []

    def now_s(self) -> float:
        return self.now

    def glance(self) -> dict[str, Any]:
        self.glances_s.append(self.now)
        return next(self.left, {})


def watched(world: World, *moments_s: float) -> Watch:
    watch = Watch(world.glance, world.now_s)
    for moment_s in moments_s:
        world.now = moment_s
        watch()
    return watch


def test_it_glances_at_most_every_tenth_of_a_second() -> None:
    world = World()
    watched(world, 0.0, 0.03, 0.09, 0.11, 0.15, 0.2, 0.25, 0.9)
    assert world.glances_s == [0.0, 0.11, 0.25, 0.9]


def test_a_slow_glance_is_not_followed_by_the_next_at_once() -> None:
    world = World()
    glance = world.glance

    def slow() -> dict[str, Any]:
        state = glance()
        world.now += 0.5
        return state

    world.glance = slow  # type: ignore[method-assign]
    watched(world, 0.0, 0.55, 0.61)
    assert world.glances_s == [0.0, 0.61]


def test_medians_are_of_what_was_seen() -> None:
    world = World({"sm_clock_mhz": 1200}, {"sm_clock_mhz": 1980, "power_mw": 400_000}, {"sm_clock_mhz": 1950})
    watch = watched(world, 0.0, 1.0, 2.0)
    assert watch.median("sm_clock_mhz") == 1950.0
    assert watch.median("power_mw") == 400_000.0


@pytest.mark.parametrize("moments_s", [(), (0.0, 1.0)])
def test_what_is_not_told_has_no_median(moments_s: tuple[float, ...]) -> None:
    assert watched(World(), *moments_s).median("sm_clock_mhz") is None
