"""Workers are kept busy: xdist's own schedulers, driven by a simulation with recorded durations."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_case

from pytest_vq.plugin.collecting import costs_of
from pytest_vq.plugin.ordering import Weighed, keep_pairs_together, model_groups, workers_order
from pytest_vq.plugin.xdist import KeepsModels, distribution_refusal, model_scheduling

TOOLS = str(Path(__file__).parents[2] / "tools")


@pytest.fixture(scope="module")
def schedule() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module("schedule")
    sys.modules.pop("schedule")


def efficiency(schedule: Any, tasks: list[Any], workers: int, make_scheduler: Any = model_scheduling) -> float:
    simulation = schedule.Simulation(tasks, workers, make_scheduler)
    simulation.run()
    assert sorted(simulation.done) == sorted(task.id for task in tasks)
    return float(schedule.ideal_s(tasks, workers) / simulation.finished_s)


@pytest.fixture(scope="module")
def tasks(schedule: Any) -> list[Any]:
    return schedule.recorded_tasks(schedule.RECORDED)


class TestRecorded:
    """The study's 64 pairs, with the seconds that each took in one run on a CPU."""

    def test_there_are_64_of_16_models(self, tasks: list[Any]) -> None:
        assert (len(tasks), len({task.model for task in tasks})) == (64, 16)

    @pytest.mark.parametrize("workers", [1, 2, 4, 8])
    def test_where_durations_are_known_nine_tenths_of_the_ideal_are_reached(
        self, schedule: Any, tasks: list[Any], workers: int
    ) -> None:
        arranged = schedule.arranged(tasks, workers, lambda task: task.held_s)
        assert efficiency(schedule, arranged, workers) >= 0.90

    @pytest.mark.parametrize(("workers", "reached"), [(2, 0.95), (4, 0.95), (8, 0.85)])
    def test_by_size_alone_little_less(self, schedule: Any, tasks: list[Any], workers: int, reached: float) -> None:
        arranged = schedule.arranged(tasks, workers, schedule.expected)
        assert efficiency(schedule, arranged, workers) >= reached

    def test_as_they_come_and_as_xdist_hands_them_out_it_is_far_less(self, schedule: Any, tasks: list[Any]) -> None:
        from xdist.scheduler import LoadScheduling, WorkStealingScheduling

        assert efficiency(schedule, tasks, 8, LoadScheduling) < 0.80
        assert efficiency(schedule, tasks, 8, WorkStealingScheduling) < 0.80

    def test_a_model_is_built_by_fewer_workers_than_xdist_alone_would_make(
        self, schedule: Any, tasks: list[Any]
    ) -> None:
        from xdist.scheduler import LoadScheduling

        building_s = []
        for make_scheduler in (model_scheduling, LoadScheduling):
            simulation = schedule.Simulation(tasks, 8, make_scheduler)
            simulation.run()
            building_s.append(simulation.building_s)
        assert building_s[0] < 0.75 * building_s[1]


def weighed(**costs: float | None) -> list[Weighed[str]]:
    """Pairs called ``a1``: of the model ``a``, with this cost."""
    return [Weighed(name, name[0], cost) for name, cost in costs.items()]


class TestOrder:
    def test_models_by_their_longest_pair_and_a_models_together(self) -> None:
        pairs = weighed(a1=1, b1=2, c1=1, a2=3, b2=2, c2=1, d1=1, d2=1)
        assert workers_order(pairs, 1) == ["a2", "a1", "b1", "b2", "c1", "c2", "d1", "d2"]

    def test_what_is_long_for_a_worker_is_begun_first_with_the_shortest_behind(self) -> None:
        pairs = weighed(a1=1, a2=1, b1=9, b2=2, c1=8, c2=3)
        assert workers_order(pairs, 2) == ["b1", "a2", "c1", "a1", "c2", "b2"]

    def test_what_is_not_known_is_taken_for_long(self) -> None:
        assert workers_order(weighed(a1=1, a2=1, b1=None, b2=2, b3=1, b4=1), 1) == ["b1", "b2", "b3", "b4", "a1", "a2"]

    def test_where_nothing_is_known_the_order_stays(self) -> None:
        assert workers_order(weighed(a1=None, b1=None, a2=None, b2=None), 1) == ["a1", "a2", "b1", "b2"]

    @pytest.mark.parametrize("workers", [1, 3, 8])
    @pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 40])
    def test_every_pair_comes_once(self, workers: int, number: int) -> None:
        pairs = [Weighed(place, str(place % 3), float(place**3 % 11)) for place in range(number)]
        assert sorted(workers_order(pairs, workers)) == list(range(number))


