"""A rollout, pure: a quantized model is let in by shares of the traffic, or sent back, by what its executions did.

SHADOW (it runs on copies and never answers) → 10 → 50 → 90 → 100 % of the keys, or ROLLED_BACK, which nothing leaves: a
person fixes the model and begins another rollout. Each step needs proof (`pytest_vq.serve.evidence`) that less than the
threshold fails, from all executions since the beginning and from those of the stage alone; no evidence is ever reset.
Traffic itself is moved by others (Argo, KServe, Ray): they ask `Rollout.answers`, or follow its stage.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from pytest_vq.serve.evidence import ExceedanceEvidence, ShortfallEvidence
from pytest_vq.wording import count, plain_percent


class Stage(StrEnum):
    """How far a rollout has come."""

    SHADOW = "SHADOW"
    CANARY_10 = "CANARY_10"
    CANARY_50 = "CANARY_50"
    CANARY_90 = "CANARY_90"
    FULL = "FULL"
    ROLLED_BACK = "ROLLED_BACK"

    @property
    def share(self) -> float:
        """Of the keys that the quantized model answers."""
        return _SHARES.get(self, 0.0)


_SHARES = {Stage.CANARY_10: 0.10, Stage.CANARY_50: 0.50, Stage.CANARY_90: 0.90, Stage.FULL: 1.0}
_WAY = (Stage.SHADOW, *_SHARES)
PROMOTIONS = len(_WAY) - 1
_FAILURES, _DISAGREEMENT, _SLOWER = "failed rows", "rows that disagree with FP32", "executions slower than FP32"


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """What a rollout demands. A rate that is None is not judged."""

    failure_rate_threshold: float = 0.01  # of rows
    max_disagreement_rate: float | None = None  # of rows: another class than FP32's or, with labels, a lost right one
    max_slower_rate: float | None = None  # of executions; 0.5: the median must be faster than FP32
    wrong_promotion: float = 0.01  # the probability of any promotion beyond a threshold, split over all of them
    false_alarm: float = 0.01  # the probability that one rate, just at its threshold, ever rolls back by its test
    failed_in_a_row: int = 3  # executions that failed wholly
    salt: str = ""  # of the keys' hash: another one assigns other keys

    def __post_init__(self) -> None:
        for name in ("failure_rate_threshold", "max_disagreement_rate", "max_slower_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < 1:
                raise ValueError(f"{name}: {rate} is not between 0 and 1; give a share such as 0.01")
        for name in ("wrong_promotion", "false_alarm"):
            if not 0 < (error := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {error} is not between 0 and 1")
        if self.failed_in_a_row < 1:
            raise ValueError(f"failed_in_a_row: {self.failed_in_a_row} is less than 1")

    @property
    def enough_to_promote(self) -> float:
        """The evidence that one promotion needs."""
        return PROMOTIONS / self.wrong_promotion

    @property
    def enough_to_roll_back(self) -> float:
        """The evidence that sends the model back."""
        return 1 / self.false_alarm


@dataclass(frozen=True, slots=True)
class Observation:
    """What one execution of the quantized model did. None: not known, where neither labels nor FP32's answer are."""

    rows: int
    failed: int = 0  # rows that raised, were not finite, ran out of memory or took too long
    disagreed: int | None = None  # rows
    slower: bool | None = None  # than FP32 on the same rows

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"an execution of {self.rows} rows")
        for name in ("failed", "disagreed"):
            number = getattr(self, name)
            if number is not None and not 0 <= number <= self.rows:
                raise ValueError(f"{name}: {number} of {self.rows} rows")


@dataclass(frozen=True, slots=True)
class Decision:
    """A change of stage: after how many executions, and why."""

    executions: int
    before: Stage
    after: Stage
    reason: str


class _Criterion:
    """One rate that must stay below its threshold, with the evidence for both answers."""

    def __init__(self, name: str, rate: float, *, must_be_seen: bool) -> None:
        self.name, self.rate, self.must_be_seen = name, rate, must_be_seen
        self.above = ExceedanceEvidence(rate)
        self.below = ShortfallEvidence(rate)
        self.below_in_stage = ShortfallEvidence(rate)

    def add(self, share: float) -> None:
        for evidence in (self.above, self.below, self.below_in_stage):
            evidence.add(share)

    def allows(self, stage: Stage, enough: float) -> bool:
        """Whether the rate is proven low enough. Only in the shadow has FP32's answer to be there for comparison."""
        if not self.below_in_stage.executions and not self.must_be_seen and stage is not Stage.SHADOW:
            return True
        return bool(min(self.below.value, self.below_in_stage.value) >= enough)


