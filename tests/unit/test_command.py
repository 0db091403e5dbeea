"""The command line of a pytest in a process of its own: read there, it gives the options and the selection of here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pytest_vq.options import OPTIONS, Option, Options, read_options
from pytest_vq.plugin.session import VqSession
from pytest_vq.processes.command import Invocation, all_of, clean_environment, pytest_command, ungated
from pytest_vq.schema.shard import Shard

OTHER: dict[str, Any] = {
    "gpu": True,
    "models": "vit-*,local",
    "precisions": "int8,fp32",
    "batch": (8, 1),
    "weights": "pretrained",
    "protocol": "study",
    "budget": 0.1 + 0.2,
    "threads": 3,
    "save": True,
    "baselines": Path("/somewhere else/baselines"),
    "gate": "report",
    "strict": True,
    "output": Path("/somewhere else/results"),
    "runs": 5,
    "report": True,
    "resume": True,
    "serving": True,
    "search": True,
    "shard": Shard(2, 3),
}
# Valid for every option, and another value than above.
INI = """\
gpu = {switch}
vq_models = study
vq_precisions = int4
vq_batch = 2
vq_weights = random
vq_protocol = adaptive
vq_budget = 7
vq_threads = 2
vq_save = {switch}
vq_baselines = ini-baselines
vq_gate = off
vq_strict = {switch}
vq_output = ini-results
vq_runs = 2
vq_report = {switch}
vq_resume = {switch}
vq_serving = {switch}
vq_search = {switch}
vq_shard = 3/4
"""
CHANGED = [pytest.param(field, value, id=field) for field, value in OTHER.items()]


def words_of(given: dict[str, Any]) -> list[str]:
    """What the command line has beyond python, pytest and no target."""
    words = pytest_command([], given)
    assert words[:3] == [sys.executable, "-m", "pytest"]
    return words[3:]


@pytest.fixture
def reread(pytester: pytest.Pytester) -> Callable[..., Options]:
    """The options that a pytest in a directory with these ini lines reads from a command line."""

    def read(words: list[str], ini: str = "") -> Options:
        pytester.makeini(f"[pytest]\n{ini}")
        return read_options(pytester.parseconfig(*words))

    return read


class TestOptions:
    def test_every_option_has_another_value_here(self) -> None:
        assert list(OTHER) == [option.field for option in OPTIONS]
        assert [line.partition(" = ")[0] for line in INI.splitlines()] == [option.ini for option in OPTIONS]
        assert not [field.name for field in fields(Options) if OTHER[field.name] == field.default]

    @pytest.mark.parametrize(("field", "value"), CHANGED)
    def test_each_is_read_back(self, reread, field: str, value: Any) -> None:
        assert reread(words_of({field: value})) == replace(reread([]), **{field: value})

    def test_all_of_them_are_read_back_whatever_the_ini_file_says(self, reread) -> None:
        words = words_of(all_of(Options(**OTHER)))
        assert reread(words, INI.format(switch="false")) == Options(**OTHER)

    def test_switches_that_are_off_stay_off_whatever_the_ini_file_says(self, reread) -> None:
        off = replace(Options(**OTHER), gpu=False, save=False, strict=False)
        assert reread(words_of(all_of(off)), INI.format(switch="true")) == off

    def test_options_read_from_an_ini_file_are_read_back_where_there_is_none(self, reread) -> None:
        from_ini = reread([], INI.format(switch="true"))
        assert reread(words_of(all_of(from_ini))) == from_ini

    def test_the_defaults_are_read_back(self, reread) -> None:
        defaults = reread([])
        assert reread(words_of(all_of(defaults))) == defaults

    def test_what_is_not_given_is_left_to_the_other_process(self, reread) -> None:
        assert words_of({}) == []
        assert reread(words_of({"runs": 1}), "vq_threads = 2\nvq_runs = 4\n") == replace(reread([]), threads=2, runs=1)

    def test_a_new_option_needs_nothing_here(self, pytester, monkeypatch) -> None:
        every = (*OPTIONS, Option("vq-colour", "colour", str, "a new one", "NAME"))
        monkeypatch.setattr("pytest_vq.options.OPTIONS", every)
        monkeypatch.setattr("pytest_vq.processes.command.OPTIONS", every)
        words = words_of({"colour": "deep blue", "threads": 2})
        assert words == ["--vq-threads=2", "--vq-colour=deep blue"]
        config = pytester.parseconfig(*words)
        assert config.getoption("vq_colour") == "deep blue"

    def test_a_field_that_no_option_has_is_an_error(self) -> None:
        with pytest.raises(KeyError, match="no option sets colour, shape"):
            pytest_command([], {"shape": "round", "threads": 2, "colour": "blue"})

    def test_a_process_that_only_measures_judges_records_starts_and_reports_nothing(self, reread) -> None:
        output = Path("/elsewhere")
        read = reread(words_of(all_of(Options(**OTHER)) | ungated(output)), INI.format(switch="true"))
        only_measures = {"gate": "off", "save": False, "runs": 1, "report": False, "resume": False}
        assert read == replace(Options(**OTHER), output=output, **only_measures)


def test_targets_come_first_then_the_words_given_then_the_options() -> None:
    python = Path("/other/bin/python")
    command = pytest_command(["a.py::test", "b.py"], {"gate": "off"}, arguments=["-k", "net"], python=python)
    assert command == ["/other/bin/python", "-m", "pytest", "a.py::test", "b.py", "-k", "net", "--vq-gate=off"]


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    return Invocation(
        directory=tmp_path,
        rootdir=tmp_path,
        inifile=None,
        import_mode="prepend",
        plugins=(),
        keyword="",
        markers="",
        deselected=(),
    )


class TestInvocation:
    def test_another_process_reads_the_same_selection_from_its_words(self, pytester: pytest.Pytester) -> None:
        pytester.syspathinsert()
        pytester.makepyfile(helpful_plugin="")
        below = pytester.mkdir("below")
        ini = pytester.path / "other.ini"
        ini.write_text("[pytest]\naddopts = -p no:unheard-of\n")
        words = ["-c", str(ini), f"--rootdir={below}", "--import-mode=importlib", "-p", "helpful_plugin"]
        words += ["-k", "net and not slow", "-m", "not gpu", "--deselect=a.py::test_a", "--deselect=a.py::test_b"]
        here = VqSession(pytester.parseconfig(*words), Options()).invocation
        assert (here.rootdir, here.inifile, here.import_mode) == (below, ini, "importlib")
        assert (here.keyword, here.markers) == ("net and not slow", "not gpu")
        assert here.deselected == ("a.py::test_a", "a.py::test_b")
        assert {"helpful_plugin", "no:unheard-of"} <= set(here.plugins)

        there = VqSession(pytester.parseconfig(*here.arguments()), Options()).invocation
        assert replace(there, plugins=()) == replace(here, plugins=())
        assert [name for name in there.plugins if not name.startswith("no:")] == ["helpful_plugin"]

    def test_plugins_that_were_switched_off_are_left_out(self, invocation: Invocation) -> None:
        words = replace(invocation, plugins=("mine", "no:unheard-of")).arguments()
        assert words[-2:] == ["-p", "mine"]
        assert "no:unheard-of" not in words

    def test_what_is_the_first_process_own_is_switched_off(self, invocation: Invocation) -> None:
        words = invocation.arguments()
        switched_off = [name for flag, name in pairwise(words) if flag == "-p"]
        assert switched_off == ["no:cacheprovider", "no:randomly", "no:xdist", "no:cov"]
        assert words[words.index("addopts=") - 1] == "-o"

    def test_what_was_not_given_is_not_repeated(self, invocation: Invocation) -> None:
        words = invocation.arguments()
        assert words[0] == f"--rootdir={invocation.rootdir}"
        assert {"-c", "-k", "-m"}.isdisjoint(words)
        assert not [word for word in words if word.startswith("--deselect")]


def test_the_environment_lacks_what_this_pytest_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "COV_CORE_SOURCE", "COVERAGE_PROCESS_START"):
        monkeypatch.setenv(name, "here")
    monkeypatch.setenv("COVER", "kept")
    cleaned = clean_environment()
    assert cleaned["COVER"] == "kept"
    assert [name for name in cleaned if name.startswith(("PYTEST_", "COV_CORE_", "COVERAGE_"))] == []
    assert cleaned.items() <= os.environ.items()
