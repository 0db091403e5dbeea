"""How a selection is cut: by committed durations and the selection, and by nothing else."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vq.errors import MeasurementError
from pytest_vq.options import Options
from pytest_vq.processes.command import Invocation
from pytest_vq.processes.fresh import measure_afresh, profile_afresh, run_afresh
from pytest_vq.processes.shards import cut, expected_seconds
from pytest_vq.schema.shard import Selection, Shard
from pytest_vq.schema.spec import CaseId


def smallest_largest_sum(seconds: list[float], count: int) -> float:
    """By trying every way to cut."""
    places = range(1, len(seconds))
    ways = ([0, *cuts, len(seconds)] for cuts in combinations(places, count - 1))
    return min(max(sum(seconds[a:b]) for a, b in pairwise(way)) for way in ways)


class TestCut:
    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_the_largest_sum_is_the_smallest_there_is(self, count: int) -> None:
        draw = random.Random(count)
        for _ in range(50):
            seconds = [draw.randint(1, 9000) / 1000 for _ in range(draw.randint(count, 9))]
            largest = max(sum(seconds[place] for place in shard) for shard in cut(seconds, count))
            assert largest == pytest.approx(smallest_largest_sum(seconds, count))

    @pytest.mark.parametrize(("places", "count"), [(0, 2), (1, 1), (3, 7), (10, 3), (64, 8)])
    def test_every_place_is_in_one_shard_and_none_is_empty_while_there_are_places(self, places, count) -> None:
        shards = cut([1.0] * places, count)
        assert [place for shard in shards for place in shard] == list(range(places))
        assert len(shards) == count
        assert sum(len(shard) > 0 for shard in shards) == min(places, count)

    def test_equal_pairs_are_shared_evenly(self) -> None:
        assert [len(shard) for shard in cut([1.0] * 24, 3)] == [8, 8, 8]

    def test_one_long_pair_has_a_shard_of_its_own(self) -> None:
        assert cut([1.0, 100.0, 1.0, 1.0], 3) == [range(1), range(1, 2), range(2, 4)]

    def test_ten_thousand_pairs_are_cut_exactly(self) -> None:
        draw = random.Random(0)
        seconds = [draw.uniform(0.5, 20) for _ in range(10_000)]
        sums = [sum(seconds[place] for place in shard) for shard in cut(seconds, 100)]
        assert max(sums) < sum(seconds) / 100 + 20


def pair(model: str, scheme: str, *, serving: bool = False) -> CaseId:
    return CaseId(model, scheme, 1, serving)


class TestExpectedSeconds:
    PAIRS = (pair("a", "fp32"), pair("a", "int8"), pair("a", "int4"), pair("b", "fp32"))
    SERVED = (pair("a", "int8", serving=True), pair("b", "int8", serving=True))

    def test_nothing_known_makes_all_equal(self) -> None:
        assert len(set(expected_seconds(self.PAIRS, {}))) == 1

    def test_an_unknown_pair_takes_its_models_mean_and_a_model_nobody_knows_the_median(self) -> None:
        known = {"a-fp32": 2.0, "a-int8": 4.0, "of another selection": 30.0}
        assert expected_seconds(self.PAIRS, known) == [2, 4, 3, 4]

    @pytest.mark.parametrize("known", [{}, {"a-fp32": 2.0, "a-int8": 4.0}])
    def test_where_none_under_load_is_known_they_take_minutes(self, known: dict[str, float]) -> None:
        seconds = expected_seconds([*self.PAIRS, *self.SERVED], known)
        assert min(seconds[-2:]) > 10 * max(seconds[:-2])

    def test_pairs_under_load_and_others_say_nothing_of_each_other(self) -> None:
        known = {"a-int8": 4.0, "a-int8-serving": 200.0}
        served = pair("a", "int4", serving=True)
        assert expected_seconds([*self.PAIRS, *self.SERVED, served], known) == [4, 4, 4, 4, 200, 200, 200]


class TestShard:
    def test_it_is_spelled_as_it_is_read(self) -> None:
        assert str(Shard.parse("2/3")) == "2/3"
        assert Shard.parse("1/1").is_whole
        assert not Shard.parse("1/2").is_whole

    def test_selections_are_told_apart_by_what_is_in_them_and_its_order(self) -> None:
        whole = Selection.of(Shard(1, 2), ["a", "b"], range(1))
        assert whole.words == "shard 1/2: 1 of 2 pairs"
        assert whole.here == ("a",)
        assert Selection.of(Shard(2, 2), ["a", "b"], range(1, 2)).digest == whole.digest
        assert Selection.of(Shard(1, 2), ["b", "a"], range(1)).digest != whole.digest


class TestFreshProcesses:
    """Those that are given the very tests to run must not cut these again; those of ``--vq-runs`` must."""

    @pytest.fixture
    def shard_of(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], str]:
        """The shard that a process is given which a function starts with an invocation and options of shard 2/3."""
        commands: list[list[str]] = []

        def run(command: list[str], **given: Any) -> SimpleNamespace:
            commands.append(command)
            return SimpleNamespace(returncode=3)

        monkeypatch.setattr(subprocess, "run", run)
        invocation = Invocation(tmp_path, tmp_path, None, "prepend", (), "", "", ())

        def start(function: Callable[[Invocation, Options], Any]) -> str:
            with suppress(MeasurementError):  # it ended before it measured anything
                function(invocation, Options(shard=Shard(2, 3)))
            (shard,) = (word for word in commands[-1] if word.startswith("--vq-shard"))
            return shard

        return start

    def test_another_look_at_a_pair_is_not_cut(self, shard_of) -> None:
        assert shard_of(lambda invocation, options: measure_afresh(invocation, options, "a.py::t")) == "--vq-shard=1/1"

    def test_neither_is_profiling(self, shard_of) -> None:
        assert shard_of(lambda invocation, options: profile_afresh(invocation, options, ["a::t"])) == "--vq-shard=1/1"

    def test_further_processes_measure_the_same_shard(self, shard_of, tmp_path: Path) -> None:
        output = tmp_path / "run-2"
        assert shard_of(lambda invocation, options: run_afresh(invocation, options, ["."], output)) == "--vq-shard=2/3"
