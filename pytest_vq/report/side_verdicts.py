"""The gate's verdict on a pair of two sides, where their setups allow one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

from pytest_vq.gate import noise
from pytest_vq.gate.bounds import MEMORY
from pytest_vq.gate.decide import decide
from pytest_vq.gate.noise import Noise
from pytest_vq.gate.policy import DEFAULT
from pytest_vq.gate.question import Question
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.side import SidePair
from pytest_vq.schema.verdict import MetricVerdict, Status
from pytest_vq.wording import count

_TIMED = (
    *(reading.name for reading in noise.READINGS),
    noise.SPEEDUP,
    noise.DEVICE_SPEEDUP,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says of a pair. Without a status, the reason says why it was not asked."""

    status: Status | None
    reason: str
    metrics: tuple[MetricVerdict, ...] = ()


def decide_pair(a: SidePair, b: SidePair, noise_of_a: Noise, comparisons: int) -> Decision:
    """The verdict on B's processes with A's as their baseline; ``comparisons`` pairs share the gate's error."""
    if a.entry is None or b.entry is None:
        return Decision(None, "published figures, and no processes to judge by")
    unequal = obstacles(a.entry, b.entry)
    if unequal:
        return Decision(None, ", ".join(unequal))
    question = Question(
        candidates=b.entry.processes,
        setup=b.entry.setup,
        entries=(a.entry,),
        noise=noise_of_a,
        disturbance=b.disturbance or a.disturbance,
        comparisons=comparisons,
    )
    verdict = decide(question)
    if not verdict.more_processes:
        return Decision(verdict.status, verdict.reason, verdict.metrics)
    return _unconfirmed(Decision(verdict.status, verdict.reason, verdict.metrics), b.entry)


def obstacles(a: Entry, b: Entry) -> list[str]:
    """What differs between two sides of a pair and forbids a verdict, in words; empty where nothing does."""
    found = [
        f"{field.name} {_word(getattr(a.setup, field.name))} → {_word(getattr(b.setup, field.name))}"
        for field in fields(Setup)
        if getattr(a.setup, field.name) != getattr(b.setup, field.name)
    ]
    for name, read in _MACHINE:
        before, now = ({read(process) for process in entry.processes} for entry in (a, b))
        # Baselines may hold several cards and drivers: it is enough that all of B's are among them.
        if not now <= before:
            found.append(f"{name} {_words(before)} → {_words(now)}")
    limits = [{p.power_limit_mw for p in entry.processes if p.power_limit_mw is not None} for entry in (a, b)]
    if all(limits) and limits[0] != limits[1]:
        found.append(f"power limit {_watts(limits[0])} → {_watts(limits[1])}")
    return found


_MACHINE: tuple[tuple[str, Callable[[Estimates], str | None]], ...] = (
    ("device", lambda process: process.device_uuid),
    ("driver", lambda process: process.versions.get("driver")),
)


def _unconfirmed(decision: Decision, b: Entry) -> Decision:
    """``decision`` where the gate would measure further processes before it believes a change of time.

    Resident memory on a CPU is as coarse. What is deterministic (size, fidelity, an allocator's peak) needs no second
    process, and its FAIL stands.
    """
    coarse = (*_TIMED, MEMORY) if b.setup.threads is not None else _TIMED
    metrics = tuple(
        replace(metric, status=Status.INCONCLUSIVE)
        if metric.status is Status.FAIL and metric.metric in coarse
        else metric
        for metric in decision.metrics
    )
    status = Status.worst([metric.status for metric in metrics])
    if status is decision.status:
        return replace(decision, metrics=metrics)
    runs = DEFAULT.confirming_look
    taken = count(len(b.processes), "fresh process", "fresh processes")
    advice = f"only a suspicion after {taken}: measure it again with --vq-runs {runs}"
    return Decision(status, f"{advice}; {decision.reason}", metrics)


def _watts(limits_mw: Iterable[int]) -> str:
    return _words(f"{limit / 1000:.0f} W" for limit in limits_mw)


def _words(values: Iterable[str | None]) -> str:
    return " or ".join(sorted(_word(value) for value in values))


def _word(value: object) -> str:
    return "none" if value is None else str(value)
