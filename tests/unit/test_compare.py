from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import (
    ENVIRONMENT,
    HOSTILE,
    MIB,
    SERVING_TERMS,
    make_estimates,
    make_outcome,
    make_record,
    make_serving_record,
    make_setup,
)
from scipy.stats import t

from pytest_vq.cli.main import main
from pytest_vq.report.side_metrics import METRICS, compare_metric, welch_half_width
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Environment, Record
from pytest_vq.schema.serving import ServingEstimates
from pytest_vq.schema.side import SidePair, entry_of
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results_writer import ResultsWriter

GPU = replace(
    ENVIRONMENT,
    device="cuda",
    device_name="NVIDIA H200",
    device_slug="nvidia-h200",
    device_uuid="GPU-1",
    versions={"torch": "2.13.0", "driver": "550.54", "python": "3.11"},
    settings={"power_limit_mw": "700000"},
)
STUDY_MODEL = "deit-tiny-patch16-224"
MODELS = ("net-a", "net-b", "net-c", "net-d")
# What one process's times differ by from another's of the same code.
JITTER = (1.0, 1.004, 0.997, 1.002, 0.999)
Run = Callable[..., tuple[int, str, str]]


def record(model: str = "net", precision: str = "int8", **columns: Any) -> Record:
    """A row as an accelerator gives it."""
    batch = columns.get("batch", 1)
    return make_record(
        model, precision, **({"setup": make_setup(precision, threads=None, batch=batch), "category": "edge"} | columns)
    )


def slower(one: Record, factor: float) -> Record:
    """``one`` as a machine gives it that takes ``factor`` times as long for everything but FP32."""
    from factories import alter

    timing = one.timing
    times = {n: factor * getattr(timing, n) for n in ("latency_ms", "latency_low_ms", "latency_high_ms")}
    times["latency_q10_ms"] = factor * (timing.latency_q10_ms or 0)
    ratios = {n: (getattr(timing, n) or 0) / factor for n in ("speedup", "speedup_low", "speedup_high")}
    return alter(one, setup=one.setup, **times, **ratios)


def processes(one: Record, number: int, environment: Environment = GPU) -> tuple[Estimates, ...]:
    """The estimates of ``number`` processes that measured ``one``."""
    if one.setup.serving is not None:  # of which no time is compared
        return (Estimates.of(one, environment),)
    return tuple(Estimates.of(slower(one, factor), environment) for factor in JITTER[:number])


def write(
    directory: Path, *records: Record, number: int = 1, environment: Environment = GPU, failed: Iterable[Failure] = ()
) -> Path:
    writer = ResultsWriter(directory, {})
    for one in records:
        writer.add(make_outcome(one, environment, estimates=processes(one, number, environment)))
    for failure in failed:
        writer.fail(failure)
    writer.close()
    return directory


def save(root: Path, *records: Record, environment: Environment = GPU, number: int = 5) -> None:
    for index in range(number):
        taken = [(r.identity.model, r.setup, processes(r, number, environment)[index]) for r in records]
        BaselineStore(root).append(environment.device_slug, environment.device_name, taken)


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``pytest-vq compare`` in ``tmp_path``: its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["compare", *argv])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 99
        out, err = capsys.readouterr()
        return code, out, err

    return run


def line_of(out: str, *words: str) -> str:
    """The one line that has all ``words``."""
    (line,) = [line for line in out.splitlines() if all(word in line for word in words)]
    return line


def table_of(out: str) -> str:
    """The first table of figures."""
    (start, *_) = re.finditer(r"^pair +metric", out, re.MULTILINE)
    return out[start.start() :].partition("\n\n")[0]


def row_of(out: str, *words: str) -> str:
    """The one row of that table that has all ``words``."""
    return line_of(table_of(out), *words)


def metrics_of(pair: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {metric["metric"]: metric for metric in pair["metrics"]}


def side_pair(*values: float, figure: str = "latency_ms", **changes: Any) -> SidePair:
    """A pair whose processes have these values of ``figure``."""
    one = record()
    taken = [replace(Estimates.of(one, GPU), **({figure: value} | changes)) for value in values]
    return SidePair.of(one.case_id, "edge", entry_of(one.setup, taken, "a run"))


# The verdict and the exit code.


def test_equal_runs_regress_nowhere(compare: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, *(record(model) for model in MODELS), number=5)
    code, out, err = compare("a", "b")
    assert (code, err) == (0, "")
    assert "4 pairs in common: no pair regressed (4 PASS)" in out
    assert "what differs" not in out
    assert "only " not in out


def test_a_slower_side_b_fails_and_comes_first(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(model) for model in MODELS), number=5)
    write(tmp_path / "b", slower(record("net-a"), 1.2), *(record(model) for model in MODELS[1:]), number=3)
    code, out, _ = compare("a", "b")
    assert code == 1
    title, _, _, reason, *_ = out.splitlines()
    assert title == "1 of 4 pairs regressed in B"
    assert reason.startswith("FAIL net-a-int8: ")
    assert "9.80 ms → 11.8 ms (+20.0 %" in reason
    assert row_of(out, "net-a-int8", "median latency").endswith("FAIL")
    assert row_of(out, "net-b-int8", "median latency").endswith("PASS")
    assert "4 pairs in common: 1 regressed (1 FAIL, 3 PASS)" in out


