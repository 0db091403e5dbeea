"""A user's own precisions and executions in whole runs: docs/your-own.md as it stands, wrong names, other processes."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_vq.execution import own_executions
from pytest_vq.precision import own_precisions
from pytest_vq.processes.command import clean_environment

PAGE = (Path(__file__).parents[2] / "docs" / "your-own.md").read_text(encoding="utf-8")

Rows = dict[tuple[str, str], dict[str, str]]

ROW8 = """
    class RowLinear(nn.Module):
        def __init__(self, linear, copier):
            super().__init__()
            weight = linear.weight.detach()
            scales = weight.abs().amax(dim=1, keepdim=True) / 127
            self.register_buffer("codes", (weight / scales).round().to(copier.device, torch.int8))
            self.register_buffer("scales", scales.to(copier.device, copier.dtype))
            self.bias = copier.parameter(linear.bias)

        def forward(self, x):
            spend(quantized=True)
            return nn.functional.linear(x, self.codes.to(x.dtype) * self.scales, self.bias)


    @pytest_vq.register_precision("row8", max_bits=8, min_sqnr_db={floor})
    def row_layer(linear, copier):
        return RowLinear(linear, copier)
"""


@pytest.fixture(autouse=True)
def own_registries() -> Iterator[None]:
    with own_precisions.isolated(), own_executions.isolated():
        yield


def add(project: pytest.Pytester, text: str) -> None:
    """Append ``text`` to the project's conftest.py."""
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "\n\n" + dedent(text))


