"""What a person reads: the table at the end, the reasons under it, and the live line before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import ENVIRONMENT, make_outcome, make_record, make_setup

from pytest_vq.options import Options
from pytest_vq.plugin import live
from pytest_vq.plugin.live import Progress, summarised
from pytest_vq.plugin.run import Run
from pytest_vq.plugin.session import VqSession
from pytest_vq.plugin.terminal import write_summary
from pytest_vq.report.table import records_table
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status
from pytest_vq.wording import figure


def record(model: str, precision: str, **columns: Any) -> Record:
    """A row whose figures need rounding; all but the reference's have a speedup and a fidelity to show."""
    figures: dict[str, Any] = {"latency_ms": 12.3456, "latency_low_ms": 12.0, "latency_high_ms": 13.0}
    if precision != "fp32":
        figures |= {"speedup": 1.5, "speedup_low": 1.25, "speedup_high": 1.75, "sqnr_db": 38.04}
    return make_record(model, precision, **(figures | columns))


def cells(*records: Record) -> list[list[str]]:
    """The table's lines below its head, split where two spaces part columns."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in records_table(records).splitlines()[2:]
    ]


class TestTable:
    def test_a_reference_and_a_precision(self) -> None:
        assert cells(record("vit", "fp32"), record("vit", "int8")) == [
            ["vit", "fp32", "12.35", "12 - 13", "100.0"],
            ["int8", "12.35", "12 - 13", "1.50x", "1.25 - 1.75", "100.0", "25.0%", "38.0 dB"],
        ]
        head = records_table([record("vit", "fp32")]).splitlines()[0]
        assert head.split("  ")[0] == "model"
        assert "verdict" not in head  # --vq-gate=off gives none

    def test_what_was_not_measured_is_empty(self) -> None:
        bare = record(
            "vit",
            "int8",
            latency_low_ms=None,
            latency_high_ms=None,
            speedup_low=None,
            speedup_high=None,
            peak_memory_bytes=None,
            memory_reduction=None,
        )
        assert cells(bare) == [["vit", "int8", "12.35", "1.50x", "38.0 dB"]]
        assert "None" not in records_table([bare])
        assert "nan" not in records_table([bare])

    def test_models_stay_together_and_precisions_in_order_whatever_the_order_of_the_tests(self) -> None:
        mixed = [
            record("b", "int4"),
            record("a", "fp16"),
            record("b", "fp32", batch=8),
            record("a", "fp32"),
            record("b", "fp32"),
        ]
        *lines, note = records_table(mixed).splitlines()[2:]
        assert note.startswith("int4 is NF4")
        assert [line.split("  ")[0].strip() for line in lines] == ["b", "", "", "a", ""]
        assert [cell for line in lines for cell in line.split() if cell in {"fp32", "fp16", "int4"}] == [
            "fp32",
            "int4",
            "fp32",
            "fp32",
            "fp16",
        ]
        assert "fp32 batch 8" in lines[2]

    def test_accuracy_a_launch_bound_row_and_a_loss_of_memory(self) -> None:
        row = record("vit", "int8", accuracy=0.9667, launch_bound=True, memory_reduction=-0.5)
        (line,) = cells(row)
        assert line[1] == "int8 (launch-bound)"
        assert line[-2:] == ["-50.0%", "96.7% right, 38.0 dB"]
        assert cells(record("vit", "fp32", accuracy=0.9667))[0][-1] == "96.7% right"

    def test_energy_has_a_column_where_any_row_has_it(self) -> None:
        rows = [record("vit", "fp32", energy_per_image_mj=1234.5), record("vit", "int8")]
        assert "mJ/image" in records_table(rows).splitlines()[0]
        assert cells(*rows)[0][-1] == "1234"
        assert cells(*rows)[1][-2:] == ["25.0%", "38.0 dB"]
        assert "mJ/image" not in records_table(rows[1:])

    def test_verdicts(self) -> None:
        rows = [record("vit", "fp32", verdict=Status.PASS), record("vit", "int8", verdict=None)]
        assert records_table(rows).splitlines()[0].endswith("verdict")
        assert cells(*rows)[0][-1] == "PASS"
        assert cells(*rows)[1][-1] == "38.0 dB"  # measured, and not judged: a broken baseline

    def test_a_scheme_of_another_execution_follows_its_eager_one(self) -> None:
        mixed = [record("vit", "int4"), record("vit", "int8", execution="compile"), record("vit", "int8")]
        first, second, third, _ = cells(*mixed)
        assert (first[1], second[0], third[0]) == ("int8", "int8+compile", "int4")
        assert cells(record("vit", "fp32", execution="compile", batch=8))[0][1] == "fp32+compile batch 8"

    def test_a_precision_that_this_version_does_not_know_comes_last(self) -> None:
        first, second = cells(record("vit", "int2"), record("vit", "int8"))
        assert (first[1], second[0]) == ("int8", "int2")

    def test_what_int4_is_stands_below_where_it_is_shown(self) -> None:
        assert records_table([record("vit", "int4")]).splitlines()[-1].startswith("int4 is NF4")
        assert "NF4" not in records_table([record("vit", "int8")])


class Terminal:
    """As much of pytest's terminal as the summary uses."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.red: list[str] = []

    def section(self, title: str, sep: str) -> None:
        self.lines.append(f"{sep} {title} {sep}")

    def line(self, text: str, red: bool = False, **_: bool) -> None:
        self.lines.append(text)
        if red:
            self.red.append(text)


