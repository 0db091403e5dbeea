"""``pytest_vq.load``: a verified quantized model, or FP32 and the reason."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pytest_vq
from pytest_vq.advise import loading
from pytest_vq.device.cpu import computes_bf16
from pytest_vq.errors import OutputError, PrecisionError, RegistrationError, SelectionError
from pytest_vq.execution import executions
from pytest_vq.execution.prepared import Prepared
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.spec import ExecutionSpec

REST = "bf16" if computes_bf16() else "fp32"
MINE = ExecutionSpec("mine", prepare=f"{__name__}:prepare")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Dropout(0.5), nn.Linear(96, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(self.body(x)) * scale  # type: ignore[no-any-return]


class World:
    """What became of what an execution prepared."""

    entered, closed, fails = 0, 0, False


@contextlib.contextmanager
def counted() -> Iterator[None]:
    World.entered += 1
    yield


def close() -> None:
    World.closed += 1


def prepare(converted: Converted, example: Tensor) -> Prepared:
    if World.fails:
        raise RuntimeError("no such kernel\nhints follow")
    return Prepared(converted.module, counted, close=close)


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "_EXECUTIONS", (*executions._EXECUTIONS, MINE))
    World.entered, World.closed, World.fails = 0, 0, False


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(16, 64, generator=torch.Generator().manual_seed(1))


def test_a_quantized_model_is_called_as_the_fp32_one_is(inputs: Tensor) -> None:
    source = Net()
    model, report = pytest_vq.load(source, "int8", inputs=inputs, min_sqnr_db=20, head="head")
    assert (report.scheme, report.method) == ("int8", f"bitsandbytes LLM.int8, {REST} rest")
    assert report.fell_back_because is None
    assert report.sqnr_db is not None
    assert 25 < report.sqnr_db < 60
    assert report.cosine is not None
    assert report.cosine > 0.99
    weights = sum(layer.weight.numel() for layer in (source.body[0], source.body[3]))
    assert weights < report.model_size_bytes < 2 * weights
    assert not model.training
    expected = source.eval()(inputs)
    torch.testing.assert_close(model(inputs, scale=2.0).float(), 2 * expected, rtol=0.1, atol=0.1)


def test_the_source_is_left_as_it_was(inputs: Tensor) -> None:
    source = Net()
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    pytest_vq.load(source, "int8", inputs=inputs, head="head")
    assert source.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())
    assert type(source.body[0]) is nn.Linear


def test_the_reports_of_two_loads_are_equal_values(inputs: Tensor) -> None:
    reports = [pytest_vq.load(Net(), "int8", inputs=inputs, head="head")[1] for _ in range(2)]
    assert reports[0] == reports[1]
    with pytest.raises(AttributeError):
        reports[0].scheme = "fp32"  # type: ignore[misc]


def test_too_much_noise_falls_back_to_fp32(inputs: Tensor) -> None:
    model, report = pytest_vq.load(Net(), "int8", inputs=inputs, min_sqnr_db=90, head="head")
    assert report.scheme == "fp32"
    assert report.sqnr_db is not None
    assert report.fell_back_because == f"int8 answers with {report.sqnr_db:.1f} dB, where at least 90 dB are asked for"
    assert torch.equal(model(inputs), Net().eval()(inputs))
    assert report.model_size_bytes > sum(p.numel() for p in Net().parameters()) * 4


def test_without_a_bound_the_precision_s_own_holds(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Net):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            own = super().forward(x)
            return own if type(self.body[0]) is nn.Linear else own + torch.randn_like(own)

    _, report = pytest_vq.load(Deaf(), "int8", inputs=inputs, head="head")
    assert report.scheme == "fp32"
    assert report.fell_back_because is not None
    assert report.fell_back_because.endswith("where at least 18 dB are asked for")


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("fp8", "fp8 cannot run here: FP8 needs an NVIDIA GPU"),
        ("int8+compile", r"int8\+compile cannot run here: LLM.int8"),
        ("int4", "int4: none of 1 linear layers was quantized"),
    ],
)
def test_what_cannot_be_had_falls_back_to_fp32(scheme: str, reason: str) -> None:
    model, report = pytest_vq.load(nn.Sequential(nn.Linear(40, 40)), scheme, inputs=torch.randn(4, 40))
    assert (report.scheme, report.sqnr_db, report.cosine) == ("fp32", None, None)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(report.fell_back_because)
    assert model(torch.randn(2, 40)).dtype is torch.float32


def test_an_output_that_is_not_finite_falls_back_to_fp32(inputs: Tensor) -> None:
    class Overflowing(Net):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            own = super().forward(x)
            return own if type(self.body[0]) is nn.Linear else own / 0

    _, report = pytest_vq.load(Overflowing(), "int8", inputs=inputs, head="head")
    assert report.scheme == "fp32"
    assert report.fell_back_because is not None
    assert "NaN or infinite" in report.fell_back_because


def test_an_execution_runs_in_its_context_and_is_closed(inputs: Tensor) -> None:
    model, report = pytest_vq.load(Net(), "int8+mine", inputs=inputs, head="head")
    assert report.scheme == "int8+mine"
    entered = World.entered
    model(inputs)
    assert (World.entered, World.closed) == (entered + 1, 0)
    assert isinstance(model, loading.LoadedModel)
    model.close()
    assert World.closed == 1


def test_an_execution_that_is_refused_is_closed_too(inputs: Tensor) -> None:
    _, report = pytest_vq.load(Net(), "int8+mine", inputs=inputs, min_sqnr_db=90, head="head")
    assert (report.scheme, World.closed) == ("fp32", 1)


def test_an_execution_that_fails_falls_back_to_fp32(inputs: Tensor) -> None:
    World.fails = True
    _, report = pytest_vq.load(Net(), "int8+mine", inputs=inputs, head="head")
    assert report.fell_back_because == "int8+mine could not be prepared: RuntimeError: no such kernel"


class TestRecipes:
    def recipe(self, directory: Path, layers: dict[str, str]) -> str:
        path = directory / "own.json"
        path.write_text(json.dumps({"schema_version": 1, "model": "net", "rest": "fp32", "layers": layers}))
        return f"recipe:{path}"

    def test_one_is_loaded(self, inputs: Tensor, tmp_path: Path) -> None:
        scheme = self.recipe(tmp_path, {"body.0": "int8", "body.3": "bf16"})
        _, report = pytest_vq.load(Net(), scheme, inputs=inputs, head="head")
        assert (report.scheme, report.fell_back_because) == ("recipe-own", None)
        assert report.method == "mixed: 1 int8, 1 bf16, fp32 rest"

    def test_an_unknown_layer_is_an_error_and_no_reason_to_fall_back(self, inputs: Tensor, tmp_path: Path) -> None:
        with pytest.raises(PrecisionError, match=r"recipe-own: the model has no linear layer 'body.1'"):
            pytest_vq.load(Net(), self.recipe(tmp_path, {"body.1": "int8"}), inputs=inputs, head="head")

    def test_an_absent_file_is_an_error(self, inputs: Tensor, tmp_path: Path) -> None:
        with pytest.raises(SelectionError, match=f"cannot read the recipe {tmp_path}/none.json"):
            pytest_vq.load(Net(), f"recipe:{tmp_path}/none.json", inputs=inputs)


class TestWrongUsage:
    def test_an_unknown_scheme(self, inputs: Tensor) -> None:
        with pytest.raises(SelectionError, match="no precision 'int9'"):
            pytest_vq.load(Net(), "int9", inputs=inputs)

    def test_an_unknown_head(self, inputs: Tensor) -> None:
        with pytest.raises(PrecisionError, match="the model has no module 'classifier'"):
            pytest_vq.load(Net(), "int8", inputs=inputs, head="classifier")

    def test_a_model_that_is_not_fp32(self, inputs: Tensor) -> None:
        with pytest.raises(PrecisionError, match="the model to convert must be FP32"):
            pytest_vq.load(Net().half(), "int8", inputs=inputs)

    def test_inputs_that_are_no_tensors(self, inputs: Tensor) -> None:
        with pytest.raises(RegistrationError, match=r"^load: inputs: found a ndarray, expected a tensor, a tuple of"):
            pytest_vq.load(Net(), "int8", inputs=inputs.numpy())  # type: ignore[arg-type]

    def test_inputs_that_fp32_cannot_answer(self) -> None:
        with pytest.raises(OutputError, match="fp32: its forward failed"):
            pytest_vq.load(Net(), "int8", inputs=torch.randn(4, 63), head="head")
