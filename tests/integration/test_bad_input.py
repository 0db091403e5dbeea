"""What is wrong is said where it is seen, costs only its own pair, and loses nothing that was measured or stored."""

from __future__ import annotations

import json
import time
from textwrap import dedent

import pytest
import torch

from pytest_vq.catalog.models import find_model
from pytest_vq.files import lock_of


@pytest.fixture
def model(project: pytest.Pytester):
    """Add a model ``bad-net`` to the project: ``body`` is the text of its class or function, ``build`` builds it."""

    def add(body: str, name: str = "bad-net", build: str = "Bad()", options: str = 'head="head"') -> None:
        conftest = project.path / "conftest.py"
        function = name.replace("-", "_")
        conftest.write_text(
            f"{conftest.read_text()}\n\n{dedent(body)}\n\n"
            f'@pytest_vq.register_model("{name}", input_shape=(3, 16, 16), {options})\n'
            f"def build_{function}():\n    return {build}\n"
        )

    return add


def forward(lines: str) -> str:
    """A class ``Bad`` that is ``Net`` but for its forward."""
    body = "\n".join(f"        {line}" for line in dedent(lines).strip().splitlines())
    return f"class Bad(Net):\n    def forward(self, images):\n{body}\n"


class TestUsage:
    """Exit code 4, before anything is measured or replaced."""

    CASES = (
        (("--gpu",), "--gpu: *"),
        (
            ("--vq-models=vit-base-patch16",),
            "no model matches 'vit-base-patch16'; the nearest are vit-base-patch16-384*",
        ),
        (("--vq-models=my-nte",), "no model matches 'my-nte'; the nearest are my-net*"),
        (("--vq-precisions=fp32,int9",), "no precision 'int9': did you mean int8*"),
        (("--vq-batch=0",), "--vq-batch: 0 is too small; the smallest valid one is 1"),
        (("--vq-batch=many",), "--vq-batch: 'many' is not a whole number; the smallest valid one is 1"),
        (("--vq-budget=0",), "--vq-budget: 0 s is no time to measure in*"),
        (("--vq-gate=fial",), "--vq-gate: 'fial' is none of fail, report, off; did you mean 'fail'?"),
        (("--vq-protocol=studdy",), "--vq-protocol: *did you mean 'study'?"),
        (("--vq-weights=pretraind",), "--vq-weights: *did you mean 'pretrained'?"),
        (("-o", "vq_batch=-2"), "ini key vq_batch: -2 is too small; the smallest valid one is 1"),
        (("-o", "vq_budget=soon"), "ini key vq_budget: 'soon' is not a number of seconds"),
        (("-o", "vq_models=nothing-like-it"), "no model matches 'nothing-like-it'*"),
    )

    @pytest.mark.parametrize(("arguments", "words"), CASES, ids=[" ".join(case[0]) for case in CASES])
    def test_it_is_refused(self, project, monkeypatch, arguments: tuple[str, ...], words: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        before = project.mkdir("vq-results")
        (before / "results.csv").write_text("of an earlier run")
        result = project.runpytest_inprocess(*arguments)
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: {words}"])
        result.stdout.no_fnmatch_line("*passed*")
        assert [path.name for path in before.iterdir()] == ["results.csv"]
        assert (before / "results.csv").read_text() == "of an earlier run"

    @pytest.mark.parametrize(
        ("cuda", "words"),
        [
            (None, "*is built without CUDA. Install a CUDA build of torch*"),
            ("13.0", "*sees no CUDA device. Check that*"),
        ],
    )
    def test_a_gpu_that_is_not_there_is_never_a_skip(self, project, monkeypatch, cuda, words: str) -> None:
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        result = project.runpytest_inprocess("--gpu")
        assert result.ret == 4
        result.stderr.fnmatch_lines([f"ERROR: --gpu: {words}leave --gpu out to measure on the CPU."])
        assert "skipped" not in result.stdout.str()

    @pytest.mark.parametrize(
        ("marker", "words"),
        [
            ("latncy_tolerance=0.1", "mark.vq has unknown keyword 'latncy_tolerance'; it takes latency_tolerance, *"),
            ("latency_tolerance='10 %'", "mark.vq(latency_tolerance='10 %') is not a number of 0 or more"),
            ("latency_tolerance=True", "mark.vq(latency_tolerance=True) is not a number of 0 or more"),
            ("memory_tolerance=-0.1", "mark.vq(memory_tolerance=-0.1) is not a number of 0 or more"),
            ("min_sqnr_db=float('nan')", "mark.vq(min_sqnr_db=nan) is not a number of 0 or more"),
            ("0.1", "mark.vq has positional arguments; it takes latency_tolerance, *"),
        ],
    )
    def test_a_marker_that_cannot_be(self, project, marker: str, words: str) -> None:
        project.makepyfile(
            test_my_bench=f"""
            import pytest

            @pytest.mark.vq({marker})
            def test_precision(vq_case, vq_bench):
                vq_bench(vq_case)
            """
        )
        result = project.runpytest_inprocess()
        assert result.ret == 4
        words = words.replace("[", "[[]")
        result.stderr.fnmatch_lines([f"ERROR: test_my_bench.py::test_precision?my-net-fp32?: {words}"])
        assert not (project.path / "vq-results").exists()

    def test_an_output_directory_that_is_a_file(self, project) -> None:
        (project.path / "taken").write_text("not ours")
        result = project.runpytest_inprocess("--vq-output=taken")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["ERROR: cannot write results to *taken*point --vq-output elsewhere"])
        assert (project.path / "taken").read_text() == "not ours"
        result.stdout.no_fnmatch_line("*passed*")

    def test_an_output_that_another_run_is_writing_to(self, project) -> None:
        with lock_of(project.path / "vq-results", "results"):
            result = project.runpytest_inprocess()
            other = project.runpytest_inprocess("--vq-precisions=fp32", "--vq-output=elsewhere")
        assert result.ret == 4
        result.stderr.fnmatch_lines(
            ["ERROR: another run is writing its results to *vq-results: wait for it, or give *"]
        )
        assert other.ret == 0
        assert not (project.path / "vq-results").exists()
        assert project.runpytest_inprocess("--vq-precisions=fp32").ret == 0

    def test_two_models_of_one_name(self, project, model) -> None:
        model("class Bad(Net): pass", name="twin")
        model("class Worse(Net): pass\n\n\ndef build_twin_too():\n    return Worse()", name="twin")
        conftest = project.path / "conftest.py"
        head, _, tail = conftest.read_text().rpartition("def build_twin()")
        conftest.write_text(f"{head}def build_other(){tail}")
        result = project.runpytest_inprocess()
        assert result.ret == 4
        result.stderr.fnmatch_lines(
            ["*RegistrationError: two models are registered as 'twin': *build_twin*build_other*"]
        )

    def test_a_model_of_the_catalogs_name(self, project, model) -> None:
        model("class Bad(Net): pass", name="vit-digits")
        result = project.runpytest_inprocess()
        assert result.ret == 4
        result.stderr.fnmatch_lines(["*'vit-digits' is already in the catalog; register yours under another name"])

    def test_a_broken_test_file_leaves_the_last_results_alone(self, project) -> None:
        (project.mkdir("vq-results") / "results.csv").write_text("of an earlier run")
        project.makepyfile(test_broken="import nothing_like_it")
        assert project.runpytest_inprocess().ret == 2
        assert (project.path / "vq-results" / "results.csv").read_text() == "of an earlier run"


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], "is not JSON"),
    "empty": (lambda text: "", "is not JSON"),
    "of another kind": (lambda text: "[1, 2]", "is not a baseline file"),
    "of a newer schema": (lambda text: text.replace('"schema_version":2', '"schema_version":99'), "schema version 99"),
}