def test_a_faster_side_b_is_improved_and_exits_with_0(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", slower(record(), 1.2), number=5)
    write(tmp_path / "b", record(), number=3)
    code, out, _ = compare("a", "b")
    assert code == 0
    assert "1 pair in common: no pair regressed (1 IMPROVED)" in out
    assert "IMPROVED net-int8: " in out
    assert "pytest-vq baselines accept" not in out  # a run has no anchor


def test_a_slowdown_of_one_process_is_a_suspicion(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), number=5)
    write(tmp_path / "b", slower(record(), 1.2), number=1)
    code, out, _ = compare("a", "b")
    assert code == 0
    assert row_of(out, "net-int8", "median latency").endswith("INCONCLUSIVE")
    reason = line_of(out, "INCONCLUSIVE net-int8: ")
    assert "only a suspicion after 1 fresh process: measure it again with --vq-runs 3" in reason
    assert "+20.0 %" in reason
    assert "B: 3 processes of each pair, or more, would decide more (--vq-runs 3)" in out
    assert "A: 5 processes" not in out  # it has them


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"model_size_bytes": 60 * MIB}, "model size 50.0 MiB → 60.0 MiB"),
        ({"peak_memory_bytes": 120 * MIB}, "peak memory 100.0 MiB → 120.0 MiB"),
        ({"sqnr_db": 20.0}, "SQNR against FP32 30.0 dB → 20.0 dB"),
    ],
)
def test_what_is_deterministic_fails_after_one_process(
    compare: Run, tmp_path: Path, worse: dict[str, Any], words: str
) -> None:
    write(tmp_path / "a", record(), number=5)
    # Slower too, so that the gate would look at its time again: the size does not wait for that.
    write(tmp_path / "b", slower(record(**worse), 1.2), number=1)
    code, out, _ = compare("a", "b")
    assert code == 1
    assert words in line_of(out, "FAIL net-int8: ")


def test_resident_memory_of_one_process_is_a_suspicion_on_a_cpu(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", make_record(), number=5, environment=ENVIRONMENT)
    write(tmp_path / "b", make_record(peak_memory_bytes=300 * MIB), environment=ENVIRONMENT)
    code, out, _ = compare("a", "b")
    assert code == 0
    assert "only a suspicion after 1 fresh process" in line_of(out, "INCONCLUSIVE net-int8: ")


def test_a_disturbed_row_proves_nothing(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), number=5)
    write(tmp_path / "b", slower(record(disturbance="thermal throttling"), 1.5), number=3)
    code, out, _ = compare("a", "b")
    assert code == 0
    assert "thermal throttling" in line_of(out, "INCONCLUSIVE net-int8: ")


# What forbids a verdict.


@pytest.mark.parametrize(
    ("setup", "environment", "words"),
    [
        ({"protocol": "study"}, {}, "protocol adaptive → study"),
        ({"weights": "pretrained"}, {}, "weights random → pretrained"),
        ({"rest": "fp16"}, {}, "rest bf16 → fp16"),
        ({"threads": 2}, {}, "threads none → 2"),
        ({}, {"device_uuid": "GPU-2"}, "device GPU-1 → GPU-2"),
        ({}, {"versions": GPU.versions | {"driver": "560.1"}}, "driver 550.54 → 560.1"),
        ({}, {"settings": {"power_limit_mw": "500000"}}, "power limit 700 W → 500 W"),
    ],
)
def test_another_setup_has_ratios_and_no_verdict(
    compare: Run, tmp_path: Path, setup: dict[str, Any], environment: dict[str, Any], words: str
) -> None:
    write(tmp_path / "a", record(), number=5)
    other = record(setup=replace(record().setup, **setup))
    write(tmp_path / "b", slower(other, 2.0), number=3, environment=replace(GPU, **environment))
    code, out, _ = compare("a", "b")
    assert code == 0
    assert f"no verdict on 1 pair: {words}" in out.splitlines()
    assert "1 pair in common, and no verdict on any of them" in out
    assert "FAIL" not in out
    assert "0.500" in row_of(out, "net-int8", "median latency")
    above, _, _ = out.partition(table_of(out))
    assert "what differs" in above
    assert words.split(" → ")[-1] in above


