"""What a report says in words: verdicts and their reasons, and what was measured with what. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_vq.gate.explain import what_changed
from pytest_vq.report.report_callables import rows_in_words
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.store.explained import Explained
from pytest_vq.store.results import Results
from pytest_vq.wording import listed

_NOT_COMPARED = {
    Status.NO_BASELINE: "no baseline",
    Status.INCOMPARABLE: "measured unlike the baseline",
    None: "not judged",
}
_SHOWN = 5  # values of one fact; of more, the rest is counted


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How many pairs got one verdict."""

    name: str
    pairs: int


@dataclass(frozen=True, slots=True)
class Failed:
    """One pair that FAILs: why, and what changed inside."""

    id: str
    reason: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """One verdict other than FAIL: each reason with the pairs that have it."""

    name: str
    pairs: int
    reasons: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it stands for."""

    name: str
    value: str


def headline(records: Sequence[Record]) -> str:
    """The verdicts of ``records`` in one sentence; what was not compared with anything is no part of its count."""
    if not records:
        return "Nothing was measured."
    uncompared = [record for record in records if record.verdict in _NOT_COMPARED]
    compared = [record for record in records if record.verdict not in _NOT_COMPARED]
    rows = rows_in_words(records)
    if all(record.verdict is None for record in records):
        return f"{rows} measured, none judged: this run did not gate."
    if not compared:
        return f"None of {rows} was compared: {_why_not(uncompared)}."
    failed = sum(record.verdict is Status.FAIL for record in records)
    verb = "FAIL" if failed > 1 else "FAILs"
    if not uncompared:
        return f"{failed or 'None'} of {rows} {verb}."
    others = f"{len(uncompared)} {'was' if len(uncompared) == 1 else 'were'} not compared"
    return f"{failed or 'None'} of {rows_in_words(compared, 'compared ')} {verb}; {others}: {_why_not(uncompared)}."


def _why_not(uncompared: Sequence[Record]) -> str:
    """``no baseline``, or, of several reasons, each with its number: ``2 no baseline, 1 not judged``."""
    found = Counter(_NOT_COMPARED[record.verdict] for record in uncompared)
    return ", ".join(why if len(found) == 1 else f"{pairs} {why}" for why, pairs in found.most_common())


def verdict_counts(records: Sequence[Record]) -> list[VerdictCount]:
    """Each verdict that was given, the worst first; pairs without one last."""
    found = Counter(record.verdict for record in records)
    counts = [VerdictCount(str(status), found[status]) for status in Status if found[status]]
    return counts + ([VerdictCount("not judged", found[None])] if found[None] else [])


def failed_pairs(records: Sequence[Record], explained: Mapping[CaseId, Explained]) -> list[Failed]:
    """The pairs that FAIL, in order."""
    return [
        Failed(record.id, record.reason, _sentences(explained.get(record.case_id)))
        for record in records
        if record.verdict is Status.FAIL
    ]


def _sentences(explained: Explained | None) -> tuple[str, ...]:
    if explained is None:
        return ()
    return tuple(what_changed(explained.failed, explained.before, explained.now, explained.peak))


def told_verdicts(records: Sequence[Record]) -> list[Told]:
    """The other verdicts that have something to say: sixty-four times one sentence is said once."""
    told = []
    for status in Status:
        pairs = [record for record in records if record.verdict is status and record.reason]
        if status is Status.FAIL or not pairs:
            continue
        reasons: dict[str, list[str]] = {}
        for record in pairs:
            reasons.setdefault(record.reason, []).append(record.id)
        told.append(Told(str(status), len(pairs), tuple((reason, tuple(ids)) for reason, ids in reasons.items())))
    return told


def notes(records: Sequence[Record]) -> list[Fact]:
    """What a reader should know of single pairs: disturbances, and notes that are no verdict."""
    said = [(record.id, text) for record in records for text in (record.disturbance, record.note) if text]
    return [Fact(name, text) for name, text in said]


def environment_facts(results: Results) -> list[Fact]:
    """Where and with what the processes of ``results`` measured; several values where they differ."""
    environments = results.environments
    records = results.records
    versions = sorted({name for environment in environments for name in environment.versions})
    settings = sorted({name for environment in environments for name in environment.settings})
    facts = {
        "device": _values(environment.device_name for environment in environments),
        "baselines' folder": _values(environment.device_slug for environment in environments),
        "device id": _values(environment.device_uuid for environment in environments),
        **{name: _values(environment.versions.get(name) for environment in environments) for name in versions},
        **{name: _values(environment.settings.get(name) for environment in environments) for name in settings},
        "protocol": _values(record.setup.protocol for record in records),
        "weights": _values(record.setup.weights for record in records),
        "threads": _values(None if r.setup.threads is None else str(r.setup.threads) for r in records),
        "TF32": _values("on" if record.setup.tf32 else "off" for record in records),
        "method": _values(record.identity.method for record in records),
        "commit": _values(environment.commit for environment in environments),
        "processes": str(len(environments)),
        "measured": f"{results.started_utc} … {results.updated_utc}",
    }
    return [Fact(name, value) for name, value in facts.items() if value]


def _values(values: Iterable[str | None]) -> str:
    return listed(sorted({value for value in values if value}), _SHOWN)
