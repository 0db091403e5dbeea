"""In which order pairs are measured: a model's together and, for workers, so that all of them end at about one time.

A model is built once for all its pairs that follow each other in a process; shuffled, for nearly each of them. All
workers must find the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import pytest

    from pytest_vq.schema.spec import Case

T = TypeVar("T")
CaseOf = Callable[["pytest.Item"], "Case | None"]
CostOf = Callable[["pytest.Item"], float | None]

_QUANTIZED = 2.0  # how much longer a quantized forward takes than FP32's: on a CPU 0.8 to 2.5 times as long
_LARGE = 0.5  # of a worker's fair share of all the work: what takes longer is begun first, and alone


@dataclass(frozen=True, slots=True)
class Weighed(Generic[T]):
    """A pair, the model it needs, and what it is expected to take, in any unit."""

    pair: T
    model: str
    cost: float | None  # None: it is not known


def keep_pairs_together(items: list[pytest.Item], case_of: CaseOf) -> None:
    """Put the pairs of each test in the order they were made in, a model's together, in the places they have."""
    _refill(items, case_of, lambda pairs: sorted(pairs, key=number_of))


def put_in_workers_order(items: list[pytest.Item], case_of: CaseOf, cost_of: CostOf, workers: int) -> None:
    """Put the pairs of each test in the order in which so many workers end soonest, in the places they have."""

    def weigh(item: pytest.Item) -> Weighed[pytest.Item]:
        case = case_of(item)
        assert case is not None
        return Weighed(item, case.model.name, cost_of(item))

    _refill(items, case_of, lambda pairs: workers_order(map(weigh, pairs), workers))


def expected_cost(case: Case) -> float | None:
    """What measuring a pair takes, compared with others: by its model's size and its images'. None: not known."""
    model = case.model
    if model.parameters is None or model.input_shape is None:
        return None
    pixels = math.prod(model.input_shape[1:])
    return model.parameters * pixels * case.batch * (_QUANTIZED if case.precision.quantizes else 1.0)


def workers_order(weighed: Iterable[Weighed[T]], workers: int) -> list[T]:
    """The pairs in the order in which ``--dist=load`` keeps so many workers busy best.

    Models follow each other by their longest pair, and a model's pairs stay together, so that few workers build it.
    What is long ends then before what is short, which leaves few workers waiting at the end. A worker is given two
    tests at once and nobody takes the second away while the first one runs: each pair that is long compared with a
    worker's share is begun first of all, and has one of the shortest behind it. What is not known may take as long as
    any other.
    """
    given = list(weighed)
    longest = max((one.cost for one in given if one.cost is not None), default=1.0)
    costs = [(longest if one.cost is None else one.cost, one) for one in given]
    share = sum(cost for cost, _ in costs) / workers
    longest_first = [one for _, one in sorted(costs, key=lambda of: -of[0])]
    large = longest_first[: min(workers, sum(cost > _LARGE * share for cost, _ in costs))]
    rest = longest_first[len(large) :]
    behind = rest[max(0, len(rest) - len(large)) :][::-1]
    between = rest[: len(rest) - len(behind)]
    first = [one for place in range(len(large)) for one in (large[place], *behind[place : place + 1])]
    return [one.pair for one in (*first, *_by_model(between))]


def _by_model(longest_first: Sequence[Weighed[T]]) -> list[Weighed[T]]:
    models: dict[str, list[Weighed[T]]] = {}
    for one in longest_first:
        models.setdefault(one.model, []).append(one)
    return [one for same_model in models.values() for one in same_model]


def model_groups(items: Iterable[pytest.Item], case_of: CaseOf) -> list[int]:
    """A number for each test, the same for pairs of one model; -1 for what needs no model."""
    numbers: dict[str, int] = {}
    cases = map(case_of, items)
    return [-1 if case is None else numbers.setdefault(case.model.name, len(numbers)) for case in cases]


def _refill(
    items: list[pytest.Item], case_of: CaseOf, arrange: Callable[[list[pytest.Item]], list[pytest.Item]]
) -> None:
    """Put the pairs of each test, arranged, into the places of ``items`` that hold pairs, tests as they first come."""
    places = [place for place, item in enumerate(items) if case_of(item) is not None]
    tests: dict[str, list[pytest.Item]] = {}
    for place in places:
        tests.setdefault(test_of(items[place]), []).append(items[place])
    arranged = [item for pairs in tests.values() for item in arrange(pairs)]
    for place, item in zip(places, arranged, strict=True):
        items[place] = item


def test_of(item: pytest.Item) -> str:
    """The id of an item's test, without its parameters."""
    return item.nodeid.partition("[")[0]


def number_of(item: pytest.Item) -> int:
    """Which of its test's pairs an item is, in catalog order."""
    number: int = item.callspec.indices["vq_case"]  # type: ignore[attr-defined]
    return number
