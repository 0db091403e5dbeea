from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import (
    ENVIRONMENT,
    HOSTILE,
    MIB,
    SERVING_TERMS,
    alter,
    make_outcome,
    make_record,
    make_samples,
    make_serving_record,
    make_setup,
)

from pytest_vq.cli.main import main
from pytest_vq.cli.recommend_command import size_in_bytes
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.record import Record
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.wording import milliseconds, size

Run = Callable[..., tuple[int, str, str]]


def record(model: str = "net", precision: str = "int8", **columns: Any) -> Record:
    """A row as an accelerator gives it; its interval is 1 % to each side unless it is given."""
    latency_ms = columns.get("latency_ms", 10.0)
    usual = {"latency_low_ms": 0.99 * latency_ms, "latency_high_ms": 1.01 * latency_ms, "throughput_ips": 100.0}
    setup = make_setup(precision, threads=None, batch=columns.get("batch", 1))
    return make_record(model, precision, **(usual | {"setup": setup} | columns))


def write(
    directory: Path,
    *records: Record,
    times_ms: Iterable[float] = (10.0,) * 10,
    failed: Iterable[Failure] = (),
    complete: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Path:
    writer = ResultsWriter(directory, dict(options or {}))
    for one in records:
        writer.add(make_outcome(one, ENVIRONMENT, samples=(make_samples(tuple(times_ms)),)))
    for failure in failed:
        writer.fail(failure)
    writer.close(complete)
    return directory


@pytest.fixture
def recommend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``pytest-vq recommend`` on the results in ``tmp_path / "run"``: its exit code, output and errors."""

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["recommend", str(tmp_path / "run"), *argv])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 99
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def found(recommend: Run) -> Callable[..., dict[str, Any]]:
    """The same, as the object that the JSON holds."""
    return lambda *argv: json.loads(recommend(*argv, "--format", "json")[1])


Found = Callable[..., dict[str, Any]]


def answers(found: dict[str, Any], index: int = 0) -> dict[str, str]:
    """Each pair's answer to one limit."""
    return {pair["pair"]: pair["checks"][index]["answer"] for pair in found["pairs"]}


def line_of(out: str, *words: str) -> str:
    """The one line that has all ``words``."""
    (line,) = [line for line in out.splitlines() if all(word in line for word in words)]
    return line


def section_of(out: str, title: str) -> str:
    """What stands under ``title``, to the next one."""
    after = out.partition(f"{title}\n===")[2]
    return after.partition("\n===")[0]


# Limits: yes, no, undecided, not measured.


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (14.0, 15.9, "yes"),
        (14.0, 16.0, "undecided"),  # below it is below it
        (15.9, 16.1, "undecided"),
        (16.0, 17.0, "no"),
        (16.1, 17.0, "no"),
        (None, None, "not measured"),
    ],
)
def test_a_latency_limit_asks_the_interval(
    found: Found, tmp_path: Path, low: float | None, high: float | None, answer: str
) -> None:
    write(tmp_path / "run", record(latency_ms=15.0, latency_low_ms=low, latency_high_ms=high))
    assert answers(found("--latency-ms", "16")) == {"net-int8": answer}


def test_too_few_samples_for_an_interval_say_how_to_get_one(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(latency_low_ms=None, latency_high_ms=None, samples=5))
    code, out, _ = recommend("--latency-ms", "16")
    assert code == 3
    assert "not measured: 10.0 ms, 5 samples" in out
    assert "an interval of the median needs 6 samples: measure with a longer --vq-budget" in out.splitlines()


def test_a_disturbed_row_decides_nothing(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(disturbance="thermal throttling"))
    code, out, _ = recommend("--latency-ms", "16")
    assert code == 3
    assert "undecided: 10.0 ms (9.90 ms … 10.1 ms), disturbed: thermal throttling" in out


@pytest.mark.parametrize(
    ("peak", "answer"), [(2**30 - 1, "yes"), (2**30, "no"), (2**30 + 1, "no"), (None, "not measured")]
)
def test_memory_is_exact_and_must_be_below_the_limit(
    found: Found, tmp_path: Path, peak: int | None, answer: str
) -> None:
    write(tmp_path / "run", record(peak_memory_bytes=peak))
    assert answers(found("--memory", "1GiB")) == {"net-int8": answer}


@pytest.mark.parametrize(("sqnr_db", "answer"), [(19.9, "no"), (20.0, "yes"), (20.1, "yes"), (None, "not measured")])
def test_sqnr_must_be_at_least_the_limit(found: Found, tmp_path: Path, sqnr_db: float | None, answer: str) -> None:
    write(tmp_path / "run", record(sqnr_db=sqnr_db), record(precision="fp32"))
    assert answers(found("--min-sqnr-db", "20")) == {"net-fp32": "yes", "net-int8": answer}


