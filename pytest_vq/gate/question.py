"""What one decision is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_vq.gate.noise import Noise
from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.record import Setup
from pytest_vq.schema.verdict import Tolerances


@dataclass(frozen=True, slots=True)
class Question:
    """Is this pair worse than it was? Fresh processes, what there is to compare them with, and what is asked of them.

    ``comparisons`` is the number of pairs in the suite, which share one error rate. ``min_sqnr_db`` is the precision's
    lower bound; the tolerances' replaces it.
    """

    candidates: tuple[Estimates, ...]  # one a fresh process, the last one the latest
    setup: Setup
    entries: tuple[Entry, ...]  # all baselines of the model on this device
    noise: Noise = field(default_factory=Noise)  # what `learn_noise` made of the device's baselines
    tolerances: Tolerances = field(default_factory=Tolerances)
    min_sqnr_db: float | None = None
    disturbance: str | None = None  # why times taken now cannot be trusted
    comparisons: int = 64
    elsewhere: str | None = None  # where the model has none on this device: the likest device that has some
    policy: Policy = DEFAULT

    @property
    def last_look(self) -> bool:
        """Whether the candidates are as many as there may be."""
        return len(self.candidates) >= self.policy.max_looks