class Rollout:
    """The state machine. The same observations lead to the same decisions, anywhere."""

    def __init__(self, settings: RolloutSettings | None = None) -> None:
        self.settings = settings = settings or RolloutSettings()
        self.stage = Stage.SHADOW
        self.executions = self.rows = self.failed = 0
        self._in_a_row = 0
        optional = ((_DISAGREEMENT, settings.max_disagreement_rate), (_SLOWER, settings.max_slower_rate))
        self._failures = _Criterion(_FAILURES, settings.failure_rate_threshold, must_be_seen=True)
        self._others = {name: _Criterion(name, rate, must_be_seen=False) for name, rate in optional if rate is not None}

    def answers(self, key: str) -> bool:
        """Whether the quantized model answers the requests of ``key``: always the same, and once it does, it stays."""
        return bucket_of(key, self.settings.salt) < self.stage.share

    def observe(self, seen: Observation) -> Decision | None:
        """Count an execution; returns the decision that it brings about. After a rollback nothing is counted."""
        if self.stage is Stage.ROLLED_BACK:
            return None
        self.executions += 1
        self.rows += seen.rows
        self.failed += seen.failed
        self._in_a_row = self._in_a_row + 1 if seen.failed == seen.rows else 0
        self._failures.add(seen.failed / seen.rows)
        if seen.disagreed is not None and _DISAGREEMENT in self._others:
            self._others[_DISAGREEMENT].add(seen.disagreed / seen.rows)
        if seen.slower is not None and _SLOWER in self._others:
            self._others[_SLOWER].add(float(seen.slower))
        if alarm := self._alarm():
            return self._go(Stage.ROLLED_BACK, alarm)
        return self._promotion()

    def roll_back(self, reason: str) -> Decision | None:
        """Send the model back by hand, or by another gate's verdict; None where it is back already."""
        return None if self.stage is Stage.ROLLED_BACK else self._go(Stage.ROLLED_BACK, reason)

    def standing(self) -> list[str]:
        """How far each rate is from either decision, a sentence each."""
        back, on = self.settings.enough_to_roll_back, self.settings.enough_to_promote
        lines = []
        for one in self._criteria():
            allowed = f"{one.name}, {plain_percent(one.rate)} allowed"
            line = f"{allowed}: evidence that more do {one.above.value:.3g} of {back:.3g}"
            if self.stage in _WAY[:-1]:
                overall, own = one.below.value, one.below_in_stage.value
                line += f"; that fewer do {overall:.3g} in all, {own:.3g} in {self.stage}, of {on:.3g} each"
            lines.append(line)
        return lines

    def _criteria(self) -> tuple[_Criterion, ...]:
        return (self._failures, *self._others.values())

    def _alarm(self) -> str | None:
        if self._in_a_row >= self.settings.failed_in_a_row:
            return f"{self._in_a_row} executions in a row failed wholly"
        for one in self._criteria():
            if one.above.value >= self.settings.enough_to_roll_back:
                return (
                    f"more than {plain_percent(one.rate)} {one.name}: evidence {one.above.value:.3g}, "
                    f"{self.settings.enough_to_roll_back:.3g} is enough"
                )
        return None

    def _promotion(self) -> Decision | None:
        enough = self.settings.enough_to_promote
        if self.stage is Stage.FULL or not all(one.allows(self.stage, enough) for one in self._criteria()):
            return None
        here = count(self._failures.below_in_stage.executions, "execution")
        proven = [f"less than {plain_percent(one.rate)} {one.name}" for one in self._criteria() if one.below.executions]
        reason = f"{'; '.join(proven)}: proven by {here} in {self.stage}, and by all so far"
        return self._go(_WAY[_WAY.index(self.stage) + 1], reason)

    def _go(self, after: Stage, reason: str) -> Decision:
        before, self.stage = self.stage, after
        for one in self._criteria():
            one.below_in_stage = ShortfallEvidence(one.rate)  # a stage's own; that of all stages goes on
        return Decision(self.executions, before, after, reason)


def bucket_of(key: str, salt: str = "") -> float:
    """Where ``key`` lies in [0, 1), the same in every process: a key below 0.1 is below 0.5 and 0.9 too."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