class TestBaselines:
    ONLY = ("--vq-precisions=fp32", "--vq-budget=0.1")

    def test_a_damaged_one_fails_its_test_and_the_row_is_kept(self, project, rows, study) -> None:
        assert project.runpytest_inprocess(*self.ONLY, "--vq-save").ret == 0
        (file,) = (project.path / "baselines").rglob("my-net.json")
        whole = file.read_text()
        for name, (damage, words) in DAMAGE.items():
            file.write_text(damage(whole))
            result = project.runpytest_inprocess(*self.ONLY)
            assert result.ret == 1, name
            result.assert_outcomes(failed=1)
            result.stdout.fnmatch_lines([f"*BaselineError: {file}*{words}*"])
            assert file.read_text() == damage(whole), name
            (row,) = rows()
            assert float(row["latency_ms"]) > 0
            assert row["verdict"] == ""
            assert len(study()["records"]) == 1
            assert list(file.parent.iterdir()) == [file], name
        saving = project.runpytest_inprocess(*self.ONLY, "--vq-save", "--vq-gate=off")
        assert saving.ret == 1
        saving.stdout.fnmatch_lines([f"ERROR: {file}*schema version 99*"])
        assert file.read_text() == damage(whole)
        assert len(rows()) == 1

    def test_where_none_can_be_written_the_rows_are_kept_and_the_run_fails(self, project, rows, study) -> None:
        (project.path / "baselines").write_text("a file in the way")
        result = project.runpytest_inprocess(*self.ONLY, "--vq-save", "--vq-gate=off")
        assert result.ret == 1
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(
            ["ERROR: cannot *baselines*the directory of baselines is a file; move it, or point *"]
        )
        assert (project.path / "baselines").read_text() == "a file in the way"
        assert len(rows()) == 1
        assert study()["complete"] is True

    def test_a_directory_in_the_place_of_one(self, project, rows) -> None:
        assert project.runpytest_inprocess(*self.ONLY, "--vq-save").ret == 0
        (file,) = (project.path / "baselines").rglob("my-net.json")
        file.unlink()
        file.mkdir()
        result = project.runpytest_inprocess(*self.ONLY)
        assert result.ret == 1
        result.stdout.fnmatch_lines([f"*BaselineError: cannot read {file}: *"])
        assert len(rows()) == 1


