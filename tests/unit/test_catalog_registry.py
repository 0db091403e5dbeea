"""The registry: which models there are, what a selection means, and what cannot be registered."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from pytest_vq.catalog.models import STUDY, all_models, find_model, isolated, register_model, select_models
from pytest_vq.errors import RegistrationError, SelectionError


@pytest.fixture(autouse=True)
def own_registry():
    with isolated():
        yield


def register(name="my-net", input_shape=(3, 8, 8), **kwargs):
    def build():
        return None

    return register_model(name, input_shape=input_shape, **kwargs)(build)


def names(text, *, accelerator=False):
    return [spec.name for spec in select_models(text, accelerator=accelerator)]


CPU_DEFAULT = [
    "dino-vits16",
    "deit-small-distilled-patch16-224",
    "mobilevit-small",
    "mobilevit-xx-small",
    "deit-tiny-patch16-224",
    "vit-digits",
]


def test_importing_the_catalog_loads_no_torch():
    code = (
        "import sys, pytest_vq.catalog.models as c; c.all_models(); c.select_models('all', accelerator=True); "
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sixteen_in_the_order_of_the_study_then_digits_then_the_users():
    register()
    assert list(all_models()) == [*STUDY, "vit-digits", "my-net"]
    assert len(STUDY) == 16
    assert STUDY[0] == "vit-huge-patch14-224-in21k"
    assert STUDY[-1] == "vit-base-patch32-224-in21k"


def test_a_name_is_its_checkpoints_without_the_organisation():
    for name in STUDY:
        spec = find_model(name)
        assert spec.checkpoint is not None
        assert spec.checkpoint.split("/")[1] == name
        assert not spec.is_local


def test_six_categories_of_the_study():
    assert {find_model(name).category for name in STUDY} == {
        "foundation",
        "self-supervised",
        "masked-autoencoder",
        "production",
        "edge",
        "specialized",
    }


def test_get_names_the_nearest():
    with pytest.raises(SelectionError, match=r"'vit-base-patch16-385'.*vit-base-patch16-384.*pytest-vq models"):
        find_model("vit-base-patch16-385")


@pytest.mark.parametrize(
    ("text", "accelerator", "expected"),
    [
        ("study", False, list(STUDY)),
        ("all", False, [*STUDY, "vit-digits"]),
        ("default", True, [*STUDY, "vit-digits"]),
        ("default", False, CPU_DEFAULT),
        ("vit-digits,mobilevit-*", False, ["mobilevit-small", "mobilevit-xx-small", "vit-digits"]),
        (" dino-vits16 , dino-*,dino-vits16,", False, ["dino-vitb16", "dino-vits16"]),
        ("*-[bl]*-patch16-384", False, ["vit-base-patch16-384", "deit-base-distilled-patch16-384"]),
        ("default,vit-huge*", False, ["vit-huge-patch14-224-in21k", *CPU_DEFAULT]),
    ],
)
def test_select(text, accelerator, expected):
    assert names(text, accelerator=accelerator) == expected


def test_users_models_are_local_and_in_all_but_not_in_default():
    register("my-net")
    register("other")
    assert names("local") == ["my-net", "other"]
    assert names("my-*,vit-digits") == ["vit-digits", "my-net"]
    assert names("all")[-2:] == ["my-net", "other"]
    assert "my-net" not in names("default", accelerator=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vit-digit", r"'vit-digit'; the nearest are vit-digits.*pytest-vq models"),
        ("vit-digits,vit-hug", r"'vit-hug'; the nearest are vit-huge-patch14-224-in21k"),
        ("studdy", r"'studdy'.*study"),
        ("dinov3-*", r"'dinov3-\*'.*dinov2-"),
        ("VIT-DIGITS", r"'VIT-DIGITS'"),
        ("", r"no model is named in ''"),
        (" , ", r"no model is named"),
        ("local", r"no model is registered locally.*register_model\("),
    ],
)
def test_select_refuses_what_matches_nothing(text, message):
    with pytest.raises(SelectionError, match=message):
        select_models(text, accelerator=False)


def test_a_registered_model():
    build = register("My.Net_2+a", (1, 16, 32), head="head", min_sqnr_db={"int4": 5.0})
    spec = find_model("My.Net_2+a")
    assert spec.is_local
    assert spec.build is build
    assert (spec.category, spec.architecture) == ("local", "register.<locals>.build")
    assert (spec.input_shape, spec.parameters, spec.heads) == ((1, 16, 32), None, ("head",))
    assert spec.min_sqnr_db == {"int4": 5.0}
    assert spec.checkpoint is None


def test_a_model_without_a_head_has_none():
    register()
    assert find_model("my-net").heads == ()


@pytest.mark.parametrize("name", ["", "a,b", "a/b", "a[b]", "a*", "a?", "a b", "a\n", "-a", ".a", "é", "x" * 101])
def test_unusable_names(name):
    with pytest.raises(RegistrationError, match="test id and a file name"):
        register(name)


@pytest.mark.parametrize("name", ["study", "local", "all", "default"])
def test_reserved_names(name):
    with pytest.raises(RegistrationError, match="already means a group"):
        register(name)


@pytest.mark.parametrize(
    "shape", [(), (3, 8), (1, 3, 8, 8), (3, 0, 8), (3, -8, 8), (3, 8.0, 8), ("3", 8, 8), (True, 8, 8), 8, None]
)
def test_impossible_shapes(shape):
    with pytest.raises(RegistrationError, match="not three positive integers"):
        register(input_shape=shape)


def test_a_name_of_the_catalog_is_taken():
    with pytest.raises(RegistrationError, match="'vit-digits' is already in the catalog"):
        register("vit-digits")


def test_two_functions_cannot_share_a_name():
    register("my-net")
    with pytest.raises(RegistrationError, match=r"two models are registered as 'my-net'.*register.*another"):

        @register_model("my-net", input_shape=(3, 8, 8))
        def another():
            return None


def test_the_same_function_may_come_again_from_a_second_import():
    first = register("my-net", (3, 8, 8))
    second = register("my-net", (3, 16, 16))
    assert first is not second
    assert find_model("my-net").build is second
    assert find_model("my-net").input_shape == (3, 16, 16)


def test_a_function_with_arguments_cannot_build():
    def build(size):
        return None

    with pytest.raises(RegistrationError, match=r"build must take no arguments.*size"):
        register_model("my-net", input_shape=(3, 8, 8))(build)
    register_model("my-net", input_shape=(3, 8, 8))(functools.partial(build, 3))
    assert find_model("my-net").is_local


def test_something_that_cannot_be_called_cannot_build():
    with pytest.raises(RegistrationError, match="not a function"):
        register_model("my-net", input_shape=(3, 8, 8))(object())  # type: ignore[type-var]


def test_isolated_restores_also_after_an_error():
    def fail():
        with isolated():
            register("temporary")
            raise RuntimeError

    register("kept")
    with pytest.raises(RuntimeError):
        fail()
    assert list(all_models())[17:] == ["kept"]


def test_no_revision_is_made_up():
    for spec in all_models().values():
        assert spec.revision is None or len(spec.revision) == 40


def test_mobilevit_has_its_own_fidelity_bound_at_int4():
    own = {name: spec.min_sqnr_db for name, spec in all_models().items() if spec.min_sqnr_db}
    assert own == {"mobilevit-small": {"int4": 4.0}, "mobilevit-xx-small": {"int4": 4.0}}


def test_two_partials_are_two_functions():
    def build(size):
        return None

    register_model("my-net", input_shape=(3, 8, 8))(functools.partial(build, 3))
    with pytest.raises(RegistrationError, match="two models are registered"):
        register_model("my-net", input_shape=(3, 8, 8))(functools.partial(build, 4))
