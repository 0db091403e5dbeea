"""What one decision is made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pytest_vq.gate.noise import Noise
from pytest_vq.gate.policy import DEFAULT, Policy
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.verdict import Tolerances


@dataclass(frozen=True, slots=True)
class Question:
    """Is this worse than it was? Fresh processes, what there is to compare them with, and what is asked of them.

    ``comparisons`` is the number of pairs and callables in the suite, which share one error rate. ``min_sqnr_db`` is
    the precision's lower bound; the tolerances' replaces it.
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

    def until_confirmed(self) -> Question:
        """The same of no more candidates than the confirming look takes."""
        return replace(self, candidates=self.candidates[: self.policy.confirming_look])

    @property
    def confirms(self) -> bool:
        """Whether the candidates are enough to believe a FAIL."""
        return len(self.candidates) >= self.policy.confirming_look