def test_another_torch_is_judged_and_named(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), number=5)
    newer = replace(GPU, versions=GPU.versions | {"torch": "2.14.0"}, commit="def")
    write(tmp_path / "b", slower(record(), 1.2), number=3, environment=newer)
    code, out, _ = compare("a", "b")
    assert code == 1
    assert "torch 2.13.0 → 2.14.0" in line_of(out, "FAIL net-int8: ")
    assert line_of(out, "torch  ").split() == ["torch", "2.13.0", "2.14.0"]
    assert line_of(out, "commit  ").split() == ["commit", "abc", "def"]
    assert "driver  " not in out


# Figures, ratios and intervals.


@pytest.mark.parametrize(
    ("figure", "better", "worse"),
    [
        ("latency_ms", 5.0, 10.0),
        ("speedup", 3.0, 1.5),
        ("peak_memory_bytes", 10 * MIB, 20 * MIB),
        ("resting_memory_bytes", 10 * MIB, 20 * MIB),
        ("model_size_bytes", 10 * MIB, 20 * MIB),
    ],
)
def test_a_ratio_above_1_means_that_b_is_better(figure: str, better: float, worse: float) -> None:
    (metric,) = [metric for metric in METRICS if metric.figure == figure]
    good, bad = side_pair(better, figure=figure), side_pair(worse, figure=figure)
    found = compare_metric(metric, bad, good)
    assert found.change == pytest.approx(2.0)
    assert (found.a, found.b) == pytest.approx((worse, better))
    assert compare_metric(metric, good, bad).change == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("figure", "a", "b", "change", "shown"),
    [("sqnr_db", 28.0, 30.5, 2.5, "+2.5 dB"), ("accuracy", 0.957, 0.95, -0.007, "-0.7 points")],
)
def test_what_has_no_ratio_is_a_difference(figure: str, a: float, b: float, change: float, shown: str) -> None:
    (metric,) = [metric for metric in METRICS if metric.figure == figure]
    found = compare_metric(metric, side_pair(a, figure=figure), side_pair(b, figure=figure))
    assert found.change == pytest.approx(change)
    assert metric.change_shown(change) == shown
    assert (found.low, found.high, found.interval) == (None, None, None)


def test_the_interval_of_several_processes_is_welchs() -> None:
    a, b = (10.0, 10.4, 9.9), (8.0, 8.2)
    found = compare_metric(METRICS[0], side_pair(*a), side_pair(*b))
    logs_a, logs_b = [math.log(x) for x in a], [math.log(x) for x in b]
    mean_a, mean_b = sum(logs_a) / 3, sum(logs_b) / 2
    share_a = sum((x - mean_a) ** 2 for x in logs_a) / 2 / 3
    share_b = sum((x - mean_b) ** 2 for x in logs_b) / 1 / 2
    df = (share_a + share_b) ** 2 / (share_a**2 / 2 + share_b**2 / 1)
    half = float(t.ppf(0.975, df)) * math.sqrt(share_a + share_b)
    assert found.change == pytest.approx(math.exp(mean_a - mean_b))
    assert found.low == pytest.approx(math.exp(mean_a - mean_b - half))
    assert found.high == pytest.approx(math.exp(mean_a - mean_b + half))
    assert found.interval == "between processes"
    assert found.change == pytest.approx((found.a or 0) / (found.b or 1))


def test_processes_that_agree_to_the_last_digit_leave_no_width() -> None:
    assert welch_half_width([1.0, 1.0], [2.0, 2.0, 2.0]) == 0


@pytest.mark.parametrize("numbers", [(1, 1), (1, 2), (2, 1)])
def test_a_single_process_has_an_interval_of_its_own_samples(numbers: tuple[int, int]) -> None:
    bounds = {"latency_low_ms": 9.0, "latency_high_ms": 11.0}
    a, b = (side_pair(*[10.0] * number, **bounds) for number in numbers)
    found = compare_metric(METRICS[0], a, b)
    own = math.log(11 / 9) / 2
    half = math.sqrt(own**2 / numbers[0] + own**2 / numbers[1])
    assert found.interval == "within a process"
    assert (found.low, found.high) == pytest.approx((math.exp(-half), math.exp(half)))


def test_too_few_samples_leave_no_interval() -> None:
    found = compare_metric(METRICS[0], side_pair(10.0), side_pair(5.0, latency_low_ms=None, latency_high_ms=None))
    assert (found.change, found.low, found.high, found.interval) == (pytest.approx(2.0), None, None, None)


def test_resident_memory_that_did_not_grow_has_no_ratio() -> None:
    (metric,) = [metric for metric in METRICS if metric.figure == "peak_memory_bytes"]
    found = compare_metric(metric, side_pair(0, figure=metric.figure), side_pair(MIB, figure=metric.figure))
    assert (found.a, found.b, found.change) == (0, MIB, None)


