"""pytest-xdist's workers: each has its GPU, one measures on a device at a time, and nothing is lost when one dies."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from nets import PAIRS, Ended, make_nets, run_in


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    nets = make_nets(tmp_path_factory.mktemp("nets"), "net-a-int8", signal.SIGSEGV)
    (nets / "awaited").write_text("gw2")  # once one is dead, the other waits until a third has begun
    return run_in(nets, "-p", "instant", "-n", "auto", "--gpu", "--vq-gate=off")


class TestOneHost:
    """A worker for each of two GPUs; one of them dies of a segmentation fault."""

    def test_there_is_a_worker_for_each_gpu(self, run: Ended) -> None:
        assert "2 workers [12 items]" in run.output

    def test_each_worker_sees_one_gpu_and_the_one_that_takes_over_sees_that_of_the_dead(self, run: Ended) -> None:
        seen = {(worker, gpu) for _, worker, gpu in run.measured}
        (dead,) = (gpu for pair, _, gpu in run.measured if pair == "net-a-int8")
        assert seen == {("gw0", "GPU-a"), ("gw1", "GPU-b"), ("gw2", dead)}

    def test_the_pair_is_said_to_have_crashed_once_and_the_rest_is_measured(self, run: Ended) -> None:
        assert run.code == 1
        (failure,) = run.study["failures"]
        assert (failure["id"], failure["error"], failure["model"]) == ("net-a-int8", "WorkerCrashed", "net-a")
        assert run.pairs == [pair for pair in PAIRS if pair != "net-a-int8"]  # in the order of a run without workers
        assert sorted(pair for pair, *_ in run.measured) == sorted(PAIRS)
        assert re.findall(r"(\d+) failed, (\d+) passed", run.output) == [("1", "11")]
        assert run.study["complete"]

    def test_the_table_has_the_order_of_a_run_without_workers_too(self, run: Ended) -> None:
        table = run.output.partition("= pytest-vq =")[2]
        shown = re.findall(r"^(net-.)? +(fp32|fp16|int8|int4) +10 ", table, flags=re.MULTILINE)
        assert [precision for _, precision in shown] == [pair[6:] for pair in run.pairs]
        assert [net for net, _ in shown if net] == ["net-a", "net-b", "net-c"]

    def test_a_line_for_each_row_counts_those_of_all_workers(self, run: Ended) -> None:
        counted = re.findall(r"^\[(\d+)/12\] net-", run.output, flags=re.MULTILINE)
        assert len(counted) == 11
        assert int(counted[-1]) == 12  # with the one that crashed

    def test_workers_take_the_pairs_of_few_models_each(self, run: Ended) -> None:
        taken = {(worker, pair.rsplit("-", 1)[0]) for pair, worker, _ in run.measured}
        assert len(taken) < 3 * 3  # three workers, three models: as they come, nearly each would build each


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        (["--dist=worksteal"], 0),
        (["--max-worker-restart=0", "-n", "1"], 5),  # the crashed one was the seventh of twelve
    ],
)
def test_the_run_ends_when_a_worker_is_killed(tmp_path: Path, arguments: list[str], lost: int) -> None:
    nets = make_nets(tmp_path, "net-b-int8")
    run = run_in(nets, "-p", "instant", "-n", "2", "--vq-gate=off", *arguments)
    assert run.code == 1
    assert [failure["id"] for failure in run.study["failures"]] == ["net-b-int8"]
    assert len(run.pairs) == len(PAIRS) - 1 - lost
    assert run.study["complete"] == (lost == 0)
    assert ("ERROR: 5 of 12 selected were not measured" in run.output) == (lost > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dist=each"], "--dist=each measures every pair once in each worker"),
        (["--gpu", "--vq-runs=2"], "which says nothing about workers on 2 GPUs"),
    ],
)
def test_what_would_measure_wrongly_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    run = run_in(make_nets(tmp_path), "-p", "instant", "-n", "2", "--vq-gate=off", *arguments)
    assert run.code == 4
    assert message in run.output
    assert not (tmp_path / "measured").exists()


# Models whose forward, under the device's lock, waits for the other model to be in building, and the other way round.
MEETING = """

    import pytest_vq
    from pytest_vq.device.device import Device


    def meet(mine, others):
        if "PYTEST_XDIST_WORKER" not in os.environ or Path(f"{mine}-met").exists():
            return
        Path(f"{mine}-here").touch()
        ends_s = time.monotonic() + 120
        while not Path(f"{others}-here").exists():
            assert time.monotonic() < ends_s, f"{mine} was alone"
            time.sleep(0.01)
        Path(f"{mine}-met").touch()


    def spend(quantized):
        global now_ms
        now_ms += 30.0 if quantized else 20.0
        meet("measuring", "building")


    @pytest_vq.register_model("other-net", input_shape=(3, 16, 16), head="head")
    def build_other():
        meet("building", "measuring")
        torch.manual_seed(1)
        return Net()


    held = Device.held


    @contextlib.contextmanager
    def noted(self):
        with held(self) as holding:
            started_s = time.monotonic()
            try:
                yield holding
            finally:
                with Path("held").open("a") as file:
                    print(os.getpid(), started_s, time.monotonic(), file=file)


    Device.held = noted
