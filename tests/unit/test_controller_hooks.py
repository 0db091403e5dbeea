"""How many workers there are, and which GPU each is given before it starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import execnet
import pynvml
import pytest

from pytest_vq.device import visible
from pytest_vq.errors import SelectionError
from pytest_vq.options import Options
from pytest_vq.plugin import xdist
from pytest_vq.plugin.xdist import ControllerHooks, pytest_xdist_auto_num_workers


def fail(error: Exception) -> Any:
    raise error


@pytest.fixture(autouse=True)
def own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)


class TestNumber:
    @pytest.fixture
    def workers(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def ask(gpu: bool, find: Any = lambda environment: ["0", "1", "2"]) -> int | None:
            monkeypatch.setattr(xdist, "read_options", lambda config: Options(gpu=gpu))
            monkeypatch.setattr(visible, "visible_gpus", find)
            return pytest_xdist_auto_num_workers(None)  # type: ignore[arg-type]

        return ask

    def test_one_for_each_gpu(self, workers) -> None:
        assert workers(gpu=True) == 3

    def test_without_gpu_it_is_left_to_xdist(self, workers) -> None:
        assert workers(gpu=False) is None

    @pytest.mark.parametrize(
        "find", [lambda environment: [], lambda environment: fail(pynvml.NVMLError_LibraryNotFound())]
    )
    def test_one_to_say_that_there_is_none(self, workers, find) -> None:
        assert workers(gpu=True, find=find) == 1

    def test_the_users_own_number_stands(self, workers, monkeypatch) -> None:
        monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "5")
        assert workers(gpu=True) is None

    def test_options_that_cannot_be_read_are_told_later(self, monkeypatch) -> None:
        monkeypatch.setattr(xdist, "read_options", lambda config: fail(SelectionError("no such protocol")))
        assert pytest_xdist_auto_num_workers(None) is None  # type: ignore[arg-type]


class TestGiven:
    @pytest.fixture
    def give(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def start(*specs: str, gpus: tuple[str, ...] = ("GPU-a", "GPU-b"), **options: Any) -> list[dict[str, str]]:
            monkeypatch.setattr(visible, "visible_gpus", lambda environment: list(gpus))
            config = SimpleNamespace(
                getoption=lambda name: [], getini=lambda name: [], invocation_params=SimpleNamespace(args=["--gpu"])
            )
            session: Any = SimpleNamespace(config=config, options=Options(**{"gpu": True} | options), left_out={})
            made = [execnet.XSpec(spec) for spec in specs]
            ControllerHooks(session).pytest_xdist_setupnodes(specs=made)
            return [spec.env for spec in made]

        return start

    def test_one_each(self, give) -> None:
        assert give("popen", "popen") == [{"CUDA_VISIBLE_DEVICES": "GPU-a"}, {"CUDA_VISIBLE_DEVICES": "GPU-b"}]

    def test_more_workers_than_gpus_take_turns(self, give) -> None:
        assert [env["CUDA_VISIBLE_DEVICES"] for env in give("popen", "popen", "popen")] == ["GPU-a", "GPU-b", "GPU-a"]

    def test_workers_elsewhere_and_those_with_a_gpu_of_their_own_are_left_alone(self, give) -> None:
        environments = give("ssh=host", "popen//via=host", "popen//env:CUDA_VISIBLE_DEVICES=7", "popen")
        assert environments == [{}, {}, {"CUDA_VISIBLE_DEVICES": "7"}, {"CUDA_VISIBLE_DEVICES": "GPU-a"}]

    def test_without_gpu_or_without_any_none_is_given(self, give) -> None:
        assert give("popen", gpu=False) == [{}]
        assert give("popen", gpus=()) == [{}]

    def test_further_processes_are_for_one_gpu(self, give) -> None:
        assert give("popen", "popen", gpus=("GPU-a",), runs=3)
        with pytest.raises(pytest.UsageError, match=r"--vq-runs=3 .* says nothing about workers on 2 GPUs"):
            give("popen", "popen", runs=3)
        with pytest.raises(pytest.UsageError, match=r"says nothing about workers on other hosts"):
            give("ssh=host", gpu=False, runs=2)
