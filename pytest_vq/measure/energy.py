"""Energy of one image, from a counter of the device's that is updated in steps of unknown length. Pure.

NVML counts millijoules and updates the count every 20 to 100 ms, depending on the GPU. A difference between two moments
is therefore off by what the device takes in up to one such step at each end. Calls run back to back in short stretches
with the counter read after each; only what lies between two updates counts, and those are known to a stretch, or to a
step where that is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_PHASE_S = 0.7
_MIN_SPAN_S = 0.3
# A span of at least ten stretches is off by 10 % at most, by some 4 % as a rule. The counter's unit is no limit: a GPU
# that idles at 30 W takes 9,000 mJ in the shortest span.
_MIN_STRETCHES = 10
STRETCH_S = 0.02
LONGEST_STRETCH_S = _PHASE_S / (_MIN_STRETCHES + 1)  # one call that takes longer leaves too few of them


@dataclass(frozen=True, slots=True)
class CounterReading:
    """The counter after so many images: both since some moment."""

    time_s: float
    images: int
    energy_mj: int


def energy_per_image_mj(
    counter_mj: Callable[[], int | None], stretch: Callable[[], object], images: int, now_s: Callable[[], float]
) -> float | None:
    """Millijoules an image, of the whole device, while ``stretch`` answers ``images`` images again and again.

    None where there is no counter, where it is updated too seldom, and where a stretch takes over 60 ms.
    """
    started_s, energy_mj = now_s(), counter_mj()
    if energy_mj is None:
        return None
    readings = [CounterReading(started_s, 0, energy_mj)]
    while readings[-1].time_s < started_s + _PHASE_S:
        stretch()
        energy_mj = counter_mj()
        if energy_mj is None:
            return None
        readings.append(CounterReading(now_s(), readings[-1].images + images, energy_mj))
    return between_updates(readings)


def between_updates(readings: Sequence[CounterReading]) -> float | None:
    """Millijoules an image between the first update of the counter and the last; None where they are too close."""
    updates = [(before, after) for before, after in pairwise(readings) if after.energy_mj > before.energy_mj]
    if len(updates) < 2:
        return None
    (before_first, first), (before_last, last) = updates[0], updates[-1]
    blur_s = max(first.time_s - before_first.time_s, last.time_s - before_last.time_s)
    if last.time_s - first.time_s < max(_MIN_SPAN_S, _MIN_STRETCHES * blur_s):
        return None
    return (last.energy_mj - first.energy_mj) / (last.images - first.images)
