"""Every sample of every pair, beside the results: ``samples.jsonl``, a line for each pair and process.

Lines are appended whole as pairs finish. Times are in milliseconds per call, to the nanosecond: finer than any clock
here tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pytest_vq.errors import ResultsError
from pytest_vq.files import append_line
from pytest_vq.schema.outcome import Outcome
from pytest_vq.schema.record import PairSamples, Samples
from pytest_vq.schema.spec import CaseId

SAMPLES = "samples.jsonl"
_DIGITS = 6  # of a millisecond

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class SamplesLine:
    """The samples that one process took of one pair."""

    model: str
    scheme: str
    batch: int
    samples: PairSamples
    test: str | None = None  # node id of the test; lines of before it was kept hold none
    serving: bool = False

    @property
    def case_id(self) -> CaseId:
        """What identifies the pair."""
        return CaseId(self.model, self.scheme, self.batch, self.serving)


@dataclass(frozen=True, slots=True)
class Dated:
    """What a stored process tells of itself, where no more is read: when it began to measure."""

    date_utc: str


@dataclass(frozen=True, slots=True)
class SamplesHead:
    """What a line tells but for its times: quickly read."""

    model: str
    scheme: str
    batch: int
    samples: Dated
    test: str | None = None
    serving: bool = False

    @property
    def case_id(self) -> CaseId:
        """What identifies the pair."""
        return CaseId(self.model, self.scheme, self.batch, self.serving)

    @property
    def key(self) -> tuple[str | None, CaseId]:
        """The test, and the pair: what there is one row of in a run."""
        return self.test, self.case_id

    @property
    def date_utc(self) -> str:
        """When the process that took these samples began to measure."""
        return self.samples.date_utc


def lines_of(outcome: Outcome) -> list[SamplesLine]:
    """The samples of every process that ``outcome`` was measured in."""
    pair = outcome.record.case_id
    return [
        SamplesLine(pair.model, pair.scheme, pair.batch, samples, outcome.test, pair.serving)
        for samples in outcome.samples
    ]


def append_samples(directory: Path, lines: Iterable[SamplesLine]) -> None:
    """Append ``lines`` to the samples in ``directory``. Raises OSError where one does not fit whole."""
    for line in lines:
        append_line(directory / SAMPLES, _encoded(line))


def read_samples(directory: Path) -> tuple[SamplesLine, ...]:
    """The samples in ``directory``, in the order they were written; none where none were kept.

    The end of a line that a killed process did not finish is passed over. Raises ResultsError for a file that is not
    one of samples.
    """
    return tuple(line for _, line in _decoded(directory, SamplesLine))


def samples_by_pair(directory: Path) -> dict[tuple[str | None, CaseId], list[tuple[str, bytes]]]:
    """Each test and pair with its lines, as they stand in the file, and their dates; see `read_samples`."""
    found: dict[tuple[str | None, CaseId], list[tuple[str, bytes]]] = {}
    for raw, head in _decoded(directory, SamplesHead):
        found.setdefault(head.key, []).append((head.date_utc, raw))
    return found


def filter_samples(directory: Path, is_kept: Callable[[SamplesHead], bool]) -> bytes:
    """The content of the file with those lines alone that are kept, each as it stands there; see `read_samples`."""
    return b"".join(raw + b"\n" for raw, head in _decoded(directory, SamplesHead) if is_kept(head))


def decode_samples(line: bytes) -> PairSamples:
    """The samples in one line of the file."""
    import msgspec

    return msgspec.json.decode(line, type=SamplesLine).samples


def encode_samples(lines: Iterable[SamplesLine]) -> bytes:
    """``lines`` as the content of the file."""
    return b"".join(_encoded(line) for line in lines)


def _decoded(directory: Path, kind: type[Kind]) -> Iterator[tuple[bytes, Kind]]:
    """Each whole line of the file, without its end, and what it says."""
    import msgspec

    path = directory / SAMPLES
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResultsError(f"cannot read samples from {path}: {error.strerror or error}") from error
    decoder = msgspec.json.Decoder(kind)
    try:
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            yield line, decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is not a {SAMPLES} of pytest-vq: {error}") from error


def _encoded(line: SamplesLine) -> bytes:
    import msgspec

    pair = line.samples
    reference, sentinel = (None if one is None else _rounded(one) for one in (pair.reference, pair.sentinel))
    rounded = replace(pair, subject=_rounded(pair.subject), reference=reference, sentinel=sentinel)
    return msgspec.json.encode(replace(line, samples=rounded)) + b"\n"


def _rounded(samples: Samples) -> Samples:
    blocks = tuple(tuple(round(ms, _DIGITS) for ms in block) for block in samples.blocks_ms)
    return replace(samples, blocks_ms=blocks)
