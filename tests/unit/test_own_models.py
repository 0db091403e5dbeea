"""Models of one's own, of many kinds: whatever they are called with and return, they are measured like ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from own_bench import own_bench
from torch import Tensor, nn

from pytest_vq import register_execution, register_model
from pytest_vq.catalog import inputs as catalog_inputs
from pytest_vq.catalog.models import find_model, isolated
from pytest_vq.errors import OutputError, RegistrationError
from pytest_vq.execution import own_executions
from pytest_vq.execution.prepared import Prepared
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure.bench import Bench
from pytest_vq.options import Options
from pytest_vq.precision.converted import Converted
from pytest_vq.schema.spec import Case

IMAGES = {"input_shape": (3, 32, 32)}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Ready to measure, one or a few samples a pair."""
    with own_bench(tmp_path, Options(budget=0.01)) as made:
        yield made


def case(scheme: str, batch: int = 2) -> Case:
    return Case(find_model("own"), find_scheme(scheme), batch)


def swin() -> nn.Module:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=32, depths=[1, 1], num_heads=[2, 4], window_size=4, num_labels=10
    )
    return transformers.SwinForImageClassification(config)


def convnext() -> nn.Module:
    config = transformers.ConvNextConfig(hidden_sizes=[32, 64], depths=[1, 1], num_stages=2, num_labels=10)
    model = transformers.ConvNextForImageClassification(config)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale_parameter"):  # 1e-6, by which a random block would say nothing
            nn.init.ones_(parameter)
    return model


def segformer() -> nn.Module:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[32, 64],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=32,
        num_labels=5,
    )
    return transformers.SegformerForSemanticSegmentation(config)


def clip() -> nn.Module:
    config = transformers.CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    return transformers.CLIPVisionModelWithProjection(config)


class Encoder(nn.Module):
    """Returns a dict, as a multi-task model does."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu")
        self.patches = nn.Conv2d(3, 64, 8, 8)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.encoder(self.patches(images).flatten(2).transpose(1, 2))
        return {"tokens": tokens, "pooled": tokens.mean(dim=1)}


class Detector(nn.Module):
    """Returns a list with the boxes and scores of each image, however many pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.GELU(), nn.Linear(64, 8 * 5))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        found = self.body(images).unflatten(1, (8, 5))
        return [{"boxes": one[:, :4], "scores": one[:, 4].sigmoid()} for one in found]


def boxes_and_scores(found: list[dict[str, Tensor]]) -> Tensor:
    return torch.stack([torch.cat([one["boxes"], one["scores"][:, None]], dim=1) for one in found])


