"""Models built offline: their sizes, their random weights, the user's own, and what their outputs become."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, ImageClassifierOutput

from pytest_vq.catalog import build as building
from pytest_vq.catalog import models as registry
from pytest_vq.catalog.build import (
    build_meta,
    build_source,
    example_inputs,
    labelled_images,
    output_tensor,
    weights_kind,
)
from pytest_vq.catalog.initialize import can_start_on_meta
from pytest_vq.catalog.models import STUDY, find_model, isolated, register_model
from pytest_vq.errors import BuildError, OutputError, SelectionError

# What is published, and what each config gives to the last parameter.
PARAMETERS = {
    "vit-huge-patch14-224-in21k": (632e6, 632_404_480),
    "vit-large-patch16-224-in21k": (307e6, 304_351_232),
    "dinov2-large": (300e6, 304_368_640),
    "dinov2-base": (86e6, 86_580_480),
    "beit-large-patch16-224": (307e6, 304_430_568),
    "beit-base-patch16-224-pt22k-ft22k": (86e6, 85_761_984),
    "vit-base-patch16-384": (86e6, 86_859_496),
    "vit-base-patch16-224-in21k": (86e6, 86_389_248),
    "dino-vitb16": (86e6, 85_798_656),
    "dino-vits16": (22e6, 21_665_664),
    "deit-base-distilled-patch16-384": (87e6, 87_630_032),
    "deit-small-distilled-patch16-224": (22e6, 22_436_432),
    "mobilevit-small": (5.6e6, 5_578_632),
    "mobilevit-xx-small": (1.3e6, 1_272_024),
    "deit-tiny-patch16-224": (5.7e6, 5_717_416),
    "vit-base-patch32-224-in21k": (86e6, 88_045_824),
}
# The linear layers outside the heads: what a precision may quantize.
LINEAR_LAYERS = {"vit-huge-patch14-224-in21k": 192, "dinov2-large": 144, "beit-large-patch16-224": 144}
LINEAR_LAYERS |= {"vit-large-patch16-224-in21k": 144, "mobilevit-small": 54, "mobilevit-xx-small": 54, "vit-digits": 24}
# One of each architecture and initialisation, small enough to build in a test.
SMALL = ("dino-vits16", "deit-small-distilled-patch16-224", "mobilevit-xx-small", "deit-tiny-patch16-224")
NARROW = ("dinov2-base", "beit-base-patch16-224-pt22k-ft22k", "beit-large-patch16-224")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digest(tensors):
    if isinstance(tensors, nn.Module):
        tensors = tensors.state_dict().values()
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()


def forward(model, images):
    with torch.inference_mode():
        return output_tensor(model(images))


def local_spec(build, **kwargs):
    with isolated():
        register_model("my-net", input_shape=(3, 4, 4), **kwargs)(build)
        return find_model("my-net")


@pytest.fixture
def narrow(monkeypatch, tmp_path):
    """The real architectures and configs, but two layers of 64 channels: for what does not depend on the size."""
    for name in NARROW:
        config = json.loads((registry.DATA / f"{name}.json").read_text())
        config |= {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        if "intermediate_size" in config:
            config["intermediate_size"] = 128
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    monkeypatch.setattr(building, "DATA", tmp_path)


def test_every_model_of_the_study_is_in_the_table_of_published_sizes():
    assert tuple(PARAMETERS) == STUDY


@pytest.mark.parametrize("name", [*STUDY, "vit-digits"])
def test_the_config_gives_the_architecture(name):
    spec = find_model(name)
    model = build_meta(spec)
    counted = sum(parameter.numel() for parameter in model.parameters())
    published, exact = PARAMETERS.get(name, (counted, 202_186))
    assert counted == exact == spec.parameters
    assert counted == pytest.approx(published, rel=0.025)  # published to two or three digits
    config = model.config
    pixels = 224 if name.startswith("dinov2") else config.image_size  # trained at 518, measured at 224
    assert spec.input_shape == (config.num_channels, pixels, pixels)
    modules = dict(model.named_modules())
    for head in spec.heads:
        assert any(isinstance(module, nn.Linear) for module in modules[head].modules())
    outside = [
        path
        for path, module in modules.items()
        if type(module) is nn.Linear and not any(f"{path}.".startswith(f"{head}.") for head in spec.heads)
    ]
    assert len(outside) == LINEAR_LAYERS.get(name, 72)
    assert can_start_on_meta(model)  # else building takes several times as long


@pytest.mark.parametrize("name", SMALL)
def test_random_weights(name):
    spec = find_model(name)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = build_source(spec, "random")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert digest(build_source(spec, "random")) == digest(model)
    assert not model.training
    assert not any(module.training for module in model.modules())
    for tensor in model.parameters():
        assert (tensor.dtype, tensor.device.type, tensor.requires_grad) == (torch.float32, "cpu", False)
    answers = forward(model, example_inputs(spec, 2))
    assert answers.isfinite().all()
    assert answers.std() > 1e-2
    assert (answers[0] - answers[1]).abs().max() > 1e-4  # the image reaches the answer


@pytest.mark.parametrize("name", NARROW)
def test_random_weights_of_the_larger_architectures(name, narrow):
    spec = find_model(name)
    model = build_source(spec, "random")
    assert digest(build_source(spec, "random")) == digest(model)
    answers = forward(model, example_inputs(spec, 2))
    assert answers.isfinite().all()
    assert answers.std() > 1e-2


@pytest.mark.parametrize("name", ["deit-tiny-patch16-224", "mobilevit-xx-small", *NARROW])
def test_no_weight_is_left_as_memory_was(name, request):
    if name in NARROW:
        request.getfixturevalue("narrow")
    torch.use_deterministic_algorithms(True)  # torch then fills what it allocates with NaN
    try:
        assert torch.empty(1).isnan()
        model = build_source(find_model(name), "random")
    finally:
        torch.use_deterministic_algorithms(False)
    bad = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    assert bad == []


def test_each_model_has_its_own_weights_and_inputs():
    first, second = find_model("vit-base-patch16-224-in21k"), find_model("dino-vitb16")
    assert not torch.equal(example_inputs(first, 1), example_inputs(second, 1))
    assert first.input_shape == second.input_shape


def test_the_same_bits_in_another_process():
    spec = find_model("mobilevit-xx-small")
    code = (
        "import hashlib, torch; torch.manual_seed(7); torch.set_num_threads(2)\n"
        "from pytest_vq.catalog.build import *; from pytest_vq.catalog.models import find_model\n"
        "spec = find_model('mobilevit-xx-small'); state = hashlib.sha256()\n"
        "tensors = [*build_source(spec).state_dict().values(), example_inputs(spec, 2)]\n"
        "for tensor in tensors: state.update(tensor.contiguous().numpy().tobytes())\n"
        "print(state.hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest([*build_source(spec).state_dict().values(), example_inputs(spec, 2)])


def test_layer_scale_is_the_configs(narrow):
    model = build_source(find_model("beit-base-patch16-224-pt22k-ft22k"))
    scales = [tensor for name, tensor in model.named_parameters() if "lambda" in name]
    assert len(scales) == 4
    assert all((tensor == 0.1).all() for tensor in scales)


def test_mobilevit_keeps_the_scale_of_a_trained_network():
    spec = find_model("mobilevit-xx-small")
    model = build_source(spec)
    spreads = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == 0.1
            module.register_forward_hook(lambda module, args, output: spreads.append(output.std().item()))
    forward(model, example_inputs(spec, 1))
    assert len(spreads) == 32
    assert 0.5 < min(spreads) <= max(spreads) < 2
    half = model.to(torch.bfloat16)
    answers = forward(half, example_inputs(spec, 1).to(torch.bfloat16))
    assert answers.std() > 1e-2


def test_a_config_used_in_half_precision_leaves_no_trace():
    spec = find_model("deit-tiny-patch16-224")
    build_source(spec).half()
    assert {tensor.dtype for tensor in build_source(spec).parameters()} == {torch.float32}


def test_a_buffer_of_its_own_forbids_the_meta_device(monkeypatch):
    """A release of transformers may compute a buffer when a model is made; its values must survive."""
    spec = find_model("deit-tiny-patch16-224")
    expected = digest(build_source(spec))

    class WithBuffer(ViTForImageClassification):
        def __init__(self, config) -> None:
            super().__init__(config)
            self.register_buffer("index", torch.arange(5.0), persistent=False)

    monkeypatch.setattr(f"transformers.{spec.architecture}", WithBuffer)
    before = torch.get_rng_state()
    model = build_source(spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.index.tolist() == [0, 1, 2, 3, 4]
    assert digest(model) == expected


def test_inputs():
    spec = find_model("mobilevit-small")
    images = example_inputs(spec, 3)
    assert (images.shape, images.dtype) == ((3, 3, 256, 256), torch.float32)
    assert images.mean().abs() < 0.01
    assert images.std() == pytest.approx(1, abs=0.01)
    with pytest.raises(SelectionError, match="batch 0"):
        example_inputs(spec, 0)


def test_digits_are_recognised():
    spec = find_model("vit-digits")
    images, labels = labelled_images(spec)
    assert (images.shape, images.dtype) == ((1000, 1, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((1000,), torch.int64)
    assert labels.bincount(minlength=10).min() > 80
    right = forward(build_source(spec), images).argmax(-1) == labels
    assert right.float().mean() >= 0.95


def test_digits_fit_every_precision_on_every_device():
    spec = find_model("vit-digits")
    for name, module in build_source(spec).named_modules():
        if type(module) is nn.Linear and name not in spec.heads:
            assert (module.in_features % 64, module.out_features % 64) == (0, 0)
    files = ("vit-digits.safetensors", "digits-heldout.safetensors")
    assert all((registry.DATA / file).stat().st_size < 1_000_000 for file in files)


def test_only_digits_are_labelled():
    assert labelled_images(find_model("mobilevit-small")) is None


def test_the_kind_of_weights():
    study, digits = find_model("dino-vits16"), find_model("vit-digits")
    mine = local_spec(lambda: nn.Flatten())
    asked = [(spec, weights) for spec in (study, digits, mine) for weights in ("random", "pretrained")]
    assert [weights_kind(*each) for each in asked] == ["random", "pretrained", "trained", "trained", "local", "local"]
    for call in (weights_kind, build_source):
        with pytest.raises(SelectionError, match="'trained' do not exist: choose random or pretrained"):
            call(study, "trained")


def test_a_users_model_is_taken_as_it_is():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Dropout(), nn.Linear(48, 5))
    spec = local_spec(lambda: net)
    built = build_source(spec, "pretrained")
    assert built is net
    assert not any(module.training for module in built.modules())
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert forward(built, example_inputs(spec, 2)).shape == (2, 5)


def fails():
    raise KeyError("no such file")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (fails, r"my-net: its function fails raised KeyError: 'no such file'"),
        (lambda: None, r"my-net: its function .* returned a NoneType; it must return a torch.nn.Module"),
        (lambda: nn.Linear, r"returned a type"),
        (lambda: nn.Linear(2, 2).half(), r"my-net: .* made weight torch.float16; return a model in FP32"),
        (lambda: nn.Linear(2, 2, device="meta"), r"my-net: .* put weight on meta; return the model on the CPU"),
        (lambda: nn.BatchNorm1d(2, affine=False).double(), r"made running_mean torch.float64"),
        (lambda: nn.LazyLinear(2), r"left weight without a shape; run one forward pass"),
    ],
)
def test_a_users_model_that_cannot_be_measured(build, message):
    with pytest.raises(BuildError, match=message):
        build_source(local_spec(build))


def test_the_cause_of_a_users_failure_is_kept():
    with pytest.raises(BuildError) as caught:
        build_source(local_spec(fails))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_users_random_weights_are_the_same_at_every_precision():
    spec = local_spec(lambda: nn.Linear(8, 8))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_source(spec)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(build_source(spec).weight, first.weight)


def test_a_users_model_has_no_shapes_without_weights():
    with pytest.raises(BuildError, match="use build_source"):
        build_meta(local_spec(nn.Flatten))


def test_a_buffer_of_integers_is_no_error():
    net = nn.Flatten()
    net.register_buffer("index", torch.arange(3))
    assert build_source(local_spec(lambda: net)) is net


LOGITS, POOLED, HIDDEN = torch.ones(2, 10), torch.ones(2, 4) * 2, torch.arange(24.0).view(2, 3, 4)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (LOGITS, LOGITS),
        (ImageClassifierOutput(logits=LOGITS), LOGITS),
        (BaseModelOutputWithPooling(last_hidden_state=HIDDEN, pooler_output=POOLED), POOLED),
        (BaseModelOutputWithPooling(last_hidden_state=HIDDEN, pooler_output=None), HIDDEN[:, 0]),
        (BaseModelOutput(last_hidden_state=HIDDEN), HIDDEN[:, 0]),
    ],
)
def test_output_tensor(output, expected):
    assert torch.equal(output_tensor(output), expected)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((LOGITS, LOGITS), "returned a tuple.*return one tensor"),
        ({"logits": LOGITS}, "returned a dict"),
        (None, "returned a NoneType"),
        (BaseModelOutput(hidden_states=(HIDDEN,)), "has hidden_states: none of logits"),
    ],
)
def test_output_that_is_a_guess_is_refused(output, message):
    with pytest.raises(OutputError, match=message):
        output_tensor(output)


def test_specs_are_not_changed_by_building():
    spec = find_model("vit-digits")
    first, second = build_source(spec), build_source(spec)
    assert dataclasses.asdict(spec) == dataclasses.asdict(find_model("vit-digits"))
    assert isinstance(first.config, ViTConfig)
    assert first.config is not second.config
