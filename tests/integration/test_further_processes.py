"""The further processes of ``--vq-runs``: what they measure again, and what not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest
from nets import Ended, make_nets, run_in

# Measuring takes no time, and is noted.
NOTED = """
    from pathlib import Path

    from factories import make_outcome, make_record, make_serving_record
    from pytest_vq.plugin.session import VqSession
    from pytest_vq.schema.cases import ServingCase


    def measure(self, case, node_id):
        with Path("measured").open("a") as file:
            print(case.id, file=file)
        if isinstance(case, ServingCase):
            return make_outcome(make_serving_record(case.case.model.name))
        return make_outcome(make_record(case.model.name))


    VqSession.measure = measure
"""
SERVING = """
    def test_serving(vq_case, vq_serve):
        vq_serve(vq_case)

    def test_nothing():
        pass
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    make_nets(tmp_path)
    (tmp_path / "noted.py").write_text(dedent(NOTED))
    (tmp_path / "test_loads.py").write_text(dedent(SERVING))
    return tmp_path


def twice(nets: Path, *arguments: str) -> Ended:
    given = ("--vq-runs=2", "--vq-serving", "--vq-gate=off", "--vq-models=net-a", "--vq-precisions=int8")
    run = run_in(nets, "-p", "noted", *given, *arguments)
    assert run.code == 0, run.output
    return run


def measured(run: Ended) -> Counter[str]:
    return Counter((run.directory / "measured").read_text().splitlines())


def test_they_measure_pairs_again_and_leave_those_under_load_out(nets: Path) -> None:
    assert measured(twice(nets)) == {"net-a-int8": 2, "net-a-int8-serving": 1}


def test_they_measure_the_same_shard(nets: Path) -> None:
    for number in (1, 2):
        run = twice(nets, f"--vq-shard={number}/2", f"--vq-output=shard-{number}")
    assert measured(run) == {"net-a-int8": 2, "net-a-int8-serving": 1}


def test_where_all_are_under_load_there_are_none(nets: Path) -> None:
    run = twice(nets, "test_loads.py")
    assert measured(run) == {"net-a-int8-serving": 1}
    assert not (nets / "vq-results" / "run-2").exists()


@pytest.mark.parametrize("others", ["test_serving", "test"])
def test_with_workers_where_nobody_knows_that_beforehand_they_have_nothing_to_do(nets: Path, others: str) -> None:
    run = twice(nets, "test_loads.py", "-n", "1", "-k", others)
    assert measured(run) == {"net-a-int8-serving": 1}
    assert run.study["complete"]
