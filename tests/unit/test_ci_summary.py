"""The summary of a job: counts first, what fails in sight, the rest folded, and never more than GitHub takes."""

from __future__ import annotations

from test_comment import FAILED, HOSTILE, PASSED, judged, make_results, table_rows

from pytest_vq.report.job_summary import LIMIT_BYTES, job_summary
from pytest_vq.schema.outcome import Failure
from pytest_vq.schema.verdict import Status


def written(*arguments, **changes) -> str:
    text = job_summary(*arguments, **changes)
    assert text is not None
    return text


def test_counts_come_first_and_passes_are_folded() -> None:
    unsure = judged(Status.INCONCLUSIVE, "a busy neighbour", "other-net")
    failure = Failure("net-int4", "BuildError", "no such file")
    text = written(make_results(PASSED, unsure, FAILED, failures=(failure,)))
    assert text.startswith("## pytest-vq: 1 FAIL, 1 INCONCLUSIVE, 1 PASS, 1 not measured\n\nMeasured on A CPU.\n")
    open_part, _, folded = text.partition("<details><summary>1 PASS</summary>\n\n")
    assert [row.split(" ")[1] for row in table_rows(open_part)] == ["net-int8", "other-net-int8", "net-int4"]
    assert [row.split(" ")[1] for row in table_rows(folded)] == ["fine-net-int8"]
    assert folded.endswith("\n</details>\n")
    assert "Cut here" not in text


def test_what_is_folded_is_ordered_by_verdict() -> None:
    text = written(make_results(PASSED, judged(Status.NO_BASELINE), judged(Status.IMPROVED, "", "a-net")))
    assert "<summary>1 NO_BASELINE, 1 IMPROVED, 1 PASS</summary>" in text
    assert [row.split(" ")[3] for row in table_rows(text)] == ["NO_BASELINE", "IMPROVED", "PASS"]


def test_what_the_run_had_to_say_and_that_it_was_interrupted() -> None:
    text = written(make_results(PASSED, complete=False), ["ERROR: <no> baseline"])
    assert "The run was interrupted" in text
    assert "- ERROR: &#60;no&#62; baseline\n" in text


def test_it_is_cut_on_a_row_below_the_limit() -> None:
    many = [judged(Status.PASS, "", f"net-{i}") for i in range(20_000)]
    text = written(make_results(FAILED, *many))
    assert LIMIT_BYTES - 1000 < len(text.encode()) <= LIMIT_BYTES
    rows = table_rows(text)
    assert rows[0].startswith("| net-int8 | FAIL |")  # what fails is cut last
    assert f"rows left out: {20_001 - len(rows)} others. results.csv" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_where_there_is_no_room_for_anything_there_is_none() -> None:
    assert job_summary(make_results(FAILED), limit_bytes=100) is None
    short = written(make_results(FAILED), limit_bytes=400)
    assert len(short.encode()) <= 400
    assert table_rows(short) == []
    assert "rows left out: 1 FAIL." in short


def test_names_do_nothing() -> None:
    text = written(make_results(*[judged(Status.FAIL, name, name) for name in HOSTILE]))
    assert len(table_rows(text)) == len(HOSTILE)
    assert "<" not in text
    assert "\x1b" not in text
