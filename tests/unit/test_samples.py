from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from factories import MIB, make_outcome, make_record, make_samples

from pytest_vq.errors import ResultsError
from pytest_vq.schema.record import PairSamples, Samples
from pytest_vq.store.results import read_results
from pytest_vq.store.results_writer import ResultsWriter
from pytest_vq.store.samples import SamplesLine, append_samples, encode_samples, read_samples


def timed(*blocks_ms: tuple[float, ...], stop_reason: str = "budget") -> Samples:
    return Samples(blocks_ms, stop_reason, 12)


def line(model: str = "net", samples: PairSamples | None = None) -> SamplesLine:
    return SamplesLine(model, "int8", 1, samples or make_samples())


def test_every_sample_of_every_pair_is_there_as_soon_as_the_pair_is_finished(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, {})
    assert read_samples(tmp_path) == ()
    candidate = PairSamples("day 1", timed((4.25, 4.5), (4.75,)), timed((9.0, 9.125), (9.5,)), timed((1.0,), (1.5,)))
    reference = PairSamples("day 1", timed((9.0,), (8.0,), stop_reason="interval"), None, timed((1.0,), (1.25,)))
    expected = []
    for precision, samples in (("fp32", reference), ("int8", candidate)):
        writer.add(make_outcome(make_record("net", precision), samples=(samples,)))
        expected.append(SamplesLine("net", precision, 1, samples))
        assert read_samples(tmp_path) == tuple(expected)
    writer.add(make_outcome(make_record("net", execution="compile", batch=8), samples=(candidate,)))
    assert read_samples(tmp_path)[2] == SamplesLine("net", "int8+compile", 8, candidate)
    writer.close()
    assert [found.case_id for found in read_samples(tmp_path)] == [r.case_id for r in read_results(tmp_path).records]


def test_each_process_that_measured_a_pair_has_a_line(tmp_path: Path) -> None:
    processes = tuple(make_samples((4.0 + n, 4.5 + n), date_utc=f"day {n}") for n in range(3))
    ResultsWriter(tmp_path, {}).add(make_outcome(samples=processes))
    assert [found.samples for found in read_samples(tmp_path)] == list(processes)
    assert len({found.case_id for found in read_samples(tmp_path)}) == 1


def test_a_run_without_samples_leaves_a_file_without_lines(tmp_path: Path) -> None:
    ResultsWriter(tmp_path, {}).add(make_outcome(samples=()))
    assert (tmp_path / "samples.jsonl").read_bytes() == b""
    assert read_samples(tmp_path) == ()


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    pair = PairSamples("2026-01-01T00:00:00Z", timed((4.25, 4.5), (4.75,)), None, timed((1.0,), (1.0,)))
    append_samples(tmp_path, [line(samples=pair)])
    (text,) = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert json.loads(text) == {
        "model": "net",
        "scheme": "int8",
        "batch": 1,
        "samples": {
            "date_utc": "2026-01-01T00:00:00Z",
            "subject": {"blocks_ms": [[4.25, 4.5], [4.75]], "stop_reason": "budget", "warmup_calls": 12},
            "reference": None,
            "sentinel": {"blocks_ms": [[1.0], [1.0]], "stop_reason": "budget", "warmup_calls": 12},
        },
        "test": None,
        "serving": False,
    }


def test_times_are_kept_to_the_nanosecond(tmp_path: Path) -> None:
    taken = timed((1 / 3, 0.1 + 0.2), (1234.567891, 0.000001))
    append_samples(tmp_path, [line(samples=PairSamples("", taken, taken, taken))])
    (found,) = read_samples(tmp_path)
    assert found.samples.subject.blocks_ms == ((0.333333, 0.3), (1234.567891, 0.000001))
    assert found.samples.reference == found.samples.sentinel == found.samples.subject


def test_what_was_read_is_the_same_file_once_more(tmp_path: Path) -> None:
    append_samples(tmp_path, [line("one", make_samples((1 / 3, 2 / 3))), line("two")])
    assert encode_samples(read_samples(tmp_path)) == (tmp_path / "samples.jsonl").read_bytes()


def test_no_file_is_no_samples(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == ()
    assert read_samples(tmp_path / "absent") == ()


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_the_half_line_of_a_killed_process_is_passed_over(tmp_path: Path, kept: int) -> None:
    content = encode_samples([line("whole"), line("also whole")])
    half = encode_samples([line("half")])[:kept]  # at most all but the end of the line
    (tmp_path / "samples.jsonl").write_bytes(content + half)
    assert read_samples(tmp_path) == (line("whole"), line("also whole"))
    (tmp_path / "samples.jsonl").write_bytes(half)
    assert read_samples(tmp_path) == ()


@pytest.mark.parametrize(
    "content",
    [
        b"model,latency_ms\n",
        b'{"model": "net"}\n',
        b'{"a": "\xff\xfe"}\n',
        b"\n",
        encode_samples([line()])[:-20] + b"\n" + encode_samples([line()]),  # a half line that is not the last
        encode_samples([line()]).replace(b"10.1", b'"10.1"', 1),
        encode_samples([line()]).replace(b"10.1", b"null", 1),
    ],
)
def test_what_is_no_file_of_samples_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples.jsonl").write_bytes(content)
    with pytest.raises(ResultsError, match=re.escape(f"{tmp_path / 'samples.jsonl'} is not a samples.jsonl of")):
        read_samples(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.raises(ResultsError, match=r"cannot read samples from .*samples\.jsonl: Is a directory"):
        read_samples(tmp_path)


def test_sixty_four_pairs_of_the_longest_timing_stay_under_10_mib(tmp_path: Path) -> None:
    numbers = random.Random(0)

    def block(count: int, typical_ms: float) -> tuple[float, ...]:
        return tuple(typical_ms * numbers.lognormvariate(0, 0.1) for _ in range(count))

    def workload(blocks: int, typical_ms: float) -> Samples:
        return timed(*(block(30, typical_ms) for _ in range(blocks)))

    sentinel = timed(*(block(5, 3.3) for _ in range(100)))
    pair = PairSamples("2026-01-01T00:00:00Z", workload(100, 250.0), workload(100, 1500.0), sentinel)
    assert [len(taken.times_ms) for taken in (pair.subject, pair.reference, pair.sentinel) if taken] == [
        3000,
        3000,
        500,
    ]
    writer = ResultsWriter(tmp_path, {})
    outcome = replace(make_outcome(), samples=(pair,))
    for n in range(64):
        writer.add(replace(outcome, record=make_record(f"deit-base-patch16-224-{n}")))
    assert (tmp_path / "samples.jsonl").stat().st_size < 10 * MIB
    found = read_samples(tmp_path)
    assert len(found) == 64
    assert found[-1].samples.subject.times_ms == pytest.approx(pair.subject.times_ms, abs=0.5e-6)
