"""Recorded processes through the real `decide`: drawn without replacement, one side multiplied by a known slowdown."""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pytest_vq.gate.decide import decide
from pytest_vq.gate.noise import learn_noise
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.gate.question import Question
from pytest_vq.measure.interval import median_interval
from pytest_vq.measure.timing import MIN_FOR_P95, SENTINEL_QUANTILE
from pytest_vq.schema.estimates import Anchor, Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import EAGER
from pytest_vq.schema.verdict import Status

from .suite import ANCHOR, Array

DATA = Path(__file__).with_name("data")
VERSIONS = {"torch": "recorded"}


@dataclass(frozen=True, slots=True)
class Process:
    """One recorded process: workload (``model/precision``) -> its estimates and, where kept, its samples (ms)."""

    estimates: dict[str, Estimates]
    samples: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Recording:
    """Processes of one condition, in the order they ran."""

    name: str
    processes: tuple[Process, ...]
    comparisons: int = 64  # pairs that share the error of a suite

    @property
    def workloads(self) -> list[str]:
        """Names of the recorded workloads, FP32 ones included."""
        return sorted(self.processes[0].estimates)


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """All recordings in ``data/``."""
    found: dict[str, list[Process]] = {}
    for path in sorted(DATA.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            raw = json.loads(line)
            threads = f"{raw['threads']} thread{'s' if raw['threads'] > 1 else ''}"
            process = _sampled(raw["samples_ns"]) if "samples_ns" in raw else _estimated(raw["estimates"])
            found.setdefault(f"{path.stem}, {raw['condition']}, {threads}", []).append(process)
    return tuple(Recording(name, tuple(processes)) for name, processes in found.items())


def _estimated(raw: dict[str, Any]) -> Process:
    return Process({name: msgspec.convert(values, Estimates) for name, values in raw.items()}, {})


def _sampled(samples_ns: dict[str, list[int]]) -> Process:
    times = {name: np.asarray(values) / 1e6 for name, values in samples_ns.items()}
    sentinel = times.pop("sentinel", None)
    named = {name if "/" in name else f"deit-tiny/{name}": values for name, values in times.items()}
    return Process({name: _estimates(named, name, sentinel) for name in named}, named)


def _estimates(samples: dict[str, Array], workload: str, sentinel: Array | None) -> Estimates:
    times = samples[workload]
    low, high = median_interval(times.tolist()) or (None, None)
    model, precision = workload.split("/")
    speedup = speedup_low = speedup_high = None
    if precision != "fp32":
        ratios = samples[f"{model}/fp32"] / times
        speedup = float(np.median(ratios))
        speedup_low, speedup_high = median_interval(ratios.tolist()) or (None, None)
    return Estimates(
        latency_ms=float(np.median(times)),
        latency_low_ms=low,
        latency_high_ms=high,
        latency_q10_ms=float(np.quantile(times, 0.1)),
        latency_p95_ms=float(np.quantile(times, 0.95)) if len(times) >= MIN_FOR_P95 else None,
        samples=len(times),
        sentinel_ms=None if sentinel is None else float(np.quantile(sentinel, SENTINEL_QUANTILE)),
        sentinel_median_ms=None if sentinel is None else float(np.median(sentinel)),
        device_time_ms=None,
        speedup=speedup,
        speedup_low=speedup_low,
        speedup_high=speedup_high,
        resting_memory_bytes=None,
        peak_memory_bytes=None,
        model_size_bytes=1,
        sqnr_db=None,
        cosine=None,
        accuracy=None,
        device_uuid="recorded",
        versions=VERSIONS,
        commit=None,
        date_utc="",
    )


def slowed(estimates: Estimates, factor: float) -> Estimates:
    """The estimates of a process whose low-precision calls took ``factor`` as long. Memory is left out."""
    times = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_q10_ms", "latency_p95_ms")
    ratios = ("speedup", "speedup_low", "speedup_high")
    changed = {name: getattr(estimates, name) and getattr(estimates, name) * factor for name in times}
    changed |= {name: getattr(estimates, name) and getattr(estimates, name) / factor for name in ratios}
    return replace(estimates, peak_memory_bytes=None, **changed)


@dataclass(frozen=True, slots=True)
class Tally:
    """How often each status ended a comparison, and how many processes it took."""

    statuses: Counter[Status]
    processes: int

    def share(self, status: Status) -> float:
        """The fraction of comparisons that ended so."""
        return self.statuses[status] / max(self.statuses.total(), 1)


def replay(
    recording: Recording,
    baseline: int,
    factor: float,
    draws: int,
    later: Recording | None = None,
) -> Tally:
    """Draw baselines and fresh processes ``draws`` times; judge every workload that is not FP32, as often as it asks.

    The fresh processes are those of another hour where ``later`` is given. A recording too short for all that the gate
    may ask for ends with what it has.
    """
    rng = random.Random(0)
    most = min(DEFAULT.max_processes, len(later.processes) if later else len(recording.processes) - baseline)
    statuses: Counter[Status] = Counter()
    used = 0
    for _ in range(draws):
        drawn = rng.sample(recording.processes, baseline + (0 if later else most))
        drawn += rng.sample(later.processes, most) if later else []
        entries = {w: entry_of(w, drawn[:baseline]) for w in recording.workloads}
        noise = learn_noise(entries.values())
        for workload in (w for w in recording.workloads if not w.endswith("/fp32")):
            fresh = [slowed(p.estimates[workload], factor) for p in drawn[baseline:]]
            entry = entries[workload]
            taken, more = 0, 1
            while more and taken < most:
                taken = min(taken + more, most)
                verdict = decide(
                    Question(tuple(fresh[:taken]), entry.setup, (entry,), noise, comparisons=recording.comparisons)
                )
                more = verdict.more_processes
            statuses[verdict.status] += 1
            used += taken
    return Tally(statuses, used)


def entry_of(workload: str, processes: Sequence[Process]) -> Entry:
    """The baseline that these processes of unchanged code would have left."""
    precision, _, execution = workload.split("/")[1].partition("+")
    setup = Setup(precision, 1, "adaptive", "random", 1, tf32=False, execution=execution or EAGER)
    stored = tuple(slowed(p.estimates[workload], 1.0) for p in processes)
    return Entry(setup, Anchor(stored[:ANCHOR], "recorded", ""), stored)