def test_pairs_go_back_to_catalog_order_test_by_test_and_others_keep_their_place() -> None:
    def item(test: str, number: int | None) -> Any:
        callspec = SimpleNamespace(indices={"vq_case": number})
        return SimpleNamespace(nodeid=f"{test}[{number}]", callspec=callspec, number=number)

    items = [item("b", 1), item("plain", None), item("a", 1), item("b", 0), item("a", 0)]
    keep_pairs_together(items, lambda item: None if item.number is None else "a case")  # type: ignore[arg-type, return-value]
    assert [item.nodeid for item in items] == ["b[0]", "plain[None]", "b[1]", "a[0]", "a[1]"]


class TestCosts:
    """What a test is taken to take: the pair by itself, or under load."""

    @pytest.fixture
    def items(self) -> list[Any]:
        callspec = SimpleNamespace(params={"vq_case": make_case()})
        return [
            SimpleNamespace(nodeid=name, callspec=callspec, fixturenames=("vq_case", name))
            for name in ("vq_bench", "vq_serve")
        ]

    def test_under_load_it_is_the_seconds_that_are_known_of_its_row_under_load(self, items: list[Any]) -> None:
        known = costs_of(items, {"net-int8": 4.0, "net-int8-serving": 200.0})
        assert [known(item) for item in items] == [4.0, 200.0]

    def test_without_any_seconds_it_counts_under_load_as_long_as_any(self, items: list[Any]) -> None:
        by_size = costs_of(items, {})
        assert [by_size(item) is None for item in items] == [False, True]


def test_pairs_of_one_model_share_a_number() -> None:
    cases = [SimpleNamespace(model=SimpleNamespace(name=name)) if name else None for name in ("a", None, "b", "a")]
    assert model_groups(cases, lambda case: case) == [0, -1, 1, 0]  # type: ignore[arg-type, return-value]


class Plain:
    """As much of xdist's scheduler as is asked for more work."""

    def __init__(self, pending: list[int], node2pending: dict[str, list[int]]) -> None:
        self.pending, self.node2pending = pending, node2pending

    def check_schedule(self, node: str, duration: float = 0) -> None:
        self.node2pending[node].append(self.pending.pop(0))


class Affine(KeepsModels, Plain):
    """Ours on top of it."""


def test_a_worker_gets_what_it_has_built_then_what_nobody_has_and_last_what_others_have() -> None:
    scheduler = Affine([1, 2, 3, 4, 5], {"gw0": [0], "gw1": [6]})
    scheduler.groups = [0, 1, 2, 0, 1, -1, 1]  # tests 1, 4 and 6 are of a model that gw1 has
    for _ in range(5):
        scheduler.check_schedule("gw0")
    assert scheduler.node2pending["gw0"] == [0, 3, 2, 5, 1, 4]


def test_tests_of_others_are_handed_out_as_they_come() -> None:
    scheduler = Affine([3, 1, 2], {"gw0": [0]})
    scheduler.check_schedule("gw0")
    assert scheduler.node2pending["gw0"] == [0, 3]


@pytest.mark.parametrize(
    ("dist", "refused"), [("load", False), ("worksteal", False), ("each", True), ("loadgroup", True)]
)
def test_ways_to_hand_out_that_would_lose_or_double_pairs_are_refused(dist: str, refused: bool) -> None:
    config: Any = SimpleNamespace(workerinput={"vq_dist": dist})
    assert distribution_refusal(config).startswith(f"--dist={dist} " if refused else "")
    assert bool(distribution_refusal(config)) == refused