@pytest.fixture
def summary():
    def write(*records: Record, failures: tuple[Failure, ...] = (), notes: tuple[str, ...] = (), **options: Any):
        session = VqSession(
            SimpleNamespace(),
            Options(output=Path("/out"), baselines=Path("/baselines"), **options),  # type: ignore[arg-type]
        )
        rows = [(f"test[{r.id}]", make_outcome(r)) for r in records]
        terminal = Terminal()
        write_summary(terminal, Run(session, rows, list(failures), list(notes)))  # type: ignore[arg-type]
        return terminal

    return write


class TestSummary:
    def test_a_run_that_measured_nothing_says_nothing(self, summary) -> None:
        assert summary().lines == []

    def test_where_and_how_it_was_measured(self, summary) -> None:
        lines = summary(record("vit", "fp32", verdict=Status.PASS)).lines
        assert lines[0] == "= pytest-vq ="
        assert lines[1] == "A CPU, torch 2.13.0, 1 thread(s), adaptive protocol, random weights"
        assert lines[-2:] == ["1 PASS", "results: /out"]
        on_gpu = make_setup("fp32", protocol="study", weights="pretrained", threads=None)
        lines = summary(record("vit", "fp32", setup=on_gpu)).lines
        assert lines[1] == "A CPU, torch 2.13.0, study protocol, pretrained weights"

    def test_every_verdict_that_is_not_pass_has_its_reason(self, summary) -> None:
        rows = [
            record("vit", "fp32", verdict=Status.PASS, reason="never shown"),
            record("vit", "fp16", verdict=Status.FAIL, reason="latency: 12 ms for 10 ms"),
            record("vit", "int8", verdict=Status.INCONCLUSIVE, reason="a busy machine"),
            record("vit", "int4", verdict=Status.IMPROVED, reason="latency: 8 ms for 10 ms"),
        ]
        terminal = summary(*rows)
        assert [line for line in terminal.lines if line.startswith(("FAIL", "INCON", "IMPRO", "PASS"))] == [
            "FAIL vit-fp16: latency: 12 ms for 10 ms",
            "INCONCLUSIVE vit-int8: a busy machine",
            "IMPROVED vit-int4: latency: 8 ms for 10 ms",
        ]
        assert terminal.red == ["FAIL vit-fp16: latency: 12 ms for 10 ms"]
        assert "1 PASS, 1 FAIL, 1 INCONCLUSIVE, 1 IMPROVED" in terminal.lines

    def test_without_baselines_one_line_says_how_to_get_them(self, summary) -> None:
        rows = [record("vit", name, verdict=Status.NO_BASELINE, reason="no baseline") for name in ("fp32", "fp16")]
        lines = summary(*rows).lines
        assert "2 NO_BASELINE" in lines
        assert sum("--vq-save" in line for line in lines) == 1
        assert any(f"/baselines/{ENVIRONMENT.device_slug}" in line for line in lines)
        assert not any("--vq-save" in line for line in summary(*rows, save=True).lines)

    def test_what_could_not_be_measured_and_what_went_wrong_is_red(self, summary) -> None:
        terminal = summary(
            record("vit", "fp32"),
            failures=(Failure("vit-int8", "OutputError", "values are NaN"),),
            notes=("recorded 1 lines", "ERROR: the disk is full"),
        )
        assert terminal.red == ["ERROR vit-int8: OutputError: values are NaN", "ERROR: the disk is full"]
        assert "recorded 1 lines" in terminal.lines

    def test_failures_alone_need_no_table(self, summary) -> None:
        lines = summary(failures=(Failure("vit-int8", "BuildError", "unreachable"),)).lines
        assert lines == ["= pytest-vq =", "ERROR vit-int8: BuildError: unreachable"]