def test_an_interval_of_single_processes_is_said_to_be_that(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record())
    write(tmp_path / "b", record())
    _, out, _ = compare("a", "b")
    assert "0.986 … 1.014 within" in row_of(out, "net-int8", "median latency")
    assert "within: an interval from single processes' own samples" in out
    for name in ("a", "b"):
        write(tmp_path / name, record(), number=2)
    _, out, _ = compare("a", "b")
    assert "within" not in out


def test_every_figure_has_its_unit(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(accuracy=0.957))
    write(tmp_path / "b", record(accuracy=0.952, latency_ms=12.0, peak_memory_bytes=80 * MIB))
    _, out, _ = compare("a", "b")
    rows = {cells[0]: cells for cells in _metric_cells(table_of(out))}
    assert rows["median latency"][1:4] == ["10.0 ms", "12.0 ms", "0.833"]
    assert rows["speedup"][1:4] == ["2.00x", "2.00x", "1.000"]
    assert rows["peak memory"][1:4] == ["100.0 MiB", "80.0 MiB", "1.250"]
    assert rows["model size"][1:4] == ["50.0 MiB", "50.0 MiB", "1.000"]
    assert rows["SQNR"][1:4] == ["30.0 dB", "30.0 dB", "+0.0 dB"]
    assert rows["accuracy"][1:4] == ["95.7%", "95.2%", "-0.5 points"]


def _metric_cells(table: str) -> list[list[str]]:
    """The cells of the table's rows from the metric on."""
    names = [metric.name for metric in METRICS]
    rows = table.splitlines()[2:]
    cells = [[cell for cell in re.split(r"\s{2,}", row.strip()) if cell] for row in rows]
    return [row[next(i for i, cell in enumerate(row) if cell in names) :] for row in cells]


# The study.


def test_the_study_beside_a_run(compare: Run, tmp_path: Path) -> None:
    schemes = ("fp32", "fp16", "int8", "int4")
    resting = {"resting_memory_bytes": 10 * MIB, "latency_ms": 1.935}
    write(tmp_path / "run", *(record(STUDY_MODEL, scheme, **resting) for scheme in schemes))
    code, out, err = compare("study", "run")
    assert (code, err) == (0, "")
    for words in ("INT4 was not measured", "accuracy was not measured", "memory at rest after a forward"):
        assert line_of(out, words).startswith("known fault of A: ")
    assert "4 pairs in common, and no verdict on any of them" in out
    rows = _metric_cells(table_of(out))
    assert ["median latency", "3.87 ms", "1.94 ms", "2.000"] in rows  # FP16
    assert ["memory at rest", "18.8 MiB", "10.0 MiB", "1.875"] in rows
    assert ["speedup", "0.953x", "2.00x", "2.098"] in rows
    assert rows[-3:] == [
        ["median latency", "not measured", "1.94 ms"],
        ["speedup", "not measured", "2.00x"],
        ["memory at rest", "not measured", "10.0 MiB"],
    ]
    assert f"left out of median latency, speedup, memory at rest: {STUDY_MODEL}-int4" in out
    assert line_of(out, "of the pairs in common only B has: ").endswith("peak memory, model size, SQNR")
    assert "vit-huge-patch14-224-in21k-int4" in line_of(out, "only A measured 60 pairs: ")


def test_the_study_can_be_side_b(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(STUDY_MODEL, "int8", resting_memory_bytes=10 * MIB))
    code, out, _ = compare("run", "study")
    assert code == 0
    assert "known fault of B: " in out
    assert "0.389" in row_of(out, f"{STUDY_MODEL}-int8", "median latency")


def test_int4_alone_has_nothing_to_compare_with(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(STUDY_MODEL, "int4"))
    code, out, _ = compare("study", "run")
    assert code == 0
    assert "not measured" in row_of(out, f"{STUDY_MODEL}-int4", "median latency")


# What each argument may be.


def test_baselines_are_a_side_by_device_or_as_the_root_of_one(compare: Run, tmp_path: Path) -> None:
    save(tmp_path / "baselines", *(record(model) for model in MODELS))
    write(tmp_path / "run", *(slower(record(model), 1.2) for model in MODELS), number=3)
    found = [compare(name, "run/study.json") for name in ("baselines", "baselines/nvidia-h200")]
    assert [code for code, _, _ in found] == [1, 1]
    assert found[0][1].replace("A: baselines (", "A: baselines/nvidia-h200 (") == found[1][1]
    assert "A: baselines/nvidia-h200 (baselines), 4 pairs" in found[1][1]
    assert "4 of 4 pairs regressed in B" in found[1][1]


def test_a_device_of_baselines_is_found_from_within(
    compare: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "baselines", record())
    monkeypatch.chdir(tmp_path / "baselines" / "nvidia-h200")
    code, out, _ = compare(".", "..")
    assert code == 0
    assert "1 pair in common" in out