"""


def test_one_builds_while_the_other_measures_on_the_one_device(
    steady: pytest.Pytester, study: Callable[[], dict[str, Any]]
) -> None:
    conftest = steady.path / "conftest.py"
    conftest.write_text("import contextlib\nimport os\n" + conftest.read_text() + dedent(MEETING))
    run = run_in(steady.path, "--vq-precisions=fp32,int8", "--vq-gate=off", "-n", "2")
    assert run.code == 0, run.output
    assert {path.name for path in steady.path.glob("*-met")} == {"building-met", "measuring-met"}
    intervals = sorted(
        (float(started_s), float(ended_s), pid)
        for pid, started_s, ended_s in map(str.split, (steady.path / "held").read_text().splitlines())
    )
    assert len(intervals) == 4
    assert len({pid for *_, pid in intervals}) == 2
    assert all(one[1] <= following[0] for one, following in pairwise(intervals))
    # In the order and with the figures that a run without workers has on this clock.
    rows = [[row[name] for name in ("model", "precision", "latency_ms", "speedup")] for row in study()["records"]]
    nets = ("my-net", "other-net")
    assert rows == [
        row for net in nets for row in ([net, "fp32", 20.0, 1.0], [net, "int8", 30.0, pytest.approx(2 / 3)])
    ]


def test_a_worker_without_a_gpu_says_what_is_missing_and_its_controller_ends_the_run(tmp_path: Path) -> None:
    nets = make_nets(tmp_path)
    run = run_in(nets, "--gpu", "-n", "auto", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert run.code == 4
    assert "1 worker [0 items]" in run.output
    assert re.search("ERROR: --gpu: .*(built without CUDA|sees no CUDA device)", run.output)


def test_workers_begin_with_what_is_known_to_take_long(tmp_path: Path) -> None:
    nets = make_nets(tmp_path)
    seconds = {"net-a-fp32": 1.0, "net-b-int8": 9.0, "net-c-fp32": 5.0, "net-c-int4": 2.0}
    baselines = nets / "baselines"
    baselines.mkdir()
    (baselines / "durations.json").write_text(json.dumps({"schema_version": 1, "durations_s": {"cpu": seconds}}))
    run = run_in(nets, "-p", "instant", "-n", "1", "--vq-gate=off")
    assert [pair for pair, *_ in run.measured][:6] == [
        *("net-b-fp32", "net-b-fp16", "net-b-int8", "net-b-int4"),  # the others are taken to be like the one known
        *("net-c-fp32", "net-c-fp16"),
    ]
    assert run.pairs == PAIRS


def test_durations_that_cannot_be_read_end_a_run_with_workers_before_it_begins(tmp_path: Path) -> None:
    nets = make_nets(tmp_path)
    (nets / "baselines").mkdir()
    (nets / "baselines" / "durations.json").write_text("{")
    run = run_in(nets, "-p", "instant", "-n", "1", "--vq-gate=off")
    assert run.code == 4
    assert "durations.json" in run.output
    assert not (nets / "measured").exists()