class Screen:
    """As much of pytest's terminal as the live line uses."""

    def __init__(self, hasmarkup: bool) -> None:
        self.hasmarkup = hasmarkup
        self.text = ""

    def write(self, text: str, flush: bool = False) -> None:
        self.text += text

    def rewrite(self, text: str, erase: bool = False) -> None:
        assert erase
        self.text += f"\r{text}"


@pytest.fixture
def progress(monkeypatch):
    """A live line of one model's pairs at these precisions, on a clock that a test moves."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock.now_s))

    def make(*precisions: str, terminal: bool = False, verbosity: int = 0, reporter: bool = True):
        writer = Screen(terminal)
        config = SimpleNamespace(
            pluginmanager=SimpleNamespace(get_plugin=lambda _: writer if reporter else None),
            get_verbosity=lambda: verbosity,
        )
        made = Progress(config)  # type: ignore[arg-type]
        made.selected = {f"test.py::test[vit-{name}]": f"vit-{name}" for name in precisions}
        return made, writer, clock

    return make


class TestLive:
    def test_a_log_gets_a_plain_line_per_pair_with_the_time_left(self, progress) -> None:
        line, writer, clock = progress("fp32", "fp16", "int8")
        for name in ("fp32", "fp16", "int8"):
            line.start(f"test.py::test[vit-{name}]")
            clock.now_s += 60
            line.finish(f"test.py::test[vit-{name}]", record("vit", name, verdict=Status.PASS))
        assert writer.text.splitlines() == [
            "",
            "[1/3] vit-fp32  12.35 ms  PASS, about 2 min left",
            "[2/3] vit-fp16  12.35 ms  1.50x  38.0 dB  PASS, about 60 s left",
            "[3/3] vit-int8  12.35 ms  1.50x  38.0 dB  PASS",
        ]
        assert "\r" not in writer.text

    def test_a_kept_row_says_so_and_tells_nothing_of_how_long_others_take(self, progress) -> None:
        line, writer, clock = progress("fp32", "fp16", "int8", "int4")
        for name in ("fp32", "fp16"):
            line.start(f"test.py::test[vit-{name}]")
            line.finish(f"test.py::test[vit-{name}]", record("vit", name, verdict=Status.PASS), kept=True)
        line.start("test.py::test[vit-int8]")
        clock.now_s += 20
        line.finish("test.py::test[vit-int8]", record("vit", "int8", verdict=Status.PASS))
        assert writer.text.splitlines() == [
            "",
            "[1/4] vit-fp32  12.35 ms  PASS  kept",
            "[2/4] vit-fp16  12.35 ms  1.50x  38.0 dB  PASS  kept",
            "[3/4] vit-int8  12.35 ms  1.50x  38.0 dB  PASS, about 20 s left",
        ]

    def test_a_terminal_gets_one_line_that_rewrites_itself(self, progress) -> None:
        line, writer, clock = progress("fp32", "fp16", terminal=True)
        line.start("test.py::test[vit-fp32]")
        clock.now_s += 10
        line.finish("test.py::test[vit-fp32]", record("vit", "fp32"))
        line.start("test.py::test[vit-fp16]")
        assert "\n" not in writer.text
        assert writer.text.split("\r") == [
            "",
            "[0/2] measuring vit-fp32",
            "[1/2] vit-fp32  12.35 ms, about 10 s left",
            "[1/2] measuring vit-fp16, about 10 s left",
        ]

    def test_where_the_number_of_pairs_is_not_known_it_counts(self, progress) -> None:
        line, writer, _ = progress()
        line.start("test.py::test[vit-fp32]")
        line.finish("test.py::test[vit-fp32]", record("vit", "fp32"))
        assert writer.text == "\n[1] vit-fp32  12.35 ms"

    def test_a_pair_that_failed_is_one_less_to_do(self, progress) -> None:
        line, writer, _ = progress("fp32", "fp16")
        line.start("test.py::test[vit-fp32]")
        line.fail("test.py::test[vit-fp32]")
        line.start("test.py::test[vit-fp16]")
        line.finish("test.py::test[vit-fp16]", record("vit", "fp16"))
        assert writer.text == "\n[2/2] vit-fp16  12.35 ms  1.50x  38.0 dB"

    @pytest.mark.parametrize("verbosity", [-1, 1])
    def test_quiet_or_verbose_there_is_none(self, progress, verbosity: int) -> None:
        line, writer, _ = progress("fp32", verbosity=verbosity)
        line.start("test.py::test[vit-fp32]")
        line.finish("test.py::test[vit-fp32]", record("vit", "fp32"))
        assert writer.text == ""

    def test_without_pytests_terminal_there_is_none(self, progress) -> None:
        line, writer, _ = progress("fp32", reporter=False)
        line.start("test.py::test[vit-fp32]")
        line.finish("test.py::test[vit-fp32]", record("vit", "fp32"))
        assert writer.text == ""

    def test_of_pairs_that_workers_measure_at_once_it_names_two_and_counts_the_rest(self, progress) -> None:
        line, writer, clock = progress(terminal=True)
        for name in ("fp32", "fp16", "int8", "int4"):
            line.start(f"test.py::test[vit-{name}]")  # of which nobody knows here what it is
            line.hear(f"test.py::test[vit-{name}]", f"vit-{name}", 8)
        clock.now_s += 100
        line.finish("test.py::test[vit-fp32]", record("vit", "fp32"))
        line.fail("test.py::test[vit-fp16]")
        line.hear("test.py::test[net-fp32]", "net-fp32", 8)
        # 2 done, and of 2 that run a half each: 100 s were spent on 3 of 8.
        assert writer.text.split("\r") == [
            "",
            "[0/8] measuring vit-fp32",
            "[0/8] measuring vit-fp32, vit-fp16",
            "[0/8] measuring vit-fp16, vit-int8 (+1)",
            "[0/8] measuring vit-int8, vit-int4 (+2)",
            "[1/8] vit-fp32  12.35 ms, about 4 min left",
            "[2/8] measuring vit-int4, net-fp32 (+1), about 3 min left",
        ]

    def test_tests_that_are_no_pairs_leave_it_alone(self, progress) -> None:
        line, writer, _ = progress("fp32", terminal=True)
        line.start("test.py::test_plain")
        assert writer.text == ""


def test_a_row_in_a_few_words() -> None:
    assert summarised(record("vit", "fp32")) == "12.35 ms"
    assert summarised(record("vit", "int8", verdict=Status.FAIL)) == "12.35 ms  1.50x  38.0 dB  FAIL"


@pytest.mark.parametrize(
    ("value", "text"), [(0.00123456, "0.001235"), (0.1, "0.1"), (99.996, "100"), (1234.5, "1234"), (123456.7, "123457")]
)
def test_a_figure_has_no_powers_of_ten(value: float, text: str) -> None:
    assert figure(value) == text


class TestMarks:
    def test_fp32_at_another_pace_beside_a_row_is_marked_and_both_times_are_given(self) -> None:
        table = records_table(
            [record("vit", "fp32", latency_ms=1.7), record("vit", "fp16", speedup=0.37, reference_latency_ms=3.0)]
        )
        assert "0.37x*" in table
        assert table.splitlines()[-1] == "* vit-fp16: FP32 took 3 ms beside it, 1.7 ms in its own row: two paces"

    @pytest.mark.parametrize("beside_ms", [1.37, 1.7, 2.1])
    def test_fp32_at_about_the_same_pace_is_not_marked(self, beside_ms: float) -> None:
        table = records_table(
            [record("vit", "fp32", latency_ms=1.7), record("vit", "fp16", reference_latency_ms=beside_ms)]
        )
        assert "*" not in table

    def test_another_models_fp32_says_nothing(self) -> None:
        table = records_table(
            [record("beit", "fp32", latency_ms=1.0), record("vit", "fp16", latency_ms=1.0, reference_latency_ms=9.0)]
        )
        assert "*" not in table

    def test_a_speedup_without_an_interval_is_marked(self) -> None:
        bare = record("vit", "fp16", speedup=0.03, speedup_low=None, speedup_high=None, reference_latency_ms=12.0)
        table = records_table([bare])
        assert "0.03x~" in table
        assert table.splitlines()[-1] == "~ a speedup from too few samples for an interval"
