"""``pytest-vq choose`` and its recipe in a user's project, whose model is registered in its conftest.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vq.cli import choose_command
from pytest_vq.cli.main import main
from pytest_vq.schema.choice import Choice, ChoiceAnswer

FIRST = "body.1"
RECIPE = {"schema_version": 1, "model": "my-net", "rest": "fp32", "layers": {FIRST: "int8"}}


@pytest.fixture
def recipe(project: pytest.Pytester) -> Path:
    path = project.path / "own.json"
    path.write_text(json.dumps(RECIPE))
    return path


class TestChoosing:
    def test_a_registered_model_gets_a_recipe(
        self,
        cold_start: None,
        project: pytest.Pytester,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(project.mkdir("elsewhere"))
        arguments = ["--schemes", "int8", "--min-sqnr-db", "20", "--target", "size", "--budget", "0.05"]
        code = main(["choose", "my-net", *arguments, "--rootdir", str(project.path), "--output", "small.json"])
        told = capfd.readouterr()
        assert code == 0, told.err
        recipe = json.loads(Path("small.json").read_text())
        assert (recipe["model"], recipe["layers"]) == ("my-net", {"body.1": "int8", "body.3": "int8"})
        assert recipe["chosen_for"]["min_sqnr_db"] == 20
        assert recipe["measured"]["sqnr_db"] >= 20
        assert "chosen: int8" in told.out
        assert "noise of layer 2 of 2, body.3" in told.err  # as it goes
        assert not list(project.path.glob("vq-results"))

    def test_wrong_usage_exits_with_2_and_its_reason(
        self, project: pytest.Pytester, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as raised:
            main(["choose", "my-nut", "--schemes", "int8", "--min-sqnr-db", "20", "--rootdir", str(project.path)])
        assert raised.value.code == 2
        assert "no model matches 'my-nut'; the nearest are my-net" in capfd.readouterr().err

    def test_without_a_recipe_none_is_written_and_it_exits_with_3(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        found = Choice(None, "fp32", "nothing but FP32 is within the budget", ())
        monkeypatch.setattr(choose_command, "_answer", lambda args, request: ChoiceAnswer(found, code=3))
        assert main(["choose", "my-net", "--schemes", "int8", "--min-sqnr-db", "150"]) == 3
        assert "chosen: nothing: nothing but FP32 is within the budget" in capsys.readouterr().out
        assert not list(tmp_path.iterdir())

    def test_an_error_while_choosing_exits_with_1(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = ChoiceAnswer(error="my-net: out of memory", code=1)
        monkeypatch.setattr(choose_command, "_answer", lambda args, request: answer)
        assert main(["choose", "my-net", "--schemes", "int8", "--min-sqnr-db", "30"]) == 1
        assert capsys.readouterr().err == "pytest-vq: error: my-net: out of memory\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--min-sqnr-db", "20"],
            ["--schemes", "int8"],
            ["--schemes", "int8", "--min-sqnr-db", "20", "--min-top1", "0.9"],
            ["--schemes", "int8", "--min-top1", "1.5"],
            ["--schemes", "int8", "--min-sqnr-db", "nan"],
            ["--schemes", "int8", "--min-sqnr-db", "20", "--target", "speed"],
            ["--schemes", "int8", "--min-sqnr-db", "20", "--batch", "0"],
            ["--schemes", "int8", "--min-sqnr-db", "20", "--budget", "0"],
        ],
    )
    def test_what_cannot_be_meant_exits_with_2(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            main(["choose", "my-net", *arguments])
        assert raised.value.code == 2


class TestMeasuring:
    def test_it_is_measured_stored_and_gated_like_any_precision(
        self, project: pytest.Pytester, recipe: Path, rows: Callable[..., list[dict[str, str]]]
    ) -> None:
        saved = project.runpytest_inprocess("--vq-precisions=fp32,recipe:own.json", "--vq-save", "--vq-gate=off")
        assert saved.ret == 0
        row = rows()[1]
        assert (row["precision"], row["method"]) == ("recipe-own", "mixed: 1 int8, 1 fp32, fp32 rest")
        assert (row["quantized_layers"], row["eligible_layers"]) == ("1", "2")
        (stored,) = project.path.glob("baselines/*/my-net.json")
        setups = [entry["setup"] for entry in json.loads(stored.read_text())["entries"]]
        assert ["recipe" in setup for setup in setups] == [False, True]
        recipe.write_text(json.dumps(RECIPE | {"layers": {FIRST: "fp16"}}))
        result = project.runpytest_inprocess("--vq-precisions=recipe:own.json", "--vq-gate=report")
        assert result.ret == 0
        assert rows()[0]["verdict"] == "INCOMPARABLE"
        assert re.search(r"recipe [0-9a-f]{64} here, [0-9a-f]{64} in the baseline", rows()[0]["reason"])

    def test_it_reaches_xdist_s_workers(
        self, project: pytest.Pytester, recipe: Path, study: Callable[..., dict[str, object]]
    ) -> None:
        # Started from below the root, where the file is found by a path that is relative to there.
        below = project.mkdir("below")
        words = ["--rootdir=..", "..", "-n1", "--vq-precisions=recipe:../own.json", "--vq-gate=off"]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *words, "--vq-output=../vq-results"],
            cwd=below,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout
        (row,) = study()["records"]  # type: ignore[misc]
        assert row["precision"] == "recipe-own"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "*cannot read the recipe */own.json: No such file*"),
            ("{", "*the recipe */own.json is not JSON*"),
            (json.dumps(RECIPE | {"schema_version": 99}), "*own.json has schema version 99*upgrade pytest-vq*"),
            (" " * (2**20 + 1), "*own.json is not a recipe: it is longer than 1 MiB*"),
            (
                json.dumps(RECIPE | {"model": "vit-digits"}),
                "*recipe-own is a recipe for the model vit-digits, not for*",
            ),
        ],
    )
    def test_what_cannot_be_measured_exits_with_4(
        self, project: pytest.Pytester, recipe: Path, content: str | None, message: str
    ) -> None:
        if content is None:
            recipe.unlink()
        else:
            recipe.write_text(content)
        result = project.runpytest_inprocess("--vq-precisions=recipe:own.json")
        assert result.ret == 4
        result.stderr.fnmatch_lines([message])

    def test_an_unknown_layer_fails_the_test_that_measures_it(self, project: pytest.Pytester, recipe: Path) -> None:
        recipe.write_text(json.dumps(RECIPE | {"layers": {"body.9": "int8"}}))
        result = project.runpytest_inprocess("--vq-precisions=recipe:own.json")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*recipe-own: the model has no linear layer 'body.9' outside its head*"])
