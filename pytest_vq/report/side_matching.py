"""Which pair of one side belongs to which of another, in what order they are shown, and what they are called. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from pytest_vq.report.scheme_order import SchemePlace, scheme_place, setup_place
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.side import Side, SidePair
from pytest_vq.wording import count

Match = tuple[SidePair, SidePair]


def match_sides(a: Side, b: Side) -> tuple[list[Match], list[SidePair], list[SidePair]]:
    """The pairs in common, and those that only A and only B have.

    Baselines may hold several setups of one pair: equal ones belong together, and where none are, the likest two do.
    """
    matches: list[Match] = []
    for case_id in dict.fromkeys(pair.case_id for pair in ordered(a.pairs + b.pairs)):
        mine, theirs = ([pair for pair in ordered(side.pairs) if pair.case_id == case_id] for side in (a, b))
        both = [(x, y) for x in mine for y in theirs]
        equal = [(x, y) for x, y in both if x.setup is not None and x.setup == y.setup]
        matches += equal or sorted(both, key=_unlikeness)[:1]
    taken = {id(pair) for match in matches for pair in match}
    only_a, only_b = ([pair for pair in ordered(side.pairs) if id(pair) not in taken] for side in (a, b))
    return matches, only_a, only_b


def _unlikeness(match: Match) -> int:
    mine, theirs = (pair.setup for pair in match)
    return sum(getattr(mine, field.name, None) != getattr(theirs, field.name, None) for field in fields(Setup))


def ordered(pairs: Iterable[SidePair]) -> list[SidePair]:
    """By model and batch, then from the widest precision to the narrowest."""

    def key(pair: SidePair) -> tuple[str, int, SchemePlace]:
        place = setup_place(pair.setup) if pair.setup else scheme_place(pair.precision)
        return pair.case_id.model, pair.case_id.batch, place

    return sorted(pairs, key=key)


def name_of(pair: SidePair, side: Side) -> str:
    """The pair's id; with its setup where ``side`` holds several of that id."""
    setup = pair.setup
    if setup is None or sum(other.case_id == pair.case_id for other in side.pairs) == 1:
        return str(pair.case_id)
    words = [f"{setup.protocol} protocol", *([] if setup.weights is None else [f"{setup.weights} weights"])]
    words += [] if setup.threads is None else [count(setup.threads, "thread")]
    words += ["TF32"] if setup.tf32 else []
    words += [] if setup.rest is None else [f"{setup.rest} rest"]
    return f"{pair.case_id} ({', '.join(words)})"