def test_baselines_of_several_devices_are_listed(compare: Run, tmp_path: Path) -> None:
    save(tmp_path / "baselines", record())
    save(tmp_path / "baselines", make_record(), environment=ENVIRONMENT)
    code, out, err = compare("baselines", "study")
    assert (code, out) == (1, "")
    assert "baselines holds the baselines of 2 devices: name one of baselines/cpu-a, baselines/nvidia-h200" in err


def test_baselines_use_the_anchor_that_was_accepted(compare: Run, tmp_path: Path) -> None:
    store = BaselineStore(tmp_path / "baselines")
    fast, slow = record(), slower(record(), 1.2)
    store.accept("nvidia-h200", "NVIDIA H200", [("net", fast.setup, processes(fast, 5))], "the start")
    later = [replace(e, date_utc=f"2026-02-{i:02d}") for i in range(1, 21) for e in processes(slow, 1)]
    store.append("nvidia-h200", "NVIDIA H200", [("net", slow.setup, e) for e in later])
    write(tmp_path / "run", slow, number=3)
    code, out, _ = compare("baselines", "run")
    assert code == 1
    assert "anchor 9.80 ms → 11.8 ms" in line_of(out, "FAIL net-int8: ")
    assert "1.000" in row_of(out, "net-int8", "median latency")


def test_of_several_setups_the_equal_ones_are_compared(compare: Run, tmp_path: Path) -> None:
    other = record(setup=replace(record().setup, protocol="study"))
    save(tmp_path / "baselines", record(), slower(other, 3.0))
    write(tmp_path / "run", record(), number=3)
    code, out, _ = compare("baselines", "run")
    assert code == 0
    assert line_of(out, "net-int8 (adaptive protocol, random weights, bf16 rest)", "PASS")
    assert "only A measured 1 pair: net-int8 (study protocol, random weights, bf16 rest)" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read results from b/study.json: No such file"),
        ("", "b/study.json is not JSON"),
        ('{"schema_version": 2, "compl', "b/study.json is not JSON"),
        ('{"schema_version": 99}', "b/study.json has schema version 99"),
        ('{"other": 1}', "b/study.json is not a study.json"),
    ],
)
def test_bad_results_are_an_error_that_names_the_file(
    compare: Run, tmp_path: Path, content: str | None, words: str
) -> None:
    write(tmp_path / "a", record())
    (tmp_path / "b").mkdir()
    if content is not None:
        (tmp_path / "b" / "study.json").write_text(content)
    code, out, err = compare("a", "b")
    assert (code, out) == (1, "")
    assert err.startswith("pytest-vq: error: ")
    assert words in err


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 99}'])
def test_bad_baselines_are_an_error_that_names_the_file(compare: Run, tmp_path: Path, content: str) -> None:
    save(tmp_path / "baselines", record())
    (tmp_path / "baselines" / "nvidia-h200" / "net.json").write_text(content)
    code, out, err = compare("study", "baselines/nvidia-h200")
    assert (code, out) == (1, "")
    assert "baselines/nvidia-h200/net.json" in err


def test_an_absent_side_is_an_error(compare: Run) -> None:
    code, out, err = compare("study", "nowhere")
    assert (code, out) == (1, "")
    assert "cannot read results from nowhere: No such file" in err


@pytest.mark.parametrize(
    "argv", [(), ("study",), ("study", "run", "--format", "xml"), ("study", "run", "--only", "improved")]
)
def test_wrong_usage_exits_with_2(compare: Run, argv: tuple[str, ...]) -> None:
    code, out, err = compare(*argv)
    assert (code, out) == (2, "")
    assert "usage: pytest-vq compare" in err


# What only one side has, and what it comes to over all pairs.


def test_no_pair_in_common_says_what_each_side_holds(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(f"net-{number}") for number in range(10)))
    write(tmp_path / "b", record("other", "int4"))
    code, out, err = compare("a", "b")
    assert (code, out) == (1, "")
    listed = ", ".join(f"net-{number}-int8" for number in range(8))
    assert err == (
        "pytest-vq: error: no pair in common: "
        f"A (a) holds 10 pairs: {listed} and 2 more; B (b) holds 1 pair: other-int4\n"
    )
    write(tmp_path / "c")
    assert "no pair in common: A (a) holds 10 pairs" in compare("a", "a", "c")[2]
    assert "C (c) holds nothing" in compare("a", "a", "c")[2]


def test_what_one_side_alone_measured_is_named(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record("both"), record("mine"), record("mine", "int4"))
    failed = Failure("mine-int8", "OutputError", "nan", "mine")
    write(tmp_path / "b", record("both"), record("both", batch=8), failed=[failed])
    _, out, _ = compare("a", "b")
    assert "only A measured 2 pairs: mine-int8, mine-int4" in out.splitlines()
    assert "only B measured 1 pair: both-int8-b8" in out.splitlines()
    assert "B failed to measure 1 pair: mine-int8 (OutputError)" in out.splitlines()


