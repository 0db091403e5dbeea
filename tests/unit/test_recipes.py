"""Recipes: read with a check of everything, selected like any precision, and a key of what is comparable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_entry, make_estimates, make_record, make_setup

from pytest_vq.catalog.models import find_model
from pytest_vq.errors import SelectionError
from pytest_vq.execution.schemes import find_scheme, refusal, select_schemes
from pytest_vq.options import read_options
from pytest_vq.processes.command import all_of, pytest_command
from pytest_vq.report.next_command import measure_again
from pytest_vq.schema.recipe import ChoiceFigures, Recipe, Wish
from pytest_vq.schema.spec import Case, Target, scheme_name
from pytest_vq.store.baseline_format import BaselineFile, decode, encode
from pytest_vq.store.recipes import MAX_BYTES, read_recipe, write_recipe

CPU = Target(is_accelerator=False)
FC1 = "vit.layers.0.mlp.fc1"
BY_HAND: dict[str, Any] = {"schema_version": 1, "model": "vit-digits", "rest": "fp32", "layers": {FC1: "int8wo"}}


def written(directory: Path, name: str = "mine.json", **changes: Any) -> Path:
    path = directory / name
    path.write_text(json.dumps(BY_HAND | changes))
    return path


class TestReading:
    def test_one_written_by_hand_needs_no_figures(self, tmp_path: Path) -> None:
        stored = read_recipe(written(tmp_path))
        assert stored.recipe == Recipe("vit-digits", "fp32", {FC1: "int8wo"})
        assert stored.sha256 == hashlib.sha256((tmp_path / "mine.json").read_bytes()).hexdigest()

    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        wish = Wish(("int8wo", "bf16"), target="size", min_sqnr_db=30.0)
        recipe = Recipe("m", "bf16", {"a": "bf16"}, wish, ChoiceFigures(sqnr_db=31.0), ChoiceFigures(latency_ms=1.5))
        write_recipe(tmp_path / "new" / "own.json", recipe)
        assert read_recipe(tmp_path / "new" / "own.json").recipe == recipe
        assert "min_top1" not in (tmp_path / "new" / "own.json").read_text()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is not JSON"),
            (b'{"schema_version": 1, "model": ', "is not JSON"),
            (b"\xff\xfe", "is not JSON"),
            (b"[]", "it has no schema_version"),
            (json.dumps(BY_HAND | {"schema_version": 2}).encode(), "has schema version 2, .* upgrade pytest-vq"),
            (json.dumps({"schema_version": 1}).encode(), "missing required field `model`"),
            (json.dumps(BY_HAND | {"layers": {"a": 8}}).encode(), "Expected `str`, got `int`"),
            (json.dumps(BY_HAND | {"layer": {}}).encode(), "it has no field 'layer'"),
            (b" " * (MAX_BYTES + 1), "longer than 1 MiB"),
        ],
    )
    def test_what_is_no_recipe_is_refused_by_its_name(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "bad.json"
        path.write_bytes(content)
        with pytest.raises(SelectionError, match=message) as raised:
            read_recipe(path)
        assert str(path) in str(raised.value)

    @pytest.mark.parametrize("name", ["absent.json", ".", "nul\0.json"])
    def test_what_cannot_be_read_is_refused_by_its_name(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SelectionError, match=f"cannot read the recipe {tmp_path}"):
            read_recipe(tmp_path / name)


class TestSelecting:
    def test_it_is_a_precision_of_its_file_s_name(self, tmp_path: Path) -> None:
        path = written(tmp_path)
        scheme = find_scheme(f"recipe:{path}")
        assert (scheme.name, scheme.execution.name) == ("recipe-mine", "eager")
        assert scheme.precision.mix is not None
        assert scheme.precision.mix.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert [part.name for part in scheme.precision.parts] == ["fp32", "int8wo"]
        assert find_scheme(f"recipe:{path}+compile").name == "recipe-mine+compile"

    def test_a_file_s_name_may_hold_a_plus(self, tmp_path: Path) -> None:
        directory = tmp_path / "a+b"
        directory.mkdir()
        assert find_scheme(f"recipe:{written(directory)}+compile+graph").name == "recipe-mine+compile+graph"

    def test_it_stands_behind_the_others_in_a_list(self, tmp_path: Path) -> None:
        selected = select_schemes(f"recipe:{written(tmp_path)},int8,fp32", CPU)
        assert [scheme.name for scheme in selected.schemes] == ["fp32", "int8", "recipe-mine"]

    def test_two_of_one_name_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        two = f"recipe:{written(tmp_path)},recipe:{written(tmp_path / 'other', rest='bf16')}"
        with pytest.raises(SelectionError, match="two recipes are called recipe-mine"):
            select_schemes(two, CPU)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rest": "int8"}, "the rest cannot be int8"),
            ({"rest": "tf32"}, "the rest cannot be tf32"),
            ({"layers": {FC1: "int9"}}, "no precision 'int9'"),
            ({"layers": {FC1: "tf32"}}, "no layer can have it by itself"),
        ],
    )
    def test_a_precision_that_cannot_be_is_refused(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        path = written(tmp_path, **changes)
        with pytest.raises(SelectionError, match=message) as raised:
            find_scheme(f"recipe:{path}")
        assert str(path) in str(raised.value)

    def test_a_name_that_cannot_be_part_of_a_test_id_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SelectionError, match="cannot be a recipe's file"):
            find_scheme(f"recipe:{written(tmp_path, 'my own.json')}")

    def test_it_runs_where_all_of_its_precisions_do(self, tmp_path: Path) -> None:
        path = written(tmp_path, layers={FC1: "fp8"})
        assert "FP8 needs an NVIDIA GPU" in refusal(find_scheme(f"recipe:{path}"), CPU)
        path = written(tmp_path, layers={FC1: "int8"})
        assert refusal(find_scheme(f"recipe:{path}"), CPU) == ""
        assert "LLM.int8" in refusal(find_scheme(f"recipe:{path}+compile"), CPU)

    def test_it_makes_no_case_of_another_model(self, tmp_path: Path) -> None:
        scheme = find_scheme(f"recipe:{written(tmp_path)}")
        assert Case(find_model("vit-digits"), scheme).id == "vit-digits-recipe-mine"
        with pytest.raises(SelectionError, match="recipe-mine is a recipe for the model vit-digits"):
            Case(find_model("deit-tiny-patch16-224"), scheme)

    def test_its_lower_bound_is_by_what_it_was_chosen_for(self, tmp_path: Path) -> None:
        wish = {"schemes": ["int8wo"], "min_sqnr_db": 30.0}
        chosen = find_scheme(f"recipe:{written(tmp_path, chosen_for=wish)}").precision
        by_hand = find_scheme(f"recipe:{written(tmp_path)}").precision
        assert (chosen.min_sqnr_db, by_hand.min_sqnr_db) == (28.5, find_scheme("int8wo").precision.min_sqnr_db)

    def test_its_path_is_made_absolute_with_the_options(self, pytester: pytest.Pytester) -> None:
        pytester.makeini("[pytest]\nvq_precisions = fp32,recipe:ours/a.json+compile\n")
        config = pytester.parseconfig()
        assert read_options(config).precisions == f"fp32,recipe:{pytester.path}/ours/a.json+compile"
        command = pytest_command([], all_of(read_options(config)))  # of a fresh process, started anywhere
        assert f"--vq-precisions=fp32,recipe:{pytester.path}/ours/a.json+compile" in command
        config = pytester.parseconfig("--vq-precisions=recipe:/b.json")
        assert read_options(config).precisions == "recipe:/b.json"


@pytest.mark.parametrize("execution", ["eager", "compile"])
def test_the_command_that_measures_it_again_names_its_file(execution: str) -> None:
    record = make_record("vit-digits", "recipe-mine")
    record = replace(record, setup=replace(record.setup, recipe="0a", execution=execution))
    given = scheme_name("recipe:/ours/mine.json", execution)
    command = measure_again(record, {"precisions": f"fp32,recipe:/ours/other.json,{given}"})
    assert f"--vq-precisions={given} " in command


class TestSetup:
    def test_a_changed_recipe_is_another_setup(self) -> None:
        setup = make_setup("recipe-mine")
        assert len({setup, replace(setup, recipe="0a"), replace(setup, recipe="0b")}) == 3

    def test_baselines_hold_it_and_those_without_are_as_they_were(self) -> None:
        entry = make_entry([make_estimates()])
        entries = [entry, replace(entry, setup=replace(entry.setup, recipe="0a"))]
        stored = BaselineFile("cpu", "CPU", "m", tuple(entries))
        data = encode(stored)
        assert data.count(b'"recipe"') == 1
        assert {entry.setup.recipe for entry in decode(data, Path("m.json")).entries} == {None, "0a"}
