"""The study's decision tree on what was measured: latency < 16 ms? memory < 4 GB? accuracy loss < 1 %? Pure.

The last question is what matters most, which leads to one of the pairs that are left.

A limit that the user sets takes the place of the tree's own. A question leaves only the pairs that answer yes; where
none does, those that are undecided; where there is none either, all of them go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_vq.report.candidates import Candidate
from pytest_vq.report.constraints import Answer, Check, check
from pytest_vq.report.limits import Constraint, Quantity
from pytest_vq.report.pareto import Axes
from pytest_vq.report.tiers import Pick, balanced, fastest, smallest

OWN_LIMITS = (
    Constraint(Quantity.LATENCY, 16.0),
    Constraint(Quantity.MEMORY, 4 * 10**9),
    Constraint(Quantity.TOP1, 0.99),
)


class Objective(StrEnum):
    """What matters most."""

    LATENCY = "lowest latency"
    MEMORY = "smallest peak memory"
    THROUGHPUT = "highest throughput"
    BALANCE = "nothing named: the best balance"


_LEADS_TO: dict[Objective, Callable[[Sequence[Candidate], Axes], Pick | None]] = {
    Objective.LATENCY: fastest,
    Objective.MEMORY: lambda candidates, _: smallest(candidates),
    Objective.THROUGHPUT: fastest,
    Objective.BALANCE: balanced,
}


@dataclass(frozen=True, slots=True)
class Branch:
    """One question: what every pair that came to it answered, and the way that was taken."""

    question: Constraint
    checks: tuple[tuple[Candidate, Check], ...]
    taken: Answer

    @property
    def remaining(self) -> tuple[Candidate, ...]:
        """The pairs that go on."""
        if self.taken in {Answer.YES, Answer.UNDECIDED}:
            return tuple(candidate for candidate, found in self.checks if found.answer is self.taken)
        return tuple(candidate for candidate, _ in self.checks)

    @property
    def shown(self) -> str:
        """``median latency < 16 ms? yes (2 of 4)``."""
        those = sum(found.answer is self.taken for _, found in self.checks)
        return f"{self.question.text}? {self.taken} ({those} of {len(self.checks)})"


@dataclass(frozen=True, slots=True)
class Path:
    """The way of one model's pairs down the tree."""

    model: str
    branches: tuple[Branch, ...]
    objective: Objective
    pick: Pick | None  # None where what matters most was not measured of any pair left


def descend(
    model: str, candidates: Sequence[Candidate], questions: Sequence[Constraint], leaf: tuple[Objective, Axes]
) -> Path:
    """The way of ``candidates``, the pairs of ``model``, through ``questions`` to what matters most."""
    objective, axes = leaf
    remaining, branches = tuple(candidates), []
    for question in questions:
        checks = tuple((candidate, check(question, candidate)) for candidate in remaining)
        branches.append(Branch(question, checks, _way([found.answer for _, found in checks])))
        remaining = branches[-1].remaining
    return Path(model, tuple(branches), objective, _LEADS_TO[objective](remaining, axes))


def questions_of(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    """The tree's questions with the user's ``constraints`` in place of its own, in the tree's order.

    Where the user bounds the SQNR, that is the question about fidelity; the tree's own needs labelled images.
    """
    given = {constraint.quantity for constraint in constraints}
    fidelity = {Quantity.TOP1, Quantity.SQNR}
    own = [
        limit
        for limit in OWN_LIMITS
        if limit.quantity not in given and not (limit.quantity in fidelity and given & fidelity)
    ]
    order = list(Quantity)
    return tuple(sorted([*own, *constraints], key=lambda limit: order.index(limit.quantity)))


def _way(answers: Sequence[Answer]) -> Answer:
    preferred = (Answer.YES, Answer.UNDECIDED, Answer.NO, Answer.NOT_MEASURED)
    return next(answer for answer in preferred if answer in answers)
