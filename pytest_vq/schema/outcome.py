"""What one test of a pair, or callable, hands on, and what travels on its report between processes: a line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_vq.schema.estimates import Estimates, Operator
from pytest_vq.schema.record import Environment, PairSamples, Record


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that could not be measured: its id and model, the error's class, and its message."""

    id: str
    error: str
    message: str
    model: str | None = None  # results from before this was stored hold none

    def to_json(self) -> str:
        """As one line of text."""
        return _encoded(self)

    @classmethod
    def from_json(cls, text: str) -> Failure:
        """The failure in ``text``."""
        import msgspec

        return msgspec.json.decode(text, type=cls)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one request of a pair spends its time in, and who holds its memory at the peak, a sentence each."""

    id: str  # the pair's
    operators: Mapping[str, Operator]
    peak_stacks: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As one line of text."""
        return _encoded(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Profile:
        """The profile in ``text``."""
        import msgspec

        return msgspec.json.decode(text, type=cls)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one test of a pair hands on: to the controller's files, to the summary, to the baselines.

    ``samples`` are those of the processes that this outcome was measured in, in the order of ``estimates``; further
    processes of ``--vq-runs`` keep their own beside their results.
    """

    record: Record
    environment: Environment
    estimates: tuple[Estimates, ...]  # one per process that measured this pair
    samples: tuple[PairSamples, ...]
    operators: Mapping[str, Operator] | None = None  # for a baseline; None where the measuring process took none
    explanation: tuple[str, ...] = ()  # of a FAIL: what changed inside
    time_decided: bool | None = None  # whether any timed metric got an answer; None where none was compared
    tolerances_over: float | None = None  # of a FAIL: the worst effect in tolerances; None where a bound was missed
    test: str | None = None  # node id of the test that measured it
    kept: bool = False  # of a run that was resumed: read back from its files, not measured
    replaces: str | None = None  # of one that was measured again: how the stored row's environment differs

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """The pair's own times in the process that its record is of, in milliseconds."""
        return self.samples[0].subject.times_ms

    def to_json(self) -> str:
        """As one line of text."""
        return _encoded(self)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The outcome in ``text``."""
        import msgspec

        return msgspec.json.decode(text, type=cls)


def _encoded(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