def test_aggregates_come_last_with_their_number_range_and_what_they_left_out(compare: Run, tmp_path: Path) -> None:
    a = [record("net-a"), record("net-b", category="production"), record("net-c", sqnr_db=None)]
    write(tmp_path / "a", *a)
    faster = {"latency_ms": 2.5}
    b = [record("net-a", **faster), record("net-b", category="production"), record("net-c", sqnr_db=20.0)]
    write(tmp_path / "b", *b)
    _, out, _ = compare("a", "b")
    assert out.index(table_of(out)) < out.index("Geometric mean of the ratios")
    last = out[out.index("Geometric mean of the ratios") :]
    overall, edge, production = last.splitlines()[5:8]
    assert overall.split() == ["median", "latency", "all", "3", "1.587", "1.000", "…", "4.000"]
    assert edge.split() == ["edge", "2", "2.000", "1.000", "…", "4.000"]
    assert production.split() == ["production", "1", "1.000", "1.000", "…", "1.000"]
    assert line_of(last, "SQNR", "all").split()[2] == "2"
    assert line_of(last, "SQNR", "all").split()[-1] == "1"
    assert "left out of SQNR: net-c-int8" in last


def test_pairs_stand_by_model_and_precision(compare: Run, tmp_path: Path) -> None:
    rows = [record(model, scheme) for model in ("b", "a") for scheme in ("int4", "fp32", "int8", "fp16")]
    write(tmp_path / "a", *rows)
    _, out, _ = compare("a", "a", "--format", "json")
    names = [pair["pair"] for pair in json.loads(out)["pairs"]]
    assert names == [f"{model}-{scheme}" for model in ("a", "b") for scheme in ("fp32", "fp16", "int8", "int4")]


# Selection and formats.


def test_only_regressed_shows_those_alone(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(model) for model in MODELS), number=5)
    write(tmp_path / "b", slower(record("net-a"), 1.2), *(record(model) for model in MODELS[1:]), number=3)
    code, out, _ = compare("a", "b", "--only", "regressed")
    assert code == 1
    table = table_of(out)
    assert "net-a-int8" in table
    assert "net-b-int8" not in table
    assert line_of(out, "median latency", "  all  ").split()[3] == "4"
    code, out, _ = compare("a", "b", "--only", "regressed", "--format", "json")
    assert code == 1
    assert [pair["pair"] for pair in json.loads(out)["pairs"]] == ["net-a-int8"]
    code, out, _ = compare("a", "a", "--only", "regressed")
    assert code == 0
    assert "nothing to show: no pair regressed" in out


def test_more_sides_are_each_compared_with_the_first(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(model) for model in MODELS), number=5)
    write(tmp_path / "b", *(record(model) for model in MODELS), number=5, environment=replace(GPU, commit="def"))
    write(tmp_path / "c", *(slower(record(model), 1.3) for model in MODELS), number=3)
    code, out, _ = compare("a", "b", "c")
    assert code == 1
    assert out.startswith("4 of 4 pairs regressed in C\n")
    assert out.index("\nB against A\n") < out.index("\nC against A\n")
    assert line_of(out, "commit  ").split() == ["commit", "abc", "def", "abc"]
    assert "ratio: above 1 C is better" in out
    found = json.loads(compare("a", "b", "c", "--format", "json")[1])
    assert [side["label"] for side in found["sides"]] == ["A", "B", "C"]
    assert [pair["side"] for pair in found["pairs"]] == ["B"] * 4 + ["C"] * 4
    assert [entry["pair"] for entry in found["regressed"]] == [f"{model}-int8" for model in MODELS]


def test_json_has_the_figures_of_the_text(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(model, scheme) for model in MODELS for scheme in ("fp32", "int8")), number=3)
    write(tmp_path / "b", *(slower(record(model), 1.07) for model in MODELS), number=2)
    _, out, _ = compare("a", "b")
    found = json.loads(compare("a", "b", "--format", "json")[1])
    assert set(found) >= {"sides", "pairs", "aggregates", "only_in"}
    assert found["only_in"][0] == {
        "side": "A",
        "against": "B",
        "pairs": [f"{model}-fp32" for model in MODELS],
        "metrics": [],
    }
    by_name = {metric.name: metric for metric in METRICS}
    rows = iter(_metric_cells(table_of(out)))
    for pair in found["pairs"]:
        assert f"{pair['verdict']} {pair['pair']}: {pair['reason']}" in out
        for name, value in metrics_of(pair).items():
            metric, row = by_name[name], next(rows)
            change = value["difference" if metric.is_difference else "ratio"]
            assert row[:4] == [name, metric.shown(value["a"]), metric.shown(value["b"]), metric.change_shown(change)]
            if value["interval"]:
                assert row[4] == f"{metric.change_shown(value['low'])} … {metric.change_shown(value['high'])}"
    assert next(rows, None) is None
    for aggregate in found["aggregates"]:
        if aggregate["category"] is None and "geometric_mean_ratio" in aggregate:
            line = line_of(out, aggregate["metric"], "  all  ")
            assert by_name[aggregate["metric"]].change_shown(aggregate["geometric_mean_ratio"]) in line


