"""Which pair under load of one side belongs to which of another, and what differs in how they were served. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from pytest_vq.report.scheme_order import SchemePlace, setup_place
from pytest_vq.schema.serving import ServingTerms
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.side import Side, SideServing


@dataclass(frozen=True, slots=True)
class ServingComparison:
    """One pair under load on both sides; None where a side did not put it under load like that."""

    a: SideServing | None
    b: SideServing | None

    @property
    def known(self) -> SideServing:
        """The side that has it; A, where both do."""
        found = self.a or self.b
        if found is None:
            raise ValueError("a pair under load is on one side at least")
        return found

    @property
    def is_common(self) -> bool:
        """Whether both sides have it."""
        return self.a is not None and self.b is not None

    @property
    def differing(self) -> tuple[str, ...]:
        """What differs in how the two were measured, in words: their figures are then not of the same thing."""
        if self.a is None or self.b is None:
            return ()
        return tuple(_differing(self.a.setup, self.b.setup))


def compare_serving(a: Side, b: Side) -> tuple[ServingComparison, ...]:
    """The pairs under load of both sides, each once: equal setups belong together, else those of one scenario."""
    found, rest = [], list(b.serving)
    for mine in sorted(a.serving, key=_place):
        alike = [theirs for theirs in rest if _key(theirs) == _key(mine)]
        # Another pair of A may have just the setup of one of these.
        taken = [
            theirs for theirs in alike if all(other is mine or other.setup != theirs.setup for other in _of(a, mine))
        ]
        theirs = min(taken, key=lambda one: len(list(_differing(mine.setup, one.setup))), default=None)
        if theirs is not None:
            rest.remove(theirs)
        found.append(ServingComparison(mine, theirs))
    return (*found, *(ServingComparison(None, theirs) for theirs in sorted(rest, key=_place)))


def _of(side: Side, served: SideServing) -> list[SideServing]:
    return [other for other in side.serving if _key(other) == _key(served)]


def _key(served: SideServing) -> tuple[object, ...]:
    return served.case_id, served.figures.scenario


def _place(served: SideServing) -> tuple[str, int, SchemePlace, str]:
    return served.case_id.model, served.case_id.batch, setup_place(served.setup), served.figures.scenario or ""


def _differing(a: Setup, b: Setup) -> Iterator[str]:
    for name in [field.name for field in fields(Setup) if field.name != "serving"]:
        mine, theirs = getattr(a, name), getattr(b, name)
        if mine != theirs:
            yield f"{name} {mine} → {theirs}"
    for name in [field.name for field in fields(ServingTerms)]:
        mine, theirs = getattr(a.serving, name, None), getattr(b.serving, name, None)
        if mine != theirs:
            yield f"{name} {mine} → {theirs}"
