"""What one test of a pair hands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_vq.schema.estimates import Estimates, Operator
from pytest_vq.schema.record import Environment, Record


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one test of a pair hands on: to the controller's files, to the summary, to the baselines."""

    record: Record
    environment: Environment
    estimates: tuple[Estimates, ...]  # one per process that measured this pair
    samples_ms: tuple[float, ...]
    operators: Mapping[str, Operator] = field(default_factory=dict)  # for a baseline, where one is recorded
    explanation: tuple[str, ...] = ()  # of a FAIL: what changed inside

    def to_json(self) -> str:
        """As one line of text, which is all that travels on a report between processes."""
        import msgspec

        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The outcome in ``text``."""
        import msgspec

        return msgspec.json.decode(text, type=cls)