FULL_DISK = """
    import errno
    import os

    import pytest

    REAL = os.fsync

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(item):
        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if "fp16" in item.name:
            os.fsync = full

    def pytest_unconfigure():
        os.fsync = REAL
"""
FREED = "\n\n@pytest.hookimpl(tryfirst=True)\ndef pytest_keyboard_interrupt():\n    os.fsync = REAL\n"


@pytest.mark.parametrize("freed", [False, True], ids=["still full at the end", "freed again"])
def test_a_full_disk_ends_the_run_and_keeps_the_rows_before(project, rows, study, freed: bool) -> None:
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + dedent(FULL_DISK) + (FREED if freed else ""))
    result = project.runpytest_inprocess("--vq-precisions=fp32,fp16,int8", "--vq-budget=0.1", "--vq-save")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*pytest-vq: cannot write results to *No space left on device: free some space*"])
    assert [row["precision"] for row in rows()] == ["fp32"]
    assert [record["precision"] for record in study()["records"]] == ["fp32"]
    assert study()["complete"] is False
    assert not (project.path / "baselines").exists()
    if not freed:
        result.stdout.fnmatch_lines(["ERROR: cannot write results to *"])


class TestModels:
    """A user's model that cannot be measured fails its own pairs, and says why; the others are measured."""

    def run(self, project, *arguments: str):
        return project.runpytest_inprocess("--vq-precisions=fp32", "--vq-budget=0.1", *arguments)

    def check(self, result, rows, study, error: str, words: str) -> str:
        """Its pair failed for ``error``, everywhere; ``my-net`` has its row, before or after it."""
        assert result.ret == 1
        assert f"{rows()[0]['model']}-{rows()[0]['precision']}" == "my-net-fp32"
        assert len(rows()) == 1
        (failure,) = study()["failures"]
        assert (failure["id"], failure["error"]) == ("bad-net-fp32", error)
        assert words in failure["message"]
        assert study()["complete"] is True
        result.stdout.fnmatch_lines([f"ERROR bad-net-fp32: {error}: *"])
        return failure["message"]

    CASES = (
        ("returns a tuple", forward("return (images, images)"), "OutputError", "the model returned a tuple"),
        ("raises", forward("raise KeyError('no such layer')"), "OutputError", "KeyError: 'no such layer'"),
        ("gives NaN", forward("return super().forward(images) * float('nan')"), "OutputError", "NaN or infinite"),
        ("is degenerate", forward("return super().forward(images) * 0 + 1"), "OutputError", "bad-net"),
        ("fits no image", "class Bad(nn.Sequential):\n    head = None\n", "OutputError", "shapes cannot be multiplied"),
    )

    @pytest.mark.parametrize(("body", "error", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
    def test_a_forward_that(self, project, model, rows, study, body: str, error: str, words: str) -> None:
        build = "Bad()" if "Sequential" not in body else "Bad(nn.Flatten(), nn.Linear(5, 5))"
        model(body, build=build, options="head=None")
        self.check(self.run(project), rows, study, error, words)

    def test_the_traceback_of_a_forward_leads_to_the_line(self, project, model) -> None:
        model(forward("layer = 'missing'\nraise KeyError(layer)"))
        result = self.run(project, "--vq-models=bad-net")
        result.stdout.fnmatch_lines(
            [
                ">*raise KeyError(layer)",
                "conftest.py:*: KeyError",
                "The above exception was the direct cause of the following exception:",
                "E *OutputError: bad-net at fp32: its forward failed on ?1, 3, 16, 16? torch.float32 on cpu: KeyError*",
            ]
        )

    def test_nan_at_one_precision_fails_that_one(self, project, model, rows, study) -> None:
        model(forward("return super().forward(images) * 1e6"))  # beyond FP16, not beyond BF16 or FP32
        result = self.run(project, "--vq-models=bad-net", "--vq-precisions=fp32,fp16,int4")
        assert result.ret == 1
        assert [row["precision"] for row in rows()] == ["fp32", "int4"]
        (failure,) = study()["failures"]
        assert failure["id"] == "bad-net-fp16"
        assert "NaN or infinite" in failure["message"]

    BUILDERS = (
        ("raises", "1 / 0", "its function build_bad_net raised ZeroDivisionError: division by zero"),
        ("gives no module", "'net'", "returned a str; it must return a torch.nn.Module"),
        ("gives another type", "Net().half()", "made body.1.weight torch.float16; return a model in FP32"),
    )

    @pytest.mark.parametrize(("build", "words"), [case[1:] for case in BUILDERS], ids=[case[0] for case in BUILDERS])
    def test_a_builder_that(self, project, model, rows, study, build: str, words: str) -> None:
        model("", build=build)
        result = self.run(project)
        self.check(result, rows, study, "BuildError", words)
        if build == "1 / 0":
            result.stdout.fnmatch_lines(["conftest.py:*: ZeroDivisionError"])

    def test_a_head_that_is_not_there(self, project, model, rows, study) -> None:
        model("class Bad(Net): pass", options='head="haed"')
        result = self.run(project)
        message = self.check(result, rows, study, "PrecisionError", "no module 'haed'")
        # Said once, and no plugin adds a warning that there is nothing to report.
        assert result.outlines.count(f"PrecisionError: {message}") == 1
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.no_fnmatch_line("*Benchmark fixture was not used*")
        result.stdout.no_fnmatch_line("*During handling of the above exception*")

    @pytest.mark.parametrize("precision", ["int8", "int4"])
    def test_nothing_to_quantize_is_no_row(self, project, model, rows, study, precision: str) -> None:
        model(
            "class Bad(nn.Sequential):\n    def __init__(self):\n"
            "        super().__init__(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten())\n",
            options="head=None",
        )
        result = self.run(project, "--vq-models=bad-net", f"--vq-precisions=fp16,{precision}")
        assert result.ret == 1
        assert [row["precision"] for row in rows()] == ["fp16"]
        (failure,) = study()["failures"]
        assert failure["error"] == "PrecisionError"
        assert "no linear layer to quantize outside the head" in failure["message"]

    def test_what_a_builder_sets_for_all_of_torch_changes_no_figure(self, project, model, rows) -> None:
        model(
            """
            def careless():
                torch.set_num_threads(2)
                torch.set_default_dtype(torch.float64)
                torch.backends.cuda.matmul.allow_tf32 = True
                torch.manual_seed(7)
                return Net().float()
            """,
            build="careless()",
        )
        project.makepyfile(
            test_my_bench="""
            import torch
            from pytest_vq.device.clock import HostClock

            def test_precision(vq_case, vq_bench, monkeypatch):
                seen = set()
                timed = HostClock.time_ms

                def time_ms(*args):
                    tf32 = torch.backends.cuda.matmul.allow_tf32
                    seen.add((torch.get_num_threads(), tf32, torch.get_default_dtype()))
                    return timed(*args)

                monkeypatch.setattr(HostClock, "time_ms", time_ms)
                vq_bench(vq_case)
                assert seen == {(1, False, torch.float32)}
            """
        )
        result = self.run(project, "--vq-models=bad-net,my-net", "-p", "no:randomly")
        result.assert_outcomes(passed=2)
        assert len(rows()) == 2
        assert torch.get_default_dtype() is torch.float32

    @pytest.mark.parametrize(
        "raising",
        ["raise MemoryError('no more')", "torch.empty(2**50, dtype=torch.uint8)"],
        ids=["MemoryError", "the CPU's allocator"],
    )
    def test_out_of_memory_is_said_and_its_memory_given_back(self, project, model, rows, study, raising: str) -> None:
        model(forward(f"kept = torch.ones(2**28, dtype=torch.uint8)\nkept += 1\n{raising}"))
        project.makepyfile(
            test_my_bench="""
            from pathlib import Path

            import pytest

            def resident_mib():
                for line in Path("/proc/self/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        return int(line.split()[1]) / 1024

            def test_precision(vq_case, vq_bench):
                before = resident_mib()
                try:
                    vq_bench(vq_case)
                except pytest.fail.Exception:
                    if "bad" in vq_case.id:
                        Path("growth_mib").write_text(str(resident_mib() - before))
                    raise
            """
        )
        result = self.run(project)
        message = self.check(result, rows, study, "DeviceOutOfMemoryError", "out of memory on ")
        assert message.startswith("bad-net-fp32: out of memory on ")
        assert "Take a smaller batch or model" in message
        assert float((project.path / "growth_mib").read_text()) < 128  # of the 256 that its forward held

    def test_after_a_crash_of_the_device_the_next_pair_is_measured_in_a_fresh_process(
        self, cold_start, project, rows, study
    ) -> None:
        conftest = project.path / "conftest.py"
        crash = """

        from pytest_vq.errors import DeviceLostError


        @pytest_vq.register_model("next-net", input_shape=(3, 16, 16), head="head")
        def build_next(kind=Net):
            return kind()


        class Crashing(Net):
            calls = 0

            def forward(self, images):
                Crashing.calls += 1
                if Crashing.calls > 2:  # after its answers were compared, while it is measured
                    raise DeviceLostError("a kernel crashed")
                return super().forward(images)


        Net = Crashing  # what my-net is built of
        """
        conftest.write_text(conftest.read_text() + dedent(crash))
        result = self.run(project, "--benchmark-json=out.json", "-v")
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*?my-net-fp32? FAILED*", "*?next-net-fp32? PASSED*"])
        assert [row["model"] for row in rows()] == ["next-net"]
        (failure,) = study()["failures"]
        assert (failure["id"], failure["error"]) == ("my-net-fp32", "DeviceLostError")
        assert "a kernel crashed" in failure["message"]
        # Its samples come with it, exactly: they are the child's, where the table and the file are ours.
        (benchmark,) = json.loads((project.path / "out.json").read_text())["benchmarks"]
        assert len(benchmark["stats"]["data"]) == int(rows()[0]["samples"])
        assert benchmark["stats"]["median"] == pytest.approx(float(rows()[0]["latency_ms"]) / 1e3, rel=1e-9)

    def test_an_unrelated_failure_after_the_measurement_keeps_the_row(self, project, rows, study) -> None:
        project.makepyfile(
            test_my_bench="""
            def test_precision(vq_case, vq_bench):
                vq_bench(vq_case)
                assert vq_case.model.name == "of another opinion"
            """
        )
        result = self.run(project)
        assert result.ret == 1
        result.assert_outcomes(failed=1)
        assert len(rows()) == len(study()["records"]) == 1
        assert study()["failures"] == []

    def test_a_case_of_ones_own_making_has_a_row_too(self, project, rows) -> None:
        project.makepyfile(
            test_my_bench="""
            from pytest_vq.catalog.models import find_model
            from pytest_vq.execution.schemes import find_scheme
            from pytest_vq.schema.spec import Case

            def test_one(vq_bench):
                assert vq_bench(Case(find_model("my-net"), find_scheme("fp32"))).model == "my-net"
            """
        )
        assert self.run(project).ret == 0
        assert [row["model"] for row in rows()] == ["my-net"]

    def test_stopping_at_the_first_failure_is_not_a_complete_run(self, project, model, rows, study) -> None:
        model(forward("raise KeyError"), name="z-net")
        result = self.run(project, "--vq-precisions=fp32,fp16", "-x")
        assert result.ret == 1
        assert len(rows()) == 2
        assert len(study()["failures"]) == 1
        assert study()["complete"] is False


def test_weights_out_of_reach_are_named_and_no_random_ones_taken(project, rows, study, monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    name = "mobilevit-xx-small"
    started = time.monotonic()
    result = project.runpytest_inprocess(
        "--vq-weights=pretrained", f"--vq-models={name},my-net", "--vq-precisions=fp32", "--vq-budget=0.1"
    )
    assert time.monotonic() - started < 60
    assert result.ret == 1
    assert [(row["model"], row["weights"]) for row in rows()] == [("my-net", "local")]
    (failure,) = study()["failures"]
    assert (failure["id"], failure["error"]) == (f"{name}-fp32", "BuildError")
    assert failure["message"].startswith(f"{name}: checkpoint {find_model(name).checkpoint}")
    assert f"hf download {find_model(name).checkpoint}" in failure["message"]
    assert json.loads(json.dumps(study()["options"]))["weights"] == "pretrained"
