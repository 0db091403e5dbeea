"""What measuring hands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_vq.schema.estimates import Operator
from pytest_vq.schema.record import PairSamples, Record


@dataclass(frozen=True, slots=True)
class Measured:
    """A record without a verdict, every sample behind it and, where asked for, its operators."""

    record: Record
    samples: PairSamples
    operators: Mapping[str, Operator] | None = None
