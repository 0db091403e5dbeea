"""The decision on one pair, or callable: fresh processes against its baseline. Pure."""

from __future__ import annotations

from dataclasses import replace

from pytest_vq.gate import agreement, bounds, machine, ratio, timed
from pytest_vq.gate.question import Question
from pytest_vq.gate.settling import Found
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.verdict import MetricVerdict, Status, Verdict
from pytest_vq.wording import differences

BASELINE = "baseline"


def decide(question: Question) -> Verdict:
    """The verdict on the fresh processes of one pair measured so far (at least one).

    Where ``more_processes`` is not 0, measure that many more and decide on all of them; the status is then what it
    would be. Raises ValueError without a candidate.
    """
    candidates, tolerances, policy = question.candidates, question.tolerances, question.policy
    if not candidates:
        raise ValueError("decide needs the estimates of at least one process")
    entry, obstacle = find_entry(question)
    metrics = agreement.lower_bounds(question)
    if entry is None:
        return Verdict.of([*metrics, obstacle] if obstacle else metrics)
    other_machine = machine.slower_clocks(question, entry)
    clocked = [(other_machine, False)] if other_machine else _times(question, entry)
    memory = bounds.memory(candidates, entry, tolerances, policy)
    metrics += [verdict for verdict, _ in clocked] + agreement.changes(question, entry)
    metrics += [verdict for verdict in (memory, bounds.model_size(candidates, entry, tolerances, policy)) if verdict]
    verdict = Verdict.of(metrics)
    again = any(suspect for _, suspect in clocked) or _is_coarse(question, memory)
    if again and not (question.confirms and verdict.status is Status.FAIL):  # which is the last word, whatever is open
        verdict = replace(verdict, more_processes=policy.more_processes(len(candidates)))
    return naming_suspects(verdict, entry, candidates[-1])


def _times(question: Question, entry: Entry) -> list[Found]:
    paired = ratio.speedup(question, entry)
    return [timed.latency(question, entry), *timed.typical(question, entry), *([paired] if paired else [])]


def find_entry(question: Question) -> tuple[Entry | None, MetricVerdict | None]:
    """The entry of the question's setup, or the verdict that says why there is none to compare with."""
    setup, entries = question.setup, [entry for entry in question.entries if entry.processes]
    exact = next((e for e in entries if e.setup == setup), None)
    if exact is not None:
        return exact, None
    alike = [e for e in entries if _kind(e.setup) == _kind(setup)]
    if not alike:
        reason = f"no baseline for {setup.words} on this device: record one with --vq-save"
        if question.elsewhere is not None:
            reason += f"; the nearest device that has baselines is {question.elsewhere}, another machine"
        return None, MetricVerdict(BASELINE, Status.NO_BASELINE, reason)
    nearest = min((_unequal(setup, e.setup) for e in alike), key=len)
    reason = f"not comparable with the baseline: {', '.join(nearest)}; run it alike, or record this with --vq-save"
    return None, MetricVerdict(BASELINE, Status.INCOMPARABLE, reason)


def _kind(setup: Setup) -> tuple[str, int, str | None]:
    """What two setups must share for their difference to be worth a word."""
    return setup.scheme, setup.batch, None if setup.serving is None else setup.serving.scenario


def _unequal(here: Setup, there: Setup) -> list[str]:
    pairs = [(name, value, there.named().get(name)) for name, value in here.named().items()]
    return [f"{name} {now} here, {before} in the baseline" for name, now, before in pairs if now != before]


def _is_coarse(question: Question, memory: MetricVerdict | None) -> bool:
    """Resident memory on the CPU is coarse: its FAIL is confirmed like a slowdown. An allocator's count is exact."""
    if memory is None or question.setup.threads is None or question.confirms:
        return False
    return memory.status is Status.FAIL


def naming_suspects(verdict: Verdict, entry: Entry, now: Estimates) -> Verdict:
    """``verdict``, and what differs between the baseline's latest process and this one: the suspects of any change."""
    differs = differences(entry.processes[-1], now)
    if not differs or not verdict.reason:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; differs: {differs}")
