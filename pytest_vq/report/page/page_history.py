"""Each pair's latency over other runs and baselines, where they measured the same setup on the same device. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Record
from pytest_vq.schema.side import Side
from pytest_vq.store.results import Results, Row
from pytest_vq.wording import figure

WIDTH_PX = 240
HEIGHT_PX = 36
_EDGE_PX = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """One process: its place in the drawing, in pixels."""

    x: float
    y: float
    is_now: bool


@dataclass(frozen=True, slots=True)
class Trend:
    """One pair over time."""

    model: str
    scheme: str
    batch: int
    since: str  # the day of the oldest process
    others: int  # processes that are not this run's
    their_median: str
    now: str
    lowest: str  # the ends of the drawing's axis
    highest: str
    points: tuple[Point, ...]

    @property
    def line(self) -> str:
        """The points joined, as SVG has it."""
        return " ".join(f"{point.x:g},{point.y:g}" for point in self.points)


def trends(records: Sequence[Record], results: Results, history: Sequence[Side]) -> list[Trend]:
    """The trends of those of ``records`` that ``history`` knows, in their order."""
    rows = {id(row.record): row for row in results.rows}
    found = ((record, rows[id(record)]) for record in records)
    made = (_trend(record, row, list(_others(row, history))) for record, row in found)
    return [trend for trend in made if trend is not None]


def _others(row: Row, history: Sequence[Side]) -> Iterator[Estimates]:
    """The processes of ``history`` that can stand on one axis with ``row``, each once, and none of its own."""
    seen = {_process(estimates) for estimates in row.estimates}
    record = row.record
    for side in history:
        if side.facts.get("device") != row.environment.device_slug:
            continue
        for pair in side.pairs:
            if pair.case_id != record.case_id or pair.setup != record.setup:
                continue
            for estimates in pair.processes:
                if _process(estimates) not in seen:  # a saved run's processes are in the baselines too
                    seen.add(_process(estimates))
                    yield estimates


def _process(estimates: Estimates) -> tuple[str, float, str]:
    return estimates.date_utc, estimates.latency_ms, estimates.device_uuid


def _trend(record: Record, row: Row, others: Sequence[Estimates]) -> Trend | None:
    if not others:
        return None
    own = [(estimates, True) for estimates in row.estimates]
    processes = sorted([*((e, False) for e in others), *own], key=lambda p: (p[0].date_utc, p[1], p[0].latency_ms))
    times = [estimates.latency_ms for estimates, _ in processes]
    low, high = min(times), max(times)
    step = (WIDTH_PX - 2 * _EDGE_PX) / (len(times) - 1)
    points = tuple(
        Point(round(_EDGE_PX + place * step, 1), _height(estimates.latency_ms, low, high), is_now)
        for place, (estimates, is_now) in enumerate(processes)
    )
    return Trend(
        model=record.identity.model,
        scheme=record.setup.scheme,
        batch=record.setup.batch,
        since=processes[0][0].date_utc[:10],
        others=len(others),
        their_median=figure(median(estimates.latency_ms for estimates in others)),
        now=figure(record.timing.latency_ms),
        lowest=figure(low),
        highest=figure(high),
        points=points,
    )


def _height(value: float, low: float, high: float) -> float:
    if low == high:
        return HEIGHT_PX / 2
    return round(HEIGHT_PX - _EDGE_PX - (HEIGHT_PX - 2 * _EDGE_PX) * (value - low) / (high - low), 1)


def unused(results: Results, history: Sequence[Side]) -> list[str]:
    """The names of those of ``history`` that measured on no device of ``results``."""
    devices = {row.environment.device_slug for row in results.rows}
    return [side.name for side in history if side.facts.get("device") not in devices]