def test_json_says_what_was_decided_of_each_metric(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), number=5)
    write(tmp_path / "b", slower(record(), 1.2), number=1)
    (pair,) = json.loads(compare("a", "b", "--format", "json")[1])["pairs"]
    assert (pair["verdict"], pair["processes"]) == ("INCONCLUSIVE", [5, 1])
    decided = {entry["metric"]: entry["verdict"] for entry in pair["decided"]}
    assert decided["latency"] == "INCONCLUSIVE"  # the suspicion is none of a FAIL here either
    assert decided["model_size"] == "PASS"


def test_markdown_is_tables_of_github(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(model) for model in MODELS), number=5)
    write(tmp_path / "b", slower(record("net-a"), 1.2), *(record(model) for model in MODELS[1:]), number=3)
    code, out, _ = compare("a", "b", "--format", "markdown")
    assert code == 1
    assert out.startswith("### 1 of 4 pairs regressed in B\n\n- FAIL net-a-int8: ")
    assert "| pair | metric | A | B | ratio | 95 % interval | verdict |\n| --- | --- | ---: | ---: | ---: |" in out
    assert "| net-a-int8 | median latency | 10.0 ms | 12.0 ms |" in out


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[str, str]:
    """Two sides with hostile names of everything that a name may come from; both sides and one alone measured some."""
    evil = replace(GPU, commit=HOSTILE[0], versions=GPU.versions | {"torch": "\n".join(HOSTILE)})
    shared = [record(name, category=name) for name in HOSTILE]
    failed = [Failure(name, name, name, name) for name in HOSTILE]
    write(tmp_path / "a", *shared, *(record(name, "int4") for name in HOSTILE), number=5)
    write(tmp_path / "b", *(slower(one, 1.2) for one in shared), number=3, environment=evil, failed=failed)
    return "a", "b"


def test_hostile_names_do_nothing_in_text(compare: Run, hostile: tuple[str, str]) -> None:
    code, out, _ = compare(*hostile)
    assert code == 1
    assert not {"\x1b", "\u202e", "\r"} & set(out)
    assert not [line for line in out.splitlines() if line.lstrip().startswith("::")]
    rows = table_of(out).splitlines()[2:]
    assert len(rows) == len(HOSTILE) * 5
    assert r"net\n::error::all is lost-int8" in out
    assert r"safe\u202eevil-int8" in out


def test_hostile_names_do_nothing_in_markdown(compare: Run, hostile: tuple[str, str]) -> None:
    code, out, _ = compare(*hostile, "--format", "markdown")
    assert code == 1
    assert not {"\x1b", "\u202e", "\r", "`", "<", ">", "@"} & set(out)
    assert not [line for line in out.splitlines() if line.lstrip().startswith("::")]
    tables = [line for line in out.splitlines() if line.startswith("|")]
    widths = {line.count("|") - 1 for line in tables}
    assert widths == {3, 6, 7}  # the facts of two sides, the aggregates, the figures
    assert all(line.startswith(("|", "#", "- ")) or not line for line in out.splitlines())


def test_hostile_names_survive_in_json(compare: Run, hostile: tuple[str, str]) -> None:
    code, out, _ = compare(*hostile, "--format", "json")
    assert code == 1
    assert out.isascii()
    assert not {"\x1b", "\r"} & set(out)
    assert {pair["model"] for pair in json.loads(out)["pairs"]} == set(HOSTILE)


def test_hostile_names_do_nothing_in_an_error(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(record(name) for name in HOSTILE))
    write(tmp_path / "b", record())
    _, _, err = compare("a", "b")
    assert err.startswith("pytest-vq: error: no pair in common: ")
    assert err.count("\n") == 1
    assert not {"\x1b", "\u202e"} & set(err)


def test_the_same_input_gives_the_same_output(compare: Run, tmp_path: Path) -> None:
    save(tmp_path / "baselines", *(record(model) for model in reversed(MODELS)))
    write(tmp_path / "run", *(record(model) for model in MODELS), number=2)
    for form in ("text", "markdown", "json"):
        assert compare("baselines", "run", "--format", form) == compare("baselines", "run", "--format", form)


def test_an_entry_of_a_run_is_its_own_anchor() -> None:
    taken = processes(record(), 3)
    entry = entry_of(record().setup, taken, "a run")
    assert isinstance(entry, Entry)
    assert entry.anchor.estimates == entry.processes == taken


