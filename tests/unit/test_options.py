"""Options from the command line and the ini file: read once, refused by name."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from pytest_vq.errors import SelectionError
from pytest_vq.options import OPTIONS, Options, read_options
from pytest_vq.schema.shard import Shard


@pytest.fixture
def read(pytester: pytest.Pytester):
    """The options of a run with the given ini lines and arguments."""

    def options(*arguments: str, ini: str = "") -> Options:
        pytester.makeini(f"[pytest]\n{ini}\n")
        return read_options(pytester.parseconfig(*arguments))

    return options


def test_the_defaults_are_the_contracts(read, pytester) -> None:
    options = read()
    assert options == Options(
        gpu=False,
        models=None,
        precisions="fp32,fp16,int8,int4",
        batch=(1,),
        weights="random",
        protocol="adaptive",
        budget=None,
        threads=1,
        save=False,
        baselines=pytester.path / "baselines",
        gate="fail",
        strict=False,
        output=pytester.path / "vq-results",
        runs=1,
        report=False,
        resume=False,
        serving=False,
        search=False,
        shard=Shard(1, 1),
    )


def test_every_field_has_one_option() -> None:
    assert [option.field for option in OPTIONS] == [field.name for field in fields(Options)]
    assert all(option.name == "gpu" or option.name.startswith("vq-") for option in OPTIONS)


VALUES = [
    ("gpu", None, "true", "gpu", True),
    ("vq-models", "vit-*,local", "vit-*,local", "models", "vit-*,local"),
    ("vq-precisions", "int8", "int8", "precisions", "int8"),
    ("vq-batch", "8,1,8", "8, 1, 8", "batch", (8, 1)),
    ("vq-weights", "pretrained", "pretrained", "weights", "pretrained"),
    ("vq-protocol", "study", "study", "protocol", "study"),
    ("vq-budget", "0.5", "0.5", "budget", 0.5),
    ("vq-threads", "2", "2", "threads", 2),
    ("vq-save", None, "yes", "save", True),
    ("vq-gate", "report", "report", "gate", "report"),
    ("vq-strict", None, "1", "strict", True),
    ("vq-runs", "3", "3", "runs", 3),
    ("vq-report", None, "on", "report", True),
    ("vq-resume", None, "on", "resume", True),
    ("vq-shard", "2/3", " 2/3 ", "shard", Shard(2, 3)),
]


@pytest.mark.parametrize(("name", "argument", "ini", "field", "expected"), VALUES, ids=[v[0] for v in VALUES])
def test_a_value_from_either_source(read, name, argument, ini, field, expected) -> None:
    given = f"--{name}" if argument is None else f"--{name}={argument}"
    assert getattr(read(given), field) == expected
    assert getattr(read(ini=f"{name.replace('-', '_')} = {ini}"), field) == expected


def test_the_command_line_wins_over_the_ini(read) -> None:
    assert read("--vq-batch=2", ini="vq_batch = 4\nvq_threads = 3") == read("--vq-batch=2", "--vq-threads=3")


@pytest.mark.parametrize("word", ["false", "no", "0", "off", "OFF", ""])
def test_an_ini_switch_can_be_off(read, word: str) -> None:
    assert read(ini=f"vq_strict = {word}").strict is False


def test_paths_are_relative_to_where_one_is_or_to_the_root_of_the_ini(pytester, monkeypatch) -> None:
    pytester.makeini("[pytest]\nvq_output = from-ini\n")
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    options = read_options(pytester.parseconfig("--vq-baselines=from-line", f"--rootdir={pytester.path}"))
    assert options.baselines == below / "from-line"
    assert options.output == pytester.path / "from-ini"
    assert read_options(pytester.parseconfig("--vq-output=/abs")).output.as_posix() == "/abs"


BAD = [
    ("vq-batch", "0", "smallest valid one is 1"),
    ("vq-batch", "-3", "smallest valid one is 1"),
    ("vq-batch", "eight", "'eight' is not a whole number"),
    ("vq-batch", "1.5", "'1.5' is not a whole number"),
    ("vq-batch", "1,,2", "'' is not a whole number"),
    ("vq-budget", "0", "no time to measure in"),
    ("vq-budget", "-1", "no time to measure in"),
    ("vq-budget", "nan", "no time to measure in"),
    ("vq-budget", "long", "'long' is not a number of seconds"),
    ("vq-threads", "0", "smallest valid one is 1"),
    ("vq-threads", "all", "'all' is not a whole number"),
    ("vq-runs", "0", "smallest valid one is 1"),
    ("vq-gate", "fial", "did you mean 'fail'?"),
    ("vq-gate", "", "none of fail, report, off"),
    ("vq-protocol", "adaptve", "did you mean 'adaptive'?"),
    ("vq-weights", "pretraind", "did you mean 'pretrained'?"),
    ("vq-models", " , ", "it is empty"),
    ("vq-precisions", "", "it is empty"),
    ("vq-output", "", "it is empty"),
    ("vq-shard", "0/3", "there is no shard 0/3"),
    ("vq-shard", "4/3", "there is no shard 4/3"),
    ("vq-shard", "1", "is no shard"),
    ("vq-shard", "x", "is no shard"),
    ("vq-baselines", "", "it is empty"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_a_bad_value_is_refused_by_name_from_either_source(read, name: str, value: str, words: str) -> None:
    with pytest.raises(SelectionError, match=f"^--{name}: ") as error:
        read(f"--{name}={value}")
    assert words in str(error.value)
    key = name.replace("-", "_")
    with pytest.raises(SelectionError, match=f"^ini key {key}: ") as error:
        read(ini=f"{key} = {value}")
    # pytest strips an ini value; what is said of it is the same otherwise.
    assert words in str(error.value)


@pytest.mark.parametrize("key", ["gpu", "vq_save", "vq_strict"])
def test_an_ini_switch_is_true_or_false(read, key: str) -> None:
    with pytest.raises(SelectionError, match=f"^ini key {key}: 'maybe' is neither true nor false"):
        read(ini=f"{key} = maybe")


def test_budgets_by_device_and_protocol() -> None:
    assert Options().budget_s == 4
    assert Options(gpu=True).budget_s == 10
    assert math.isinf(Options(protocol="study").budget_s)
    assert Options(protocol="study", gpu=True, budget=2.0).budget_s == 2


def test_options_are_plain_values_for_the_study(read) -> None:
    import json

    stored = json.loads(json.dumps(read("--vq-batch=1,8", "--vq-save").to_json()))
    assert stored["batch"] == [1, 8]
    assert stored["save"] is True
    assert stored["output"].endswith("vq-results")
