"""The tables of ``docs/calibration.md``."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pytest_vq.gate.covariance import Moments, Slope
from pytest_vq.gate.decide import decide
from pytest_vq.gate.noise import learn_noise
from pytest_vq.gate.policy import DEFAULT, SlopePrior
from pytest_vq.gate.question import Question
from pytest_vq.schema.verdict import Status

from . import prose
from .noise import SCENARIOS, Reading, Scenario
from .replay import Recording, entry_of, recordings, replay, slowed
from .rivals import Rule, available
from .suite import Array, Measured, Outcome, decide_suites

PAIRS, FP32 = 64, 16  # FP32's own rows have no speedup
SUITES, CHANGED_SUITES, DRAWS = 4000, 300, 200
BASELINES = (5, 15)
LATER = (
    ("cpu_deit_tiny, idle, 1 thread", "cpu_deit_tiny, busy, 1 thread"),
    ("cpu_hours, beside tests, 1 thread", "cpu_hours, overloaded, 1 thread"),
    ("cpu_selftest, first hour, 1 thread", "cpu_selftest, second hour, 1 thread"),
)
# By the shares of the machine's pace that were seen on a CPU; medians are 1.5 to 6 times as noisy there.
STEADY, RATIO = Reading((0.3, 1.0)), Reading((-0.3, 0.3))
MEDIAN, P95 = Reading((0.3, 1.0), noise=3.0), Reading((0.3, 1.0), noise=4.0)


def document(scale: float = 1.0) -> str:
    """All of it, as markdown. ``scale`` multiplies the numbers of draws."""
    started = time.perf_counter()
    simulated = list(_simulated(scale))
    replayed, small, rivals = list(_replayed(scale)), list(_small(scale)), list(_rivals(scale))
    parts = [
        prose.HEAD,
        *simulated,
        prose.ESTIMATES,
        *_steadiness(),
        prose.REPLAYS,
        *replayed,
        prose.SMALL,
        *small,
        prose.RIVALS,
        *rivals,
        prose.SPEED.format(seconds=speed()),
        prose.TAIL.format(minutes=(time.perf_counter() - started) / 60, suites=int(SUITES * scale)),
    ]
    return "\n".join(parts) + "\n"


def simulate(scenario: Scenario, baseline: int, slowdown: float, suites: int, seed: int) -> Outcome:
    """Suites of 64 pairs, of which all became ``slowdown`` slower."""
    rng = np.random.default_rng(seed)
    every, paired = np.ones(PAIRS, dtype=bool), np.arange(PAIRS) >= FP32
    policy = DEFAULT
    sampled = scenario.sample(rng, (suites, PAIRS, baseline), (STEADY, RATIO, MEDIAN, P95))
    metrics = []
    for reading, (before, fresh) in zip((STEADY, RATIO, MEDIAN, P95), sampled, strict=True):
        is_ratio, decides = reading is RATIO, reading in (STEADY, RATIO)
        metrics.append(
            Measured(
                baseline=before,
                fresh=replace(fresh, values=fresh.values + np.log1p(slowdown)),
                tolerance=policy.speedup_tolerance if is_ratio else policy.latency_tolerance,
                slope=policy.speedup_slope if is_ratio else policy.latency_slope,
                has=paired if is_ratio else every,
                error_share=policy.steady_share if decides else policy.typical_share,
                watched=is_ratio or scenario.is_watched,
                decides=decides,
            )
        )
    return decide_suites(metrics, PAIRS)


def _chunks(scenario: Scenario, baseline: int, slowdown: float, suites: int, seed: int) -> Iterator[Outcome]:
    for index, start in enumerate(range(0, suites, 250)):
        yield simulate(scenario, baseline, slowdown, min(250, suites - start), seed + index)


def _simulated(scale: float) -> Iterator[str]:
    for scenario in SCENARIOS:
        for baseline in BASELINES:
            same = list(_chunks(scenario, baseline, 0.0, max(int(SUITES * scale), 20), seed=1))
            suites = np.concatenate([o.fails.any(axis=1) for o in same]).mean()
            once = np.concatenate([o.fails_at_once.any(axis=1) for o in same]).mean()
            passes = np.concatenate([o.passes for o in same]).mean()
            processes = np.concatenate([o.processes for o in same])
            changed = [
                list(_chunks(scenario, baseline, size, max(int(CHANGED_SUITES * scale), 10), seed=1000))
                for size in (0.05, 0.10)
            ]
            found = [np.concatenate([o.fails for o in group]) for group in changed]
            found_at_once = np.concatenate([o.fails_at_once for o in changed[0]]).mean()
            missed = np.concatenate([o.passes for o in changed[0]])
            cells = [
                scenario.name,
                f"{100 * scenario.sigma:g} %",
                str(baseline),
                _percent(suites, 2),
                f"{_percent(once, 2)} / {_percent(found_at_once)}",
                _percent(passes),
                f"{processes.mean():.2f}",
                f"{_percent(found[0].mean())} ({_percent(found[0][:, :FP32].mean())})",
                _percent(found[1].mean()),
                f"{_percent(missed.mean(), 2)} ({_percent(missed[:, :FP32].mean(), 2)})",
            ]
            yield _row(cells)


def _replayed(scale: float) -> Iterator[str]:
    draws = max(int(DRAWS * scale), 10)
    known = {recording.name: recording for recording in recordings()}
    for recording, later in [(r, None) for r in known.values()] + [(known[a], known[b]) for a, b in LATER]:
        name = f"{recording.name} ({len(recording.processes)})"
        for baseline in (1, *BASELINES):
            same, five, ten = (replay(recording, baseline, factor, draws, later) for factor in (1.0, 1.05, 1.10))
            yield _row(
                [
                    f"{later.name} v a baseline of: {name}" if later else name,
                    str(baseline),
                    _percent(same.share(Status.FAIL), 2),
                    _percent(same.share(Status.PASS)),
                    _percent(same.share(Status.IMPROVED)),
                    f"{same.processes / same.statuses.total():.2f}",
                    _percent(five.share(Status.FAIL)),
                    _percent(ten.share(Status.FAIL)),
                    _percent(five.share(Status.PASS), 2),
                ]
            )


def _small(scale: float) -> Iterator[str]:
    for recording in (r for r in recordings() if r.name.startswith(("cpu_small", "cpu_selftest"))):
        alone = replace(recording, comparisons=2)
        tallies = [replay(alone, 5, factor, max(int(DRAWS * scale), 10)) for factor in (1.0, 1.05, 1.10, 1.20)]
        same = tallies[0]
        cells = [f"{recording.name} ({len(recording.processes)})", "5", _percent(same.share(Status.FAIL), 2)]
        cells += [_percent(same.share(Status.PASS)), f"{same.processes / same.statuses.total():.2f}"]
        yield _row(cells + [_percent(tally.share(Status.FAIL)) for tally in tallies[1:]])


def _steadiness() -> Iterator[str]:
    for recording in recordings():
        for workload in (w for w in recording.workloads if not w.endswith("/fp32")):
            spreads = _spreads(recording, workload) if recording.processes[0].samples else {}
            estimates = [process.estimates[workload] for process in recording.processes]
            low = np.array([e.latency_q10_ms for e in estimates], dtype=float)
            ratio = np.array([e.speedup for e in estimates], dtype=float)
            spreads["low"], spreads["adjacent"] = _spread(low), _spread(ratio)
            sentinels = [e.sentinel_ms for e in estimates if e.sentinel_ms]
            if len(sentinels) == len(estimates):
                spreads["low, given"] = _residual(low, sentinels, DEFAULT.latency_slope)
                spreads["adjacent, given"] = _residual(ratio, sentinels, DEFAULT.speedup_slope)
            cells = [_percent(spreads[name]) if name in spreads else "" for name in ESTIMATORS]
            yield _row([f"{recording.name}: {workload}", *cells])


ESTIMATORS = ("median", "low", "minimum", "low, given", "medians", "adjacent", "adjacent, given", "lows")


def _spreads(recording: Recording, workload: str) -> dict[str, float]:
    """Of the estimators that need samples."""
    times = np.array([p.samples[workload] for p in recording.processes])
    partner = np.array([p.samples[workload.split("/")[0] + "/fp32"] for p in recording.processes])
    return {
        "median": _spread(np.median(times, axis=1)),
        "minimum": _spread(times.min(axis=1)),
        "medians": _spread(np.median(times, axis=1) / np.median(partner, axis=1)),
        "lows": _spread(np.quantile(times, 0.1, axis=1) / np.quantile(partner, 0.1, axis=1)),
    }


def _spread(figures: Array) -> float:
    return float(np.log(figures).std(ddof=1))


def _residual(figures: Array, sentinels: list[float], prior: SlopePrior) -> float:
    moments = Moments.of([list(zip(np.log(figures).tolist(), np.log(sentinels).tolist(), strict=True))])
    squares, df = Slope.fit(moments, prior).residual(moments)
    return math.sqrt(squares / df)


def _rivals(scale: float) -> Iterator[str]:
    rules, missing = available()
    shown = [r for r in recordings() if r.name.startswith("cpu_deit") and r.name.endswith("1 thread")]
    for rule in rules:
        cells = [rule.name, f"{rule.baselines} v {rule.candidates}"]
        for recording in shown:
            draws = max(int(DRAWS * scale), 10)
            shares = [_failing(rule, recording, factor, draws) for factor in (1.0, 1.05, 1.10)]
            cells.append(" / ".join(_percent(s) for s in shares))
        yield _row(cells)
    for baseline in BASELINES:
        cells = ["**pytest-vq**, 64 pairs' error rate", f"{baseline} v up to {DEFAULT.max_processes}"]
        for recording in shown:
            tallies = [replay(recording, baseline, f, max(int(DRAWS * scale), 10)) for f in (1.0, 1.05, 1.10)]
            cells.append(" / ".join(_percent(t.share(Status.FAIL)) for t in tallies))
        yield _row(cells)
    yield "\nNot installed when this was written: " + (", ".join(missing) or "none.")


def _failing(rule: Rule, recording: Recording, factor: float, draws: int) -> float:
    rng = random.Random(0)
    failed = 0
    for _ in range(draws):
        drawn = rng.sample(recording.processes, rule.baselines + rule.candidates)
        sides = [p.samples["deit-tiny/bf16"] for p in drawn]
        baseline = [s.tolist() for s in sides[: rule.baselines]]
        failed += rule.fails(baseline, [(s * factor).tolist() for s in sides[rule.baselines :]])
    return failed / draws


def speed(pairs: int = 1000, processes: int = 20) -> float:
    """Seconds that `learn_noise` and `decide` take for a suite of ``pairs``."""
    recording = recordings()[-1]
    workload = recording.workloads[0]
    entry = entry_of(workload, [recording.processes[i % len(recording.processes)] for i in range(processes)])
    fresh = [slowed(recording.processes[0].estimates[workload], 1.0)]
    start = time.perf_counter()
    noise = learn_noise([entry] * pairs)
    for _ in range(pairs):
        decide(Question(tuple(fresh), entry.setup, (entry,), noise, min_sqnr_db=20.0, comparisons=pairs))
    return time.perf_counter() - start


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
