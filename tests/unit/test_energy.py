"""Energy an image, from a counter that is updated in steps."""

from __future__ import annotations

import pytest

from pytest_vq.measure.energy import CounterReading, between_updates, energy_per_image_mj

POWER_MW, IMAGES = 400_000.0, 8


class World:
    """A device at a steady power whose counter is updated every ``update_s``; a stretch takes ``stretch_s``."""

    def __init__(self, update_s: float, stretch_s: float = 0.02, counts: bool = True) -> None:
        self.now = 1000.0137  # in the middle of a step
        self.update_s, self.stretch_s, self.counts = update_s, stretch_s, counts
        self.stretches = 0

    def now_s(self) -> float:
        return self.now

    def counter_mj(self) -> int | None:
        return int(self.now // self.update_s * self.update_s * POWER_MW) if self.counts else None

    def stretch(self) -> None:
        self.stretches += 1
        self.now += self.stretch_s

    def measure(self) -> float | None:
        return energy_per_image_mj(self.counter_mj, self.stretch, IMAGES, self.now_s)


@pytest.mark.parametrize("update_s", [0.001, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("stretch_s", [0.005, 0.02, 0.027])
def test_it_is_found_whatever_the_length_of_the_counters_step(update_s: float, stretch_s: float) -> None:
    world = World(update_s, stretch_s)
    assert world.measure() == pytest.approx(POWER_MW * stretch_s / IMAGES, rel=stretch_s / 0.5)


def test_the_phase_is_bounded() -> None:
    world = World(update_s=0.05)
    started = world.now
    world.measure()
    assert world.now - started == pytest.approx(0.7, abs=0.03)


def test_a_device_that_does_not_count_is_not_kept_busy() -> None:
    world = World(update_s=0.05, counts=False)
    assert world.measure() is None
    assert world.stretches == 0


def test_a_counter_that_is_updated_too_seldom_gives_none() -> None:
    assert World(update_s=0.5).measure() is None


def test_a_stretch_that_takes_too_long_for_the_phase_gives_none() -> None:
    assert World(update_s=0.02, stretch_s=0.2).measure() is None


def test_a_counter_that_stops_answering_gives_none() -> None:
    world = World(update_s=0.02)
    answers = iter([1, 2, 3])
    assert energy_per_image_mj(lambda: next(answers, None), world.stretch, IMAGES, world.now_s) is None


def readings(*rows: tuple[float, int, int]) -> list[CounterReading]:
    return [CounterReading(*row) for row in rows]


def test_only_what_lies_between_two_updates_counts() -> None:
    rows = [(0.0, 0, 100)]  # read long after its update
    rows += [(i / 100, i, 100 if i < 10 else 900) for i in range(1, 60)]
    rows += [(i / 100, i, 1700) for i in range(60, 80)]  # and the end long before the next
    assert between_updates(readings(*rows)) == 800 / 50


def test_too_short_a_span_gives_none() -> None:
    assert between_updates(readings(*((i / 100, i, 10 * i) for i in range(30)))) is None
    assert between_updates(readings(*((i / 100, i, 10 * i) for i in range(40)))) == 10.0


def test_a_counter_that_stands_still_gives_none() -> None:
    assert between_updates(readings(*((i / 100, i, 5) for i in range(80)))) is None
