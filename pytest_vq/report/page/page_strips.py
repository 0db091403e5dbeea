"""How each pair's samples are spread: at most 200 quantiles a pair as a strip, on one axis for each model. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import quantiles

from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.samples import SamplesLine
from pytest_vq.wording import count, figure, milliseconds

MOST_QUANTILES = 200
_FEWEST_A_LANE = 20
WIDTH_PX = 480
LANE_PX = 20
_EDGE_PX = 4.0
_TICK_PX = 9


@dataclass(frozen=True, slots=True)
class Lane:
    """The samples of one process: places on the axis, in pixels."""

    top: int
    low: float
    high: float
    box_low: float  # of the middle half
    box_width: float
    median: float
    ticks: str  # an SVG path

    @property
    def middle(self) -> float:
        """The height of the line from the shortest sample to the longest."""
        return self.top + LANE_PX / 2


@dataclass(frozen=True, slots=True)
class Strip:
    """One pair: its name, its figures in words, and a lane for each process that measured it."""

    scheme: str
    median: str
    samples: str
    lanes: tuple[Lane, ...]

    @property
    def height(self) -> int:
        """In pixels."""
        return len(self.lanes) * LANE_PX


@dataclass(frozen=True, slots=True)
class StripGroup:
    """The pairs of one model and batch, which share an axis."""

    model: str
    batch: int
    shortest: str
    longest: str
    strips: tuple[Strip, ...]


def strip_groups(records: Sequence[Record], samples: Sequence[SamplesLine]) -> list[StripGroup]:
    """The strips of those of ``records`` that samples are kept of, in their order."""
    kept: dict[CaseId, list[list[float]]] = {}
    for line in samples:
        times = sorted(ms for ms in line.samples.subject.times_ms if ms > 0)
        if times:
            kept.setdefault(line.case_id, []).append(times)
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        if record.case_id in kept:
            groups.setdefault((record.identity.model, record.setup.batch), []).append(record)
    return [_group(model, batch, members, kept) for (model, batch), members in groups.items()]


def _group(model: str, batch: int, records: Sequence[Record], kept: dict[CaseId, list[list[float]]]) -> StripGroup:
    every = [times for record in records for times in kept[record.case_id]]
    axis = _Axis(min(times[0] for times in every), max(times[-1] for times in every))
    strips = tuple(_strip(record, kept[record.case_id], axis) for record in records)
    return StripGroup(model, batch, figure(axis.low), milliseconds(axis.high), strips)


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis: FP32 and a scheme ten times slower are both to be seen."""

    low: float
    high: float

    def place(self, value: float) -> float:
        width = WIDTH_PX - 2 * _EDGE_PX
        if self.low == self.high:
            return WIDTH_PX / 2
        return round(_EDGE_PX + width * math.log(value / self.low) / math.log(self.high / self.low), 1)


def _strip(record: Record, processes: Sequence[list[float]], axis: _Axis) -> Strip:
    budget = max(_FEWEST_A_LANE, MOST_QUANTILES // len(processes))
    lanes = tuple(_lane(number * LANE_PX, times, budget, axis) for number, times in enumerate(processes))
    taken = sum(len(times) for times in processes)
    words = str(taken) if len(processes) == 1 else f"{taken} in {count(len(processes), 'process', 'processes')}"
    return Strip(record.setup.scheme, figure(record.timing.latency_ms), words, lanes)


def _lane(top: int, times: Sequence[float], budget: int, axis: _Axis) -> Lane:
    first, middle, third = quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3
    box_low = axis.place(first)
    return Lane(
        top=top,
        low=axis.place(times[0]),
        high=axis.place(times[-1]),
        box_low=box_low,
        box_width=round(axis.place(third) - box_low, 1),
        median=axis.place(middle),
        ticks="".join(_ticks(top, spread(times, budget), axis)),
    )


def _ticks(top: int, times: Sequence[float], axis: _Axis) -> Iterator[str]:
    """Each tick drawn from the end of the one before: what is repeated most in the page is short."""
    # Two ticks closer than half a pixel look like one.
    places = list(dict.fromkeys(round(2 * axis.place(ms)) / 2 for ms in times))
    yield f"M{places[0]:g} {top + (LANE_PX - _TICK_PX) / 2:g}v{_TICK_PX}"
    for before, place in pairwise(places):
        yield f"m{f'{place - before:g}'.removeprefix('0')}-{_TICK_PX}v{_TICK_PX}"


def spread(ordered: Sequence[float], most: int = MOST_QUANTILES) -> list[float]:
    """``ordered`` itself, or ``most`` of it at even steps, the first and the last among them."""
    if len(ordered) <= most:
        return list(ordered)
    return [ordered[round(step * (len(ordered) - 1) / (most - 1))] for step in range(most)]
