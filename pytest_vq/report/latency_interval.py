"""How well a pair's median latency is known, by its process's samples and by how the run's processes differ. Pure.

A median's own interval covers the samples of one process, and processes differ by more than that. Where a run holds
several processes of a pair, the interval is widened until it also covers the 95 % interval of their mean: Student's,
of logarithms, with the variance between processes moderated by what the run's other pairs show (Smyth 2004), as in the
gate. The figure stays the row's own, and so is always inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from pytest_vq.gate import noise, stats
from pytest_vq.gate.noise import Noise, learn_noise
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.record import Record
from pytest_vq.schema.side import entry_of
from pytest_vq.store.results import Row, estimates_of, rows_of_pairs

_CONFIDENCE = 0.975  # two-sided 95 %


def noise_of_run(rows: Sequence[Row]) -> Noise:
    """What the pairs of a run that several processes measured teach of how processes differ."""
    pairs = rows_of_pairs(rows)
    return learn_noise(entry_of(setup, estimates_of(taken), "measured") for (_, setup), taken in pairs.items())


def latency_interval(record: Record, processes: Sequence[Estimates], of_run: Noise) -> tuple[float, float] | None:
    """The 95 % interval in milliseconds; None where one process took too few samples to have any."""
    timing = record.timing
    ends = [end for end in (timing.latency_low_ms, timing.latency_high_ms) if end is not None]
    if len(processes) > 1:
        ends += [timing.latency_ms, *_between(record, processes, of_run)]
    return (min(ends), max(ends)) if len(ends) > 1 else None


def _between(record: Record, processes: Sequence[Estimates], of_run: Noise) -> tuple[float, float]:
    logs = [math.log(process.latency_ms) for process in processes]
    squares, df = stats.scatter([logs])
    prior = of_run.prior(noise.MEDIAN.kind(record.setup))
    known = (0.0, 0.0) if prior is None else (prior.df, prior.variance)
    variance, df = stats.moderate(squares, df, *known)
    half = float(stats.quantile(_CONFIDENCE, df)) * math.sqrt(variance / len(logs))
    return math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)