def test_all_limits_must_hold(found: Found, tmp_path: Path) -> None:
    fits, slow = record(), record(precision="int4", latency_ms=20.0)
    write(tmp_path / "run", fits, slow, record(precision="fp16", peak_memory_bytes=None))
    held = found("--latency-ms", "16", "--memory", "200MiB")
    assert held["qualified"] == ["net-int8"]
    assert {pair["pair"]: pair["holds"] for pair in held["pairs"]} == {
        "net-fp16": "not measured",
        "net-int8": "yes",
        "net-int4": "no",
    }


# Percentiles: bounds from the stored samples.


def test_298_samples_tell_no_p99(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(), times_ms=[10.0] * 298)
    code, out, _ = recommend("--p99-ms", "16")
    assert code == 3
    assert "not measured: 298 of 299 samples" in out
    assert "p99 latency needs 299 stored samples: measure with --vq-protocol study or a longer --vq-budget" in out


@pytest.mark.parametrize(("limit", "answer"), [("300", "yes"), ("299", "undecided"), ("290", "no")])
def test_of_299_samples_the_largest_bounds_p99(found: Found, tmp_path: Path, limit: str, answer: str) -> None:
    # By hand: P(all 299 below the quantile) = 0.99^299 = 0.0495; P(at most 6 above) = 0.968, at most 5 only 0.918, so
    # the lower bound is the sample with 6 above it: the 293rd.
    write(tmp_path / "run", record(latency_ms=150.0), times_ms=range(299, 0, -1))
    (pair,) = found("--p99-ms", limit)["pairs"]
    (check,) = pair["checks"]
    assert (check["answer"], check["low"], check["high"]) == (answer, 293.0, 299.0)
    assert check["value"] == pytest.approx(1 + 0.99 * 298)


def test_of_a_thousand_samples_the_996th_bounds_p99(found: Found, tmp_path: Path) -> None:
    # By hand, of Binomial(1000, 0.01): P(≤ 4) = 0.0287, P(≤ 5) = 0.0661; P(≤ 14) = 0.918, P(≤ 15) = 0.952.
    write(tmp_path / "run", record(latency_ms=500.0), times_ms=range(1, 1001))
    (check,) = found("--p99-ms", "2000")["pairs"][0]["checks"]
    assert (check["low"], check["high"]) == (985.0, 996.0)


@pytest.mark.parametrize(("samples", "answer"), [(597, "not measured"), (598, "yes")])
def test_the_cloud_needs_598_samples(found: Found, tmp_path: Path, samples: int, answer: str) -> None:
    write(tmp_path / "run", record(latency_ms=5.0), times_ms=[5.0] * samples)
    cloud = found("--scenario", "cloud")
    assert cloud["constraints"][0]["text"] == "p99.5 latency < 10 ms"
    assert answers(cloud) == {"net-int8": answer}


def served(model: str = "net", precision: str = "int8", **columns: Any) -> Record:
    """A row of `record`'s pair under load."""
    terms = columns.pop("terms", SERVING_TERMS)
    setup = make_setup(precision, threads=None, protocol="load", serving=terms)
    return make_serving_record(model, precision, terms=terms, **({"setup": setup} | columns))


MISSED = {"violation_low": 0.006, "violation_rate": 0.008, "violation_high": 0.01, "p995_ms": 12.0}


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({}, "yes"),
        (MISSED, "no"),
        ({"violation_high": 0.006}, "undecided"),
        ({"utilisation": 0.9}, "undecided"),
        ({"terms": replace(SERVING_TERMS, latency_bound_ms=5.0)}, "yes"),
        ({"terms": replace(SERVING_TERMS, latency_bound_ms=5.0), **MISSED}, "not measured"),
        ({"terms": replace(SERVING_TERMS, latency_bound_ms=20.0)}, "not measured"),
        ({"terms": replace(SERVING_TERMS, latency_bound_ms=20.0), **MISSED}, "no"),
    ],
)
def test_the_cloud_is_answered_from_rows_under_load(
    found: Found, tmp_path: Path, columns: dict[str, Any], answer: str
) -> None:
    write(tmp_path / "run", record(), served(**columns), times_ms=[5.0] * 600)
    cloud = found("--scenario", "cloud")
    assert cloud["constraints"][0]["text"] == "p99.5 latency < 10 ms under load"
    assert answers(cloud) == {"net-int8": answer}
    assert [row["holds"] for row in cloud["under_load"]] == [answer]
    assert cloud["qualified"] == (["net-int8"] if answer == "yes" else [])


def test_a_pair_that_was_not_put_under_load_does_not_hold_the_cloud(
    recommend: Run, found: Found, tmp_path: Path
) -> None:
    write(tmp_path / "run", record("deit-tiny-patch16-224"), record(), served(), times_ms=[5.0] * 600)
    cloud = found("--scenario", "cloud")
    assert answers(cloud) == {"deit-tiny-patch16-224-int8": "not measured", "net-int8": "yes"}
    _, out, _ = recommend("--scenario", "cloud")
    command = "pytest bench/test_serving.py --vq-models=deit-tiny-patch16-224 --vq-precisions=int8"
    assert line_of(out, "were not asked").endswith(command)