@pytest.fixture(scope="module")
def page_rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What the commands of the page measure, in an empty directory: (model, scheme) -> row."""
    folder = tmp_path_factory.mktemp("page")
    files: dict[str, list[str]] = defaultdict(list)
    for name, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL):
        files[name].append(code)
    assert sorted(files) == ["conftest.py", "test_precision.py"]
    for name, pieces in files.items():
        (folder / name).write_text("\n\n".join(pieces), encoding="utf-8")
    (folder / "locks").mkdir()
    environment = clean_environment() | {"TMPDIR": str(folder / "locks")}
    found = {}
    commands = re.findall(r"^pytest (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for number, options in enumerate(commands):
        output = folder / f"results-{number}"
        command = [sys.executable, "-m", "pytest", *options.split(), "--vq-budget=0.1", f"--vq-output={output}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        with (output / "results.csv").open(newline="") as file:
            found |= {(r["model"], f"{r['precision']}+{r['execution']}"): r for r in csv.DictReader(file)}
    return found


class TestThePage:
    """docs/your-own.md, copied into an empty directory and run as it says."""

    def test_every_pair_is_a_row(self, page_rows: Rows) -> None:
        schemes = ("fp32+eager", "fp32+onnx", "int8+eager", "row8+eager", "ort-int8+eager")
        cameras = ("fp32+eager", "int8+eager", "row8+eager")
        assert set(page_rows) == {("my-net", name) for name in schemes} | {("my-cameras", name) for name in cameras}
        assert all(float(row["latency_ms"]) > 0 for row in page_rows.values())

    def test_the_layer_builder(self, page_rows: Rows) -> None:
        row = page_rows["my-net", "row8+eager"]
        assert (row["quantized_layers"], row["eligible_layers"]) == ("2", "2")
        assert 25 < float(row["sqnr_db"]) < 70

    def test_the_program(self, page_rows: Rows) -> None:
        row = page_rows["my-net", "ort-int8+eager"]
        assert row["method"] == "ONNX Runtime, dynamic INT8, not inspectable"
        assert (row["quantized_layers"], row["eligible_layers"]) == ("", "")
        assert 25 < float(row["sqnr_db"]) < 70
        assert 90_000 < int(row["model_size_bytes"]) < int(page_rows["my-net", "fp32+eager"]["model_size_bytes"]) / 2

    def test_the_execution(self, page_rows: Rows) -> None:
        row = page_rows["my-net", "fp32+onnx"]
        assert float(row["sqnr_db"]) > 100
        assert float(row["prepare_s"]) > 0

    def test_the_model_of_two_inputs(self, page_rows: Rows) -> None:
        row = page_rows["my-cameras", "row8+eager"]
        assert 25 < float(row["sqnr_db"]) < 70
        assert float(row["accuracy"]) * 64 == round(float(row["accuracy"]) * 64)
        assert float(row["top1_agreement"]) > 0.5


class TestNames:
    CASES = (
        (("--vq-precisions=row9",), "no precision 'row9': did you mean row8*"),
        (("--vq-precisions=row8+mime", "-n1"), "no execution 'mime': did you mean mine*"),
        (("--vq-precisions=r0w*",), "no scheme matches 'r0w*'*"),
    )

    @pytest.mark.parametrize(("arguments", "words"), CASES, ids=[" ".join(case[0]) for case in CASES])
    def test_an_unknown_one_is_refused_with_users_among_the_nearest(
        self, project: pytest.Pytester, arguments: tuple[str, ...], words: str
    ) -> None:
        add(project, ROW8.format(floor=20))
        add(project, '@pytest_vq.register_execution("mine")\ndef prepare(converted, inputs):\n    ...\n')
        result = project.runpytest_inprocess(*arguments)
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: {words}"])

    def test_an_unknown_one_is_refused_also_where_no_test_takes_pairs(self, project: pytest.Pytester) -> None:
        project.makepyfile(test_my_bench="def test_kernel(vq_gate):\n    vq_gate(sum, [1])\n")
        result = project.runpytest_inprocess("--vq-precisions=int9")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: no precision 'int9': did you mean int8*"])

    def test_a_conftest_below_may_register_too(self, project: pytest.Pytester, rows) -> None:
        below = project.mkdir("below")
        head, code = (project.path / "conftest.py").read_text(), ROW8.format(floor=20)
        (below / "conftest.py").write_text("from conftest_above import *\n\n" + dedent(code))
        (project.path / "conftest_above.py").write_text(
            head.replace("@pytest_vq.register_model", "# @") + "\nimport pytest_vq\n"
        )
        (project.path / "test_my_bench.py").rename(below / "test_my_bench.py")
        assert project.runpytest_inprocess("--vq-precisions=row8", "--vq-budget=0.1").ret == 0
        assert [row["precision"] for row in rows()] == ["row8"]

    def test_a_floor_for_no_precision_is_refused(self, project: pytest.Pytester) -> None:
        add(project, 'pytest_vq.register_model("other", input_shape=(3, 16, 16), min_sqnr_db={"int9": 3})(Net)\n')
        result = project.runpytest_inprocess("--vq-models=other")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: min_sqnr_db of the model other: no precision 'int9': did you mean int8*"])

    def test_two_pairs_of_one_id_are_refused(self, project: pytest.Pytester) -> None:
        add(project, ROW8.format(floor=20).replace('"row8"', '"net-int8"'))
        add(project, 'pytest_vq.register_model("my", input_shape=(3, 16, 16))(Net)\n')
        result = project.runpytest_inprocess("--vq-precisions=int8,net-int8")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: two pairs are called my-net-int8: my-net at int8, and my at net-int8;*"])


class TestGating:
    def test_it_is_stored_gated_and_reported_by_every_process(self, steady: pytest.Pytester, rows) -> None:
        add(steady, ROW8.format(floor=20))
        row8 = ("--vq-precisions=row8",)
        assert steady.runpytest_inprocess(*row8, "--vq-save").ret == 0
        assert steady.runpytest_subprocess(*row8, "-n1", "--vq-report").ret == 0
        assert [(row["precision"], row["verdict"]) for row in rows()] == [("row8", "PASS")]
        assert "row8" in (steady.path / "vq-results" / "report" / "report.md").read_text(encoding="utf-8")
        (steady.path / "burden_ms").write_text("20")
        result = steady.runpytest_inprocess(*row8)  # and, in doubt, in a fresh process
        assert result.ret == 1
        assert [row["verdict"] for row in rows()] == ["FAIL"]
        assert "3 fresh" in rows()[0]["reason"]

    def test_its_floor_holds(self, steady: pytest.Pytester, rows) -> None:
        add(steady, ROW8.format(floor=90))
        assert steady.runpytest_inprocess("--vq-precisions=row8").ret == 1
        assert rows()[0]["verdict"] == "FAIL"
        assert "90" in rows()[0]["reason"]

    def test_an_unquantized_model_under_a_users_name_fails(self, steady: pytest.Pytester) -> None:
        add(
            steady,
            """
            @pytest_vq.register_precision("cheap8", max_bits=8, min_sqnr_db=20)
            def layer(linear, copier):
                same = nn.Linear(linear.in_features, linear.out_features)
                same.load_state_dict(linear.state_dict())
                return same.to(copier.device, copier.dtype)
            """,
        )
        result = steady.runpytest_inprocess("--vq-precisions=cheap8")
        assert result.ret == 1
        result.stdout.fnmatch_lines(
            ["*PrecisionError: cheap8: the layer body.1 is not what it should be: it holds weight*"]
        )