def test_comparing_loads_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "out", record(STUDY_MODEL))
    script = """
import sys
from pytest_vq.cli.main import main
assert main(["compare", "study", "out"]) == 0
assert main(["compare", "out", "out"]) == 0
heavy = {"torch", "transformers", "bitsandbytes"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Pairs under load.


def served(model: str = "net", **columns: Any) -> Record:
    terms = columns.pop("terms", SERVING_TERMS)
    setup = make_setup("int8", threads=None, protocol="load", serving=terms)
    return make_serving_record(model, terms=terms, **({"setup": setup} | columns))


LATER = {
    "violation_low": 0.006,
    "violation_rate": 0.008,
    "violation_high": 0.01,
    "p995_ms": 12.0,
    "max_qps_high": 230.0,
}


def under_load(out: str) -> list[str]:
    """The lines of that section, without what stands between columns."""
    found = out.split("Under load: B against A\n", 1)[1]
    return [" | ".join(cell.strip() for cell in line.split("  ") if cell.strip()) for line in found.splitlines()]


def test_pairs_under_load_stand_side_by_side_and_apart(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), served())
    write(tmp_path / "b", record(), served(**LATER))
    code, out, _ = compare("a", "b")
    assert code == 0
    assert under_load(out)[4:9] == [
        "net-int8-serving (Server) | rate sent | 200/s | 200/s",
        "late | 0.1 % late (0.05 % … 0.2 %) | 0.8 % late (0.6 % … 1 %)",
        "p99.5 | 8.00 ms | 12.0 ms",
        "highest rate | 222 … 240 | 222 … 230",
        "offline rate | 400/s | 400/s",
    ]
    assert "serving" not in out.split("Under load: B against A")[0]
    assert "1 pair in common" in out
    assert "1 pair and 1 under load" in out


def test_sides_with_pairs_under_load_alone_are_compared(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), served())
    write(tmp_path / "b", served())
    code, out, _ = compare("a", "b")
    assert code == 0
    assert "only A measured 1 pair: net-int8\n" in out
    assert "Geometric mean" not in out


def test_a_pair_and_itself_under_load_have_nothing_in_common(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record())
    write(tmp_path / "b", served())
    code, _, err = compare("a", "b")
    assert code == 1
    assert "B (b) holds 1 pair: net-int8-serving (Server)" in err


def test_each_scenario_stands_beside_its_own(compare: Run, tmp_path: Path) -> None:
    offline = served(terms=replace(SERVING_TERMS, scenario="Offline"), target_qps=None, offline_qps=333.0)
    write(tmp_path / "a", offline, served())
    write(tmp_path / "b", served(), offline)
    _, out, _ = compare("a", "b")
    assert [line for line in under_load(out) if line.startswith("offline rate")] == [
        "offline rate | 333/s | 333/s",
        "offline rate | 400/s | 400/s",
    ]


def test_what_was_served_otherwise_says_so(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", served())
    write(tmp_path / "b", served(terms=replace(SERVING_TERMS, latency_bound_ms=20.0)))
    _, out, _ = compare("a", "b")
    assert "net-int8-serving was not served alike: latency_bound_ms 10.0 → 20.0" in out


def test_baselines_of_pairs_under_load_have_what_they_store(compare: Run, tmp_path: Path) -> None:
    for number, late in enumerate((10, 30)):
        serving = ServingEstimates(10_000, late, 200.0, 8.0 + number, 400.0)
        estimates = make_estimates(serving=serving, date_utc=f"2026-01-0{number + 1}T00:00:00Z")
        BaselineStore(tmp_path / "baselines").append(GPU.device_slug, "A GPU", [("net", served().setup, estimates)])
    write(tmp_path / "b", served())
    _, out, _ = compare("baselines", "b")
    assert "late | 0.2 % late | 0.1 % late (0.05 % … 0.2 %)" in under_load(out)
    assert "p99.5 | 8.50 ms | 8.00 ms" in under_load(out)
    assert "baselines store no bounds on the share of late requests" in out


def test_json_has_pairs_under_load(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", record(), served())
    write(tmp_path / "b", record(), served("vit"))
    found = json.loads(compare("a", "b", "--format", "json")[1])
    rates = {one["pair"]: [one[side] and one[side]["target_qps"] for side in "ab"] for one in found["under_load"]}
    assert rates == {"net-int8-serving": [200.0, None], "vit-int8-serving": [None, 200.0]}
    assert [pair["pair"] for pair in found["pairs"]] == ["net-int8"]


def test_markdown_has_a_table_of_pairs_under_load(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", served())
    write(tmp_path / "b", served())
    _, out, _ = compare("a", "b", "--format", "markdown")
    assert "| net-int8-serving (Server) | rate sent | 200/s | 200/s |" in out


def test_two_scenarios_are_not_compared_with_one_another(compare: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", served())
    write(tmp_path / "b", served(terms=replace(SERVING_TERMS, scenario="Offline"), target_qps=None))
    code, _, err = compare("a", "b")
    assert code == 1
    assert "no pair in common" in err