@pytest.mark.parametrize("batches", [(8,), (1, 8)])
def test_a_row_under_load_answers_for_its_pair_whatever_batch_that_was_measured_at(
    recommend: Run, found: Found, tmp_path: Path, batches: Sequence[int]
) -> None:
    pairs = [record(batch=batch) for batch in batches]
    write(tmp_path / "run", *pairs, served())
    cloud = found("--scenario", "cloud")
    assert answers(cloud) == {pair.id: "yes" for pair in pairs}
    assert [row["pair"] for row in cloud["under_load"]] == [pairs[0].id]
    assert "were not asked" not in recommend("--scenario", "cloud")[1]


def test_pairs_of_any_batch_are_put_under_load_in_requests_of_one_image(recommend: Run, tmp_path: Path) -> None:
    pairs = [record("deit-tiny-patch16-224", batch=batch) for batch in (4, 8)]
    write(tmp_path / "run", *pairs, times_ms=[5.0] * 600, options={"batch": [4, 8], "budget": 4.0, "gpu": True})
    command = "pytest bench/test_serving.py --gpu --vq-models=deit-tiny-patch16-224 --vq-precisions=int8"
    assert line_of(recommend("--scenario", "cloud")[1], "judged from single requests").endswith(f": {command}")


def test_rows_under_load_alone_answer_the_cloud(recommend: Run, found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", served(target_qps=180.0), served("vit"), served("slow", **MISSED))
    code, out, _ = recommend("--scenario", "cloud")
    assert code == 0
    assert "highest confirmed rate: vit-int8, 200 queries/s" in out
    assert "Pareto" not in out
    assert found("--scenario", "cloud")["qualified"] == ["vit-int8", "net-int8"]


def test_rows_under_load_that_miss_the_bound_are_the_nearest_misses(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", served(**MISSED))
    code, out, _ = recommend("--scenario", "cloud")
    assert code == 3
    assert "nearest: net-int8-serving (Server), above by 2.00 ms (20 %)" in out


def test_other_limits_of_a_row_under_load_are_asked_of_its_pair(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(sqnr_db=20.0), served(), served("vit"))
    rows = found("--scenario", "cloud", "--min-sqnr-db", "25")["under_load"]
    assert {row["pair"]: row["holds"] for row in rows} == {"net-int8": "no", "vit-int8": "not measured"}


def test_rows_under_load_alone_answer_nothing_else(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", served())
    code, _, err = recommend("--scenario", "real-time")
    assert code == 1
    assert "only pairs under load were measured" in err


def test_without_rows_under_load_the_cloud_says_what_it_is_judged_by(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record("deit-tiny-patch16-224"), times_ms=[5.0] * 600)
    code, out, _ = recommend("--scenario", "cloud")
    assert code == 0
    command = "pytest bench/test_serving.py --vq-models=deit-tiny-patch16-224 --vq-precisions=int8"
    assert line_of(out, "judged from single requests").endswith(command)
    assert "judged from single requests" not in recommend("--scenario", "real-time")[1]


def test_single_requests_are_asked_elsewhere_whatever_was_served(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(), served(**MISSED), times_ms=[5.0] * 600)
    assert answers(found("--p99-ms", "10")) == {"net-int8": "yes"}


def test_a_request_costs_by_the_confirmed_rate_with_the_bracket_as_range(
    recommend: Run, found: Found, tmp_path: Path
) -> None:
    write(tmp_path / "run", served(max_qps_low=250.0, max_qps_high=500.0), served("slow", **MISSED))
    argv = ("--scenario", "cloud", "--gpu-hour-cost", "1.8", "--load", "401")
    rows = {row["pair"]: row for row in found(*argv)["under_load"]}
    by_rate = [rows["net-int8"][f"cost_per_million_{name}"] for name in ("requests", "low", "high")]
    assert by_rate == pytest.approx([2.5, 1.0, 2.0])
    assert rows["net-int8"]["instances"] == 3
    assert rows["slow-int8"]["cost_per_million_requests"] is None
    costs = section_of(recommend(*argv)[1], "What it costs under load")
    (row,) = [line for line in costs.splitlines() if line.startswith("net-int8-serving")]
    assert [cell.strip() for cell in row.split("  ") if cell.strip()][1:] == ["200/s", "2.5", "1 … 2", "3"]


def test_a_median_above_the_limit_needs_no_percentile(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(latency_ms=50.0))
    code, out, _ = recommend("--p99-ms", "16")
    assert code == 3
    assert "no: its median alone is 50.0 ms" in out
    assert "p99 latency < 16 ms: the median of every other pair is above it already" in out


def test_samples_of_several_processes_count_together(found: Found, tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path / "run", {})
    writer.add(make_outcome(record(), samples=(make_samples((10.0,) * 150), make_samples((10.0,) * 149))))
    writer.close()
    assert answers(found("--p99-ms", "16")) == {"net-int8": "yes"}


# Accuracy.


def labelled(precision: str, wrong: Iterable[int], *, bits: bool = True, images: int = 1000) -> Record:
    """A row whose model has all images right but those numbered in ``wrong``."""
    mistakes = set(wrong)
    right = "".join("0" if image in mistakes else "1" for image in range(images))
    return record(
        precision=precision,
        accuracy=1 - len(mistakes) / images,
        labelled_images=images,
        right_answers=f"{int(right, 2):x}" if bits else None,
    )


def test_accuracy_is_compared_image_by_image(found: Found, tmp_path: Path) -> None:
    # FP32 has 100 wrong, the other the same and 4 more: Agresti and Min's interval of the difference, by hand.
    write(tmp_path / "run", labelled("fp32", range(100)), labelled("int8", range(104)))
    check = found("--min-top1", "0.98")["pairs"][1]["checks"][0]
    centre = (0.5 - 4.5) / 1002
    half = 1.959964 * math.sqrt((5.0 / 1002 - centre**2) / 1002)
    assert check["value"] == pytest.approx(0.896 / 0.9)
    assert check["low"] == pytest.approx(1 + (centre - half) / 0.9)
    assert check["high"] == pytest.approx(1 + (centre + half) / 0.9)
    assert check["answer"] == "yes"


@pytest.mark.parametrize(("limit", "answer"), [("0.99", "yes"), ("0.998", "undecided"), ("1", "undecided")])
def test_equal_answers_are_equal_within_what_the_images_tell(
    found: Found, tmp_path: Path, limit: str, answer: str
) -> None:
    write(tmp_path / "run", labelled("fp32", range(100)), labelled("fp16", range(100)))
    assert answers(found("--min-top1", limit)) == {"net-fp32": "yes", "net-fp16": answer}


def test_a_clear_loss_of_accuracy_is_a_no(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", labelled("fp32", range(50)), labelled("int4", range(150)))
    assert answers(found("--min-top1", "0.99"))["net-int4"] == "no"


def test_without_the_single_answers_the_interval_is_wider(found: Found, tmp_path: Path) -> None:
    # Agresti and Caffo's interval, by hand: 901 of 1002 and 897 of 1002.
    write(tmp_path / "run", labelled("fp32", range(100), bits=False), labelled("int8", range(104)))
    check = found("--min-top1", "0.98")["pairs"][1]["checks"][0]
    one, other = 897 / 1002, 901 / 1002
    half = 1.959964 * math.sqrt((one * (1 - one) + other * (1 - other)) / 1002)
    assert check["low"] == pytest.approx(1 + (one - other - half) / 0.9)
    assert check["answer"] == "undecided"


def test_no_labels_at_all_are_an_error(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record())
    code, out, err = recommend("--min-top1", "0.99")
    assert (code, out) == (1, "")
    assert "--min-top1 needs accuracy on labelled images" in err
    assert "--min-sqnr-db" in err


def test_a_row_without_labels_is_not_measured(recommend: Run, found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", labelled("fp32", range(9)), record("other"))
    assert answers(found("--min-top1", "0.99")) == {"net-fp32": "yes", "other-int8": "not measured"}
    assert "register_model(..., labelled=...)" in recommend("--min-top1", "0.99")[1]


def test_accuracy_needs_fp32_beside_it(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", labelled("int8", range(9)))
    code, out, _ = recommend("--min-top1", "0.99")
    assert code == 3
    assert "measure fp32 of the same model and batch too" in out


# The Pareto-best.


def standing(found: dict[str, Any], pair: str) -> dict[str, Any]:
    (entry,) = [entry["pareto"] for entry in found["pairs"] if entry["pair"] == pair]
    return dict(entry)


def test_what_is_worse_everywhere_is_behind(recommend: Run, found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(precision="fp32"), record(latency_ms=20.0, peak_memory_bytes=200 * MIB))
    pareto = standing(found(), "net-int8")
    assert (pareto["best"], pareto["behind"]) == (False, ["net-fp32"])
    assert line_of(
        section_of(recommend()[1], "The pairs, and which are Pareto-best of their model"), "net-int8"
    ).endswith("behind fp32")


def test_each_axis_alone_makes_a_best_one(found: Found, tmp_path: Path) -> None:
    write(
        tmp_path / "run",
        record(precision="fp32", latency_ms=30.0, peak_memory_bytes=300 * MIB),
        record(precision="fp16", latency_ms=10.0, peak_memory_bytes=200 * MIB, sqnr_db=20.0),
        record(precision="int8", latency_ms=20.0, peak_memory_bytes=100 * MIB, sqnr_db=10.0),
    )
    whole = found()
    assert [pair["pareto"]["best"] for pair in whole["pairs"]] == [True, True, True]
    assert standing(whole, "net-fp32")["axes"] == ["latency", "peak memory", "SQNR"]
    assert standing(whole, "net-fp32")["ties"] == []


def test_best_by_noise_alone_is_a_tie(found: Found, recommend: Run, tmp_path: Path) -> None:
    # Faster by figure, larger and less faithful for sure: only the noise keeps it from being behind.
    write(
        tmp_path / "run",
        record(precision="fp32", latency_ms=10.0),
        record(precision="int8", latency_ms=9.95, peak_memory_bytes=200 * MIB),
    )
    pareto = standing(found(), "net-int8")
    assert (pareto["best"], pareto["ties"]) == (True, ["net-fp32"])
    assert "best, tie with fp32" in recommend()[1]


def test_a_difference_beyond_the_intervals_is_no_tie(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(precision="fp32"), record(latency_ms=9.0, peak_memory_bytes=200 * MIB))
    assert standing(found(), "net-int8")["ties"] == []


def test_accuracy_is_the_axis_where_all_are_labelled(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", labelled("fp32", range(50)), labelled("int4", range(150)))
    pareto = standing(found(), "net-int4")
    assert pareto["axes"][2] == "accuracy"
    assert (pareto["best"], pareto["behind"]) == (False, ["net-fp32"])  # as fast and as large


def test_models_are_not_placed_against_one_another(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record("a"), record("b", latency_ms=99.0, peak_memory_bytes=999 * MIB, sqnr_db=1.0))
    assert standing(found(), "b-int8")["best"]


def test_what_lacks_a_figure_is_not_placed(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(peak_memory_bytes=None))
    code, out, _ = recommend()
    assert code == 0
    assert "not placed: peak memory not measured" in out


# Tiers.


def three(tmp_path: Path) -> Path:
    """FP32 slow, large and lossless; FP16 in the middle, nearly lossless; INT8 fast, small and coarse."""
    return write(
        tmp_path / "run",
        record(precision="fp32", latency_ms=30.0, peak_memory_bytes=300 * MIB, throughput_ips=10.0),
        record(precision="fp16", latency_ms=12.0, peak_memory_bytes=150 * MIB, throughput_ips=40.0, sqnr_db=60.0),
        record(precision="int8", latency_ms=10.0, peak_memory_bytes=100 * MIB, throughput_ips=25.0, sqnr_db=20.0),
    )


def test_three_tiers(found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    (tiers,) = found()["tiers"]
    assert [tiers[name]["pair"] for name in ("fast", "balanced", "accurate")] == ["net-int8", "net-fp16", "net-fp32"]
    # By hand: latency (12 - 10) / 20, memory (150 - 100) / 200, noise 10^-3 of the coarsest's 10^-1.
    assert tiers["balanced"]["distance"] == pytest.approx(math.sqrt(0.1**2 + 0.25**2 + 0.01**2))
    assert tiers["the_same_pair"] == ""


def test_tiers_are_of_what_holds(found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    (tiers,) = found("--min-sqnr-db", "30")["tiers"]
    assert [tiers[name]["pair"] for name in ("fast", "balanced", "accurate")] == ["net-fp16", "net-fp16", "net-fp32"]
    assert tiers["the_same_pair"] == "fast = balanced"


def test_tiers_may_coincide(recommend: Run, found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    (tiers,) = found("--latency-ms", "11")["tiers"]
    assert tiers["the_same_pair"] == "fast = balanced = accurate"
    assert "fast = balanced = accurate" in recommend("--latency-ms", "11")[1]


def test_a_lead_within_the_noise_is_said_to_be_one(found: Found, recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(precision="fp32", latency_ms=10.0), record(latency_ms=9.95))
    (tiers,) = found()["tiers"]
    assert tiers["fast"] == {"pair": "net-int8", "ties": ["net-fp32"], "distance": None}
    assert "net-int8 (tie with fp32)" in recommend()[1]


def test_equal_accuracy_goes_to_the_faster(found: Found, tmp_path: Path) -> None:
    int8 = labelled("int8", range(101))
    quick = alter(int8, setup=int8.setup, latency_ms=5.0, latency_low_ms=4.9, latency_high_ms=5.1)
    write(tmp_path / "run", labelled("fp32", range(100)), quick)
    accurate = found()["tiers"][0]["accurate"]
    assert (accurate["pair"], accurate["ties"]) == ("net-int8", ["net-fp32"])


# Scenarios.


@pytest.mark.parametrize(
    ("scenario", "limits", "objective"),
    [
        ("real-time", ["median latency < 16 ms"], "lowest latency"),
        ("edge", ["peak memory < 100 MB (95.4 MiB)"], "smallest peak memory"),
        ("cloud", ["p99.5 latency < 10 ms"], "lowest latency"),
        ("batch", [], "highest throughput"),
    ],
)
def test_scenarios_are_presets(found: Found, tmp_path: Path, scenario: str, limits: list[str], objective: str) -> None:
    three(tmp_path)
    preset = found("--scenario", scenario)
    assert [limit["text"] for limit in preset["constraints"]] == limits
    assert (preset["scenario"], preset["objective"]) == (scenario, objective)


def test_an_edge_of_100_mb_is_decimal(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(peak_memory_bytes=10**8 - 1), record(precision="int4", peak_memory_bytes=10**8))
    assert answers(found("--scenario", "edge")) == {"net-int8": "yes", "net-int4": "no"}


def test_a_limit_of_ones_own_takes_the_presets_place(found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    own = found("--scenario", "real-time", "--latency-ms", "11", "--memory", "1GiB")
    assert [limit["limit"] for limit in own["constraints"]] == [11.0, 2**30]
    assert own["qualified"] == ["net-int8"]


def test_a_batch_goes_by_throughput(found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    batch = found("--scenario", "batch")
    assert batch["tiers"][0]["fast"]["pair"] == "net-fp16"
    assert batch["foremost"] == {"by": "highest throughput", "pair": "net-fp16", "ties": [], "distance": None}
    assert standing(batch, "net-fp16")["axes"][0] == "throughput"


def test_an_edge_goes_by_memory(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(), record("other", peak_memory_bytes=50 * MIB, latency_ms=99.0))
    assert "smallest peak memory of all that hold: other-int8" in recommend("--scenario", "edge", "--memory", "1GiB")[1]


# The decision tree.


def test_the_tree_asks_what_the_study_asks(found: Found, recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    (path,) = found()["decision_tree"]
    assert [(branch["question"], branch["taken"]) for branch in path["branches"]] == [
        ("median latency < 16 ms", "yes"),
        ("peak memory < 4 GB (3,814.7 MiB)", "yes"),
        ("accuracy / FP32's ≥ 0.99", "not measured"),
    ]
    assert [pair["pair"] for pair in path["branches"][1]["pairs"]] == ["net-fp16", "net-int8"]
    assert path["branches"][0]["pairs"][0] | {"reason": "", "how_to_measure": ""} == {
        "pair": "net-fp32",
        "constraint": "median latency < 16 ms",
        "answer": "no",
        "value": 30.0,
        "low": pytest.approx(29.7),
        "high": pytest.approx(30.3),
        "reason": "",
        "how_to_measure": "",
    }
    assert path["leads_to"]["pair"] == "net-int8"  # better on two of three axes, of the two that are left
    line = line_of(recommend()[1], "path of net: ")
    assert "median latency < 16 ms? yes (2 of 3) → peak memory < 4 GB (3,814.7 MiB)? yes (2 of 2) → " in line
    assert line.endswith("what matters most? nothing named: the best balance → net-int8")


def test_the_tree_goes_on_with_all_where_none_says_yes(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(latency_ms=20.0), record(precision="int4", latency_ms=16.0))
    (path,) = found()["decision_tree"]
    first, second, _ = path["branches"]
    assert (first["taken"], [pair["pair"] for pair in second["pairs"]]) == ("undecided", ["net-int4"])
    write(tmp_path / "run", record(latency_ms=20.0), record(precision="int4", latency_ms=30.0))
    first, second, _ = found()["decision_tree"][0]["branches"]
    assert (first["taken"], len(second["pairs"])) == ("no", 2)


def test_limits_of_ones_own_are_the_trees_questions(found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    (path,) = found("--latency-ms", "11", "--min-sqnr-db", "15", "--p99-ms", "16")["decision_tree"]
    assert [branch["question"] for branch in path["branches"]] == [
        "median latency < 11 ms",
        "p99 latency < 16 ms",
        "peak memory < 4 GB (3,814.7 MiB)",
        "SQNR ≥ 15 dB",
    ]


def test_a_path_to_what_does_not_hold_says_so(recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    code, out, _ = recommend("--scenario", "real-time", "--latency-ms", "5")
    assert code == 3
    assert line_of(out, "path of net: ").endswith("lowest latency → net-int8 (does it hold the limits? no)")


# Nothing qualifies.


def test_nothing_qualifies_and_the_nearest_miss_of_each_limit(recommend: Run, found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    argv = ("--latency-ms", "9", "--memory", "120MiB", "--min-sqnr-db", "70")
    code, out, _ = recommend(*argv)
    assert code == 3
    assert "0 of 3 pairs hold (3 no)" in out
    latency, memory, sqnr = out.partition("nearest misses:\n")[2].splitlines()[:3]
    assert (
        latency
        == "median latency < 9 ms: nearest: net-int8, above by 1.10 ms (12.2 %); no: 10.0 ms (9.90 ms … 10.1 ms)"
    )
    assert (
        memory == "peak memory < 120.0 MiB: held by 1 pair; nearest: net-fp16, above by 30.0 MiB (25 %); no: 150.0 MiB"
    )
    assert sqnr == "SQNR ≥ 70 dB: held by 1 pair; nearest: net-fp16, short by 10.0 dB (14.3 %); no: 60.0 dB"
    misses = found(*argv)["nearest_misses"]
    assert [miss["pair"] for miss in misses] == ["net-int8", "net-fp16", "net-fp16"]
    assert [miss["excess"] for miss in misses] == pytest.approx([1.1, 30 * MIB, 10.0])


def test_what_every_pair_holds_has_no_nearest_miss(recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    out = recommend("--latency-ms", "9", "--memory", "1GiB")[1]
    assert "peak memory < 1,024.0 MiB: held by every pair" in out


def test_undecided_does_not_qualify(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(latency_ms=15.95))
    code, out, _ = recommend("--scenario", "real-time")
    assert code == 3
    assert "0 of 1 pair hold (1 undecided)" in out
    assert "nearest: net-int8, above by 0.110 ms (0.684 %); undecided: 15.9 ms" in out


def test_what_failed_is_named(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(), failed=[Failure("net-int4", "PrecisionError", "no layer touched", "net")])
    assert "failed: net-int4: PrecisionError: no layer touched" in recommend()[1]


def test_an_interrupted_run_says_so(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(), complete=False)
    assert "this run was interrupted" in recommend()[1]


# Costs.


def test_costs_by_hand(recommend: Run, found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    argv = ("--gpu-hour-cost", "2", "--load", "95", "--migration-cost", "2400")
    fp32, fp16, int8 = found(*argv)["costs"]
    assert fp32["cost_per_million_images"] == pytest.approx(2 * 10**6 / 36000)
    assert [cost["instances"] for cost in (fp32, fp16, int8)] == [10, 3, 4]  # 9.5, 2.375 and 3.8
    assert fp32["saving_per_hour"] is None
    assert (fp16["saving_per_hour"], int8["saving_per_hour"]) == (14.0, 12.0)
    assert int8["payback_hours"] == pytest.approx(200.0)
    assert int8["three_year_return"] == pytest.approx((12 * 26280 - 2400) / 2400)
    out = section_of(recommend(*argv)[1], "What it costs")
    assert "cost per million images = 2 an hour × 1,000,000 ÷ (throughput × 3,600 s)" in out
    assert "instances = ⌈95 images/s ÷ throughput⌉, each busy all the time" in out
    assert "payback = 2400 ÷ saving an hour; never where nothing is saved" in out
    assert "three-year return = (saving an hour × 26,280 h − 2400) ÷ 2400" in out
    assert line_of(out, "net-int8").split() == ["net-int8", "25", "22.22", "4", "12", "8.333", "days", "+13,040", "%"]


def test_a_load_that_fills_instances_needs_no_further_one(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(throughput_ips=25.0))
    assert found("--load", "100")["costs"][0]["instances"] == 4
    assert found("--load", "100.1")["costs"][0]["instances"] == 5


def test_no_saving_never_pays_back(found: Found, recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(precision="fp32", throughput_ips=100.0), record(throughput_ips=90.0))
    argv = ("--gpu-hour-cost", "2", "--load", "50", "--migration-cost", "100")
    cost = found(*argv)["costs"][1]
    assert (cost["saving_per_hour"], cost["payback_hours"], cost["three_year_return"]) == (0.0, "never", -1.0)
    assert line_of(section_of(recommend(*argv)[1], "What it costs"), "net-int8").split()[-3:] == ["never", "-100", "%"]


def test_a_free_migration_has_no_return_over_its_cost(found: Found, tmp_path: Path) -> None:
    three(tmp_path)
    cost = found("--gpu-hour-cost", "2", "--load", "95", "--migration-cost", "0")["costs"][1]
    assert (cost["payback_hours"], cost["three_year_return"]) == (0.0, None)


def test_savings_are_against_fp32_of_the_same_batch(found: Found, tmp_path: Path) -> None:
    write(tmp_path / "run", record(precision="fp32", throughput_ips=10.0), record(batch=8))
    assert found("--gpu-hour-cost", "2", "--load", "95")["costs"][1]["saving_per_hour"] is None


def test_a_price_or_a_load_alone(recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    assert "savings against FP32 need --load too" in recommend("--gpu-hour-cost", "2")[1]
    assert "savings against FP32 need --gpu-hour-cost too" in recommend("--load", "2")[1]
    assert "What it costs" not in recommend()[1]


def test_no_throughput_is_not_measured(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run", record(throughput_ips=None))
    assert "not measured" in line_of(section_of(recommend("--load", "2")[1], "What it costs"), "net-int8")


# Wrong usage and errors.


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 * 2**30),
        ("100MB", 10**8),
        ("1.5MiB", 3 * 2**19),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("1 TB", 10**12),
        ("4096", 4096),
        ("12B", 12),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert size_in_bytes(text) == count


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--memory", text) for text in ("", "4G", "4Gi", "four", "-1GiB", "0", "1e9", "nan", "0.1")),
        *(("--min-top1", text) for text in ("99", "99%", "0", "-0.5", "nan")),
        *(("--latency-ms", text) for text in ("0", "-1", "inf", "nan", "16ms")),
        ("--p99-ms", "0"),
        ("--min-sqnr-db", "inf"),
        ("--gpu-hour-cost", "0"),
        ("--load", "-5"),
        ("--migration-cost", "-1"),
        ("--migration-cost", "100"),  # without a price and a load
        ("--scenario", "mobile"),
        ("--format", "html"),
    ],
)
def test_wrong_usage(recommend: Run, tmp_path: Path, option: str, value: str) -> None:
    three(tmp_path)
    code, out, err = recommend(f"{option}={value}")
    assert (code, out) == (2, "")
    assert option in err


def test_no_results_are_an_error(recommend: Run) -> None:
    code, _, err = recommend()
    assert code == 1
    assert "cannot read results" in err


def test_results_without_a_pair_are_an_error(recommend: Run, tmp_path: Path) -> None:
    write(tmp_path / "run")
    code, _, err = recommend()
    assert code == 1
    assert "no pair was measured" in err


# Formats.


def test_json_has_the_figures_of_the_text(found: Found, recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    argv = ("--latency-ms", "16", "--memory", "1GiB", "--gpu-hour-cost", "2", "--load", "95")
    out, whole = recommend(*argv)[1], found(*argv)
    pairs = section_of(out, "The pairs, and which are Pareto-best of their model")
    limits = section_of(out, "Which pairs hold the limits")
    for pair in whole["pairs"]:
        row = line_of(pairs, pair["pair"])
        low, high = (milliseconds(pair[f"latency_{end}_ms"]) for end in ("low", "high"))
        assert milliseconds(pair["latency_ms"]) in row
        assert f"{low} … {high}" in row
        assert size(pair["peak_memory_bytes"]) in row
        first, second = pair["checks"]
        row = line_of(limits, pair["pair"])
        assert f"{first['answer']}: {milliseconds(first['value'])} ({low} … {high})" in row
        assert f"{second['answer']}: {size(second['value'])}" in row
        assert row.endswith(pair["holds"])
    for formula in whole["formulas"]:
        assert formula in out.splitlines()


def test_markdown_is_tables_of_github(recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    code, out, _ = recommend("--latency-ms", "16", "--format", "markdown")
    assert code == 0
    assert out.startswith("### Which pair to deploy\n\n- asked for: median latency &#60; 16 ms; ")
    assert "| net | net-int8 | net-int8 | net-fp16 | fast = balanced |" in out


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[str, ...]:
    """Results with hostile names of everything that a name may come from, and what to ask of them."""
    rows = [record(name, scheme, disturbance=name) for name in HOSTILE for scheme in ("fp32", "int8")]
    write(tmp_path / "run", *rows, failed=[Failure(name, name, name, name) for name in HOSTILE])
    return ("--latency-ms", "1", "--load", "5")


def test_hostile_names_do_nothing_in_text(recommend: Run, hostile: tuple[str, ...]) -> None:
    for argv in ((), hostile):
        out = recommend(*argv)[1]
        assert not {"\x1b", "\u202e", "\r"} & set(out)
        assert not [line for line in out.splitlines() if line.lstrip().startswith("::")]
    assert r"net\n::error::all is lost-int8" in out


def test_hostile_names_do_nothing_in_markdown(recommend: Run, hostile: tuple[str, ...]) -> None:
    for argv in ((), hostile):
        out = recommend(*argv, "--format", "markdown")[1]
        assert not {"\x1b", "\u202e", "\r", "`", "<", ">", "@"} & set(out)
        assert all(line.startswith(("|", "#", "- ")) or not line for line in out.splitlines())
        widths = {line.count("|") - 1 for line in out.splitlines() if line.startswith("|")}
        assert widths <= {3, 4, 5, 7}  # limits and costs, the tree, the tiers, the pairs


def test_hostile_names_survive_in_json(recommend: Run, hostile: tuple[str, ...]) -> None:
    out = recommend(*hostile, "--format", "json")[1]
    assert out.isascii()
    assert {pair["model"] for pair in json.loads(out)["pairs"]} == set(HOSTILE)


def test_the_same_input_gives_the_same_output(recommend: Run, tmp_path: Path) -> None:
    three(tmp_path)
    for form in ("text", "markdown", "json"):
        assert recommend("--format", form) == recommend("--format", form)


def test_recommending_loads_no_torch(tmp_path: Path) -> None:
    three(tmp_path)
    script = """
import sys
from pytest_vq.cli.main import main
assert main(["recommend", "run", "--p99-ms", "5"]) == 3
heavy = {"torch", "transformers", "bitsandbytes"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# A reader that stops early.


def unread(directory: Path, *argv: str) -> tuple[int, str]:
    """The exit code and the errors of a command whose output nobody reads."""
    script = f"import sys; from pytest_vq.cli.main import main; sys.exit(main({argv!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        return process.wait(timeout=60), errors


@pytest.mark.parametrize("models", [1, 300], ids=["fits the buffer", "does not fit the buffer"])
def test_a_reader_that_stops_early_is_no_error(tmp_path: Path, models: int) -> None:
    write(tmp_path / "run", *(record(f"net-{number:03}") for number in range(models)))
    assert unread(tmp_path, "recommend", "run", "--latency-ms", "1") == (3, "")


def test_help_to_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    assert unread(tmp_path, "recommend", "--help") == (0, "")
