"""Every sample of every pair, beside the results: ``samples.jsonl``, a line for each pair and process.

Lines are appended whole as pairs finish. Times are in milliseconds per call, to the nanosecond: finer than any clock
here tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_vq.errors import ResultsError
from pytest_vq.files import append_line
from pytest_vq.schema.record import PairSamples, Samples
from pytest_vq.schema.spec import CaseId

SAMPLES = "samples.jsonl"
_DIGITS = 6  # of a millisecond


@dataclass(frozen=True, slots=True)
class SamplesLine:
    """The samples that one process took of one pair."""

    model: str
    scheme: str
    batch: int
    samples: PairSamples

    @property
    def case_id(self) -> CaseId:
        """What identifies the pair."""
        return CaseId(self.model, self.scheme, self.batch)


def append_samples(directory: Path, lines: Iterable[SamplesLine]) -> None:
    """Append ``lines`` to the samples in ``directory``. Raises OSError where one does not fit whole."""
    for line in lines:
        append_line(directory / SAMPLES, _encoded(line))


def read_samples(directory: Path) -> tuple[SamplesLine, ...]:
    """The samples in ``directory``, in the order they were written; none where none were kept.

    The end of a line that a killed process did not finish is passed over. Raises ResultsError for a file that is not
    one of samples.
    """
    import msgspec

    path = directory / SAMPLES
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ResultsError(f"cannot read samples from {path}: {error.strerror or error}") from error
    whole = data[: data.rfind(b"\n") + 1]
    try:
        return tuple(msgspec.json.decode(line, type=SamplesLine) for line in whole.splitlines())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is not a {SAMPLES} of pytest-vq: {error}") from error


def encode_samples(lines: Iterable[SamplesLine]) -> bytes:
    """``lines`` as the content of the file."""
    return b"".join(_encoded(line) for line in lines)


def _encoded(line: SamplesLine) -> bytes:
    import msgspec

    pair = line.samples
    reference = None if pair.reference is None else _rounded(pair.reference)
    rounded = replace(pair, subject=_rounded(pair.subject), reference=reference, sentinel=_rounded(pair.sentinel))
    return msgspec.json.encode(replace(line, samples=rounded)) + b"\n"


def _rounded(samples: Samples) -> Samples:
    blocks = tuple(tuple(round(ms, _DIGITS) for ms in block) for block in samples.blocks_ms)
    return replace(samples, blocks_ms=blocks)