class Normed(nn.Module):
    """Weights that are computed from others at each call."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), norm(nn.Linear(3 * 32 * 32, 64)), nn.GELU(), nn.Linear(64, 64))
        self.head = norm(nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class TwoInputs(nn.Module):
    """Images, and the number of the camera that took each."""

    def __init__(self) -> None:
        super().__init__()
        self.cameras = nn.Embedding(7, 64)
        self.body = nn.Linear(3 * 8 * 8, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor, camera: Tensor) -> Tensor:
        return self.head(nn.functional.gelu(self.body(images.flatten(1)) + self.cameras(camera)))


def by_place(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    images = torch.randn(batch, 3, 8, 8, generator=generator)
    return images, torch.randint(0, 7, (batch,), generator=generator)


def by_name(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    images, camera = by_place(batch, generator)
    return {"camera": camera, "images": images}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64), nn.GELU())
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def seeded_plain() -> nn.Module:
    torch.manual_seed(0)
    return Plain()


KINDS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "swin": (swin, {**IMAGES, "head": "classifier"}),
    "convnext": (convnext, {**IMAGES, "head": "classifier"}),
    "segformer": (segformer, {**IMAGES, "output": lambda answer: answer.logits}),
    "clip": (clip, {**IMAGES, "output": lambda answer: answer.image_embeds}),
    "encoder of a dict": (Encoder, {**IMAGES, "output": lambda answer: answer["pooled"]}),
    "detector": (Detector, {**IMAGES, "output": boxes_and_scores}),
    "weight norm": (lambda: Normed(nn.utils.parametrizations.weight_norm), {**IMAGES, "head": "head"}),
    "two inputs": (TwoInputs, {"inputs": by_place, "head": "head"}),
    "two by name": (TwoInputs, {"inputs": by_name, "head": "head"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_any_kind_is_measured(bench: Bench, kind: str) -> None:
    build, options = KINDS[kind]
    register_model("own", **options)(build)
    records = {name: bench.measure(case(name)).record for name in ("fp32", "int8", "int8wo")}
    assert records["fp32"].sqnr_db is None
    for name in ("int8", "int8wo"):
        assert 15 < records[name].sqnr_db < 80
        assert records[name].quantized_layers == records[name].eligible_layers > 0
        assert records[name].speedup > 0
    assert records["int8"].sqnr_db != records["int8wo"].sqnr_db


def test_integers_among_the_inputs_stay_integers(bench: Bench) -> None:
    seen: list[torch.dtype] = []

    class Noting(TwoInputs):
        def forward(self, images: Tensor, camera: Tensor) -> Tensor:
            seen.append(camera.dtype)
            return super().forward(images, camera)

    register_model("own", inputs=by_place, head="head")(Noting)
    bench.measure(case("bf16"))
    assert set(seen) == {torch.int64}


class TestLabelled:
    """Images of which the model has 3 in 4 right, in an order that no batch divides."""

    IMAGES = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def labelled(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        labels = Plain()(self.IMAGES).argmax(dim=1)
        labels[::4] = (labels[::4] + 1) % 10
        return self.IMAGES, labels

    def test_accuracy_is_measured_on_them(self, bench: Bench) -> None:
        register_model("own", **IMAGES, head="head", labelled=self.labelled)(seeded_plain)
        for name in ("fp32", "fp16"):
            record = bench.measure(case(name)).record
            assert (record.fidelity.accuracy, record.fidelity.labelled_images) == (8 / 11, 11)
            assert record.batch == 2
        assert record.top1_agreement == 1.0

    def test_many_are_fed_by_parts(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog_inputs, "_AT_ONCE", 4 * 3 * 32 * 32)
        fed: list[int] = []

        class Noting(Plain):
            def forward(self, images: Tensor) -> Tensor:
                fed.append(len(images))
                return super().forward(images)

        def build() -> nn.Module:
            torch.manual_seed(0)
            return Noting()

        register_model("own", **IMAGES, head="head", labelled=self.labelled)(build)
        record = bench.measure(case("fp16")).record
        assert record.fidelity.accuracy == 8 / 11
        assert set(fed) == {2, 4, 3}  # the timed request's, the parts of four, and the rest

    def test_an_execution_made_for_a_batch_gets_them_by_that_many(self, bench: Bench) -> None:
        fed: list[int] = []

        def prepare(converted: Converted, inputs: Tensor) -> Prepared:
            def call(images: Tensor) -> object:
                fed.append(len(images))
                return converted.module(images)

            return Prepared(call)

        register_model("own", **IMAGES, head="head", labelled=self.labelled)(seeded_plain)
        with own_executions.isolated():
            register_execution("mine")(prepare)
            record = bench.measure(case("fp32+mine")).record
        assert record.fidelity.accuracy == 8 / 11
        assert set(fed) == {2}

    @pytest.mark.parametrize(
        ("labelled", "words"),
        [
            (lambda: torch.zeros(4), "returned a Tensor; it must return two things: inputs, labels"),
            (lambda: (torch.randn(4, 3, 32, 32), torch.zeros(3).long()), "it has 4 images and 3 labels"),
            (lambda: (torch.randn(4, 3, 32, 32), torch.zeros(4)), r"its labels are torch.float32 \[4\]"),
            (lambda: (torch.randn(4, 3, 32, 32), [1, 2, 3, 4]), "its labels are list"),
            (lambda: ("path", torch.zeros(4).long()), "found a str, expected a tensor, a tuple"),
            (lambda: 1 // 0, "its function for labelled= raised ZeroDivisionError: integer"),
        ],
    )
    def test_what_is_not_labelled_is_refused(self, bench: Bench, labelled: Callable[[], Any], words: str) -> None:
        register_model("own", **IMAGES, labelled=labelled)(Plain)
        with pytest.raises(RegistrationError, match=f"^own: .*{words}"):
            bench.measure(case("fp32"))

    def test_labels_that_are_no_classes_are_refused(self, bench: Bench) -> None:
        register_model("own", **IMAGES, labelled=lambda: (torch.randn(2, 3, 32, 32), torch.tensor([1, 10])))(Plain)
        with pytest.raises(OutputError, match=r"^own: its labels lie between 1 and 10, its classes between 0 and 9"):
            bench.measure(case("fp32"))

    def test_an_answer_that_is_no_logits_is_refused(self, bench: Bench) -> None:
        own = {**KINDS["segformer"][1], "labelled": lambda: (torch.randn(2, 3, 32, 32), torch.tensor([1, 1]))}
        register_model("own", **own)(segformer)
        with pytest.raises(OutputError, match=r"^own: its answer .* has shape \[2, 5, 8, 8\]: accuracy needs logits"):
            bench.measure(case("fp32"))


class TestRefusedAtOnce:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, r"input_shape=None is not three positive integers .* give inputs= instead"),
            ({**IMAGES, "inputs": by_place}, "inputs= stands instead of input_shape="),
            ({"inputs": lambda batch: None}, r"must take the arguments \(batch, generator\)"),
            ({"inputs": torch.zeros(1)}, "is not a function; inputs= takes one"),
            ({**IMAGES, "output": lambda: None}, "must take the arguments"),
            ({**IMAGES, "output": "logits"}, "'logits' is not a function; output= takes one"),
            ({**IMAGES, "labelled": lambda split: None}, "must take no arguments"),
            ({**IMAGES, "min_sqnr_db": 20}, "min_sqnr_db=20 is no floor for each precision"),
            ({**IMAGES, "min_sqnr_db": {"int8": "20"}}, "is no floor for each precision"),
        ],
    )
    def test_what_cannot_be_called_or_meant(self, options: dict[str, Any], words: str) -> None:
        with isolated(), pytest.raises(RegistrationError, match=f"^model 'own': .*{words}"):
            register_model("own", **options)(Plain)


class TestRefusedWhenMeasured:
    @pytest.mark.parametrize(
        ("inputs", "words"),
        [
            (lambda batch, generator: torch.randn(1, 3, 8, 8), r"the tensor has shape \[1, 3, 8, 8\], expected \[2, "),
            (lambda batch, generator: (torch.randn(2, 4), torch.tensor(1.0)), r"tensor 1 has shape \[\], expected"),
            (lambda batch, generator: {"a": torch.randn(2, 4).double()}, "'a' is torch.float64; it must be FP32"),
            (lambda batch, generator: [[1.0, 2.0]], "found a list of list, expected a tensor"),
            (lambda batch, generator: {}, "found a dict of nothing, expected"),
            (lambda batch, generator: generator.missing, "its function for inputs= raised AttributeError"),
        ],
    )
    def test_inputs_that_are_none(self, bench: Bench, inputs: Callable[..., Any], words: str) -> None:
        register_model("own", inputs=inputs)(Plain)
        with pytest.raises(RegistrationError, match=f"^own: .*{words}"):
            bench.measure(case("fp32"))

    @pytest.mark.parametrize(
        ("output", "words"),
        [
            (lambda answer: answer.tolist(), "its function .* returned a list; it must return one tensor"),
            (lambda answer: answer.boxes, "no tensor could be taken out of the Tensor that it returned: AttributeErr"),
            (lambda answer: answer[:1], r"the output has shape \[1, 10\] for 2 images: return \[2, ...\]"),
        ],
    )
    def test_outputs_that_cannot_be_compared(self, bench: Bench, output: Callable[[Any], Any], words: str) -> None:
        register_model("own", **IMAGES, output=output)(Plain)
        with pytest.raises(OutputError, match=f"^own.*: .*{words}"):
            bench.measure(case("fp32"))

    def test_a_dict_without_a_function_says_what_to_give(self, bench: Bench) -> None:
        register_model("own", **IMAGES)(Encoder)
        with pytest.raises(OutputError, match=r"the model returned a dict, .* give output= "):
            bench.measure(case("fp32"))
