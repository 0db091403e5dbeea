"""A circuit breaker, pure: what each execution of a quantized model did, in; whether the next may run, out.

States and settings have resilience4j's names ("CircuitBreaker", resilience4j.readme.io): CLOSED lets all through, OPEN
none, HALF_OPEN a few probes after the wait. Unlike there, what opens it is no count in a window but a test that may be
looked at after every execution (`pytest_vq.serve.evidence`): a window of 100 alarms for ever at half the threshold.
Times are handed in, of any clock that only goes forward. Not thread-safe: the guard holds a lock around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pytest_vq.serve.evidence import ExceedanceEvidence
from pytest_vq.wording import plain_percent


class State(StrEnum):
    """Of a circuit breaker."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens, and how it closes again."""

    failure_rate_threshold: float = 0.01  # a share, of rows
    slow_call_duration_threshold: float | None = None  # seconds; None: no call is too slow
    wait_duration_in_open_state: float = 60.0  # seconds
    permitted_number_of_calls_in_half_open_state: int = 10
    false_alarm: float = 0.01  # the probability that it ever opens, by its test, at a rate of the threshold
    failed_in_a_row: int = 3  # executions that failed wholly; at 1 %, a millionth of all triples

    def __post_init__(self) -> None:
        for name in ("failure_rate_threshold", "false_alarm"):
            if not 0 < (share := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {share} is not between 0 and 1; give a share such as 0.01")
        slow_s, wait_s = self.slow_call_duration_threshold, self.wait_duration_in_open_state
        if slow_s is not None and not slow_s > 0:
            raise ValueError(f"slow_call_duration_threshold: {slow_s} is not above 0 seconds")
        if not wait_s >= 0:
            raise ValueError(f"wait_duration_in_open_state: {wait_s} is less than 0 seconds")
        for name in ("permitted_number_of_calls_in_half_open_state", "failed_in_a_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, when it was, and why."""

    at_s: float
    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to execute once. What an execution reports is believed only in the period it was permitted in."""

    period: int
    is_probe: bool


class CircuitBreaker:
    """Gives leave to execute, and learns from what came of it. ``on_transition`` is told of every change of state."""

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        state: State = State.CLOSED,
        now_s: float = 0.0,
        on_transition: Callable[[Transition], object] | None = None,
    ) -> None:
        self.settings = settings or BreakerSettings()
        self.state = state
        self._on_transition = on_transition
        self._period = 0
        self._opened_s = now_s
        self._stays_open = False
        self._in_a_row = 0
        self._begin_period()

    def permit(self, now_s: float) -> Permit | None:
        """Leave to execute the quantized model once; None where FP32 answers."""
        if self.state is State.OPEN and not self._stays_open:
            waited_s = now_s - self._opened_s
            if waited_s >= self.settings.wait_duration_in_open_state:
                self._change(State.HALF_OPEN, now_s, f"after {waited_s:.3g} s of FP32 it is tried again")
        if self.state is State.CLOSED:
            return Permit(self._period, is_probe=False)
        if self.state is State.HALF_OPEN and self._probes_left:
            self._probes_left -= 1
            return Permit(self._period, is_probe=True)
        return None

    def record(self, permit: Permit, rows: int, failed: int, now_s: float) -> None:
        """Learn that of an execution's ``rows`` so many ``failed``. Of an earlier period's it learns nothing."""
        if not 0 <= failed <= rows or rows < 1:
            raise ValueError(f"{failed} failed of {rows} rows")
        if permit.period != self._period:
            return
        if permit.is_probe:
            self._record_probe(rows, failed, now_s)
        else:
            self._record_closed(rows, failed, now_s)

    def forget(self, permit: Permit) -> None:
        """Take a permit back whose execution says nothing of the model, because its input fits none."""
        if permit.period == self._period and permit.is_probe:
            self._probes_left += 1

    def open_for_good(self, now_s: float, reason: str) -> None:
        """Open, and let nothing through any more: FP32's own cost can be measured, or a broken device left alone."""
        self._stays_open = True
        if self.state is not State.OPEN:
            self._change(State.OPEN, now_s, reason)

    def _record_closed(self, rows: int, failed: int, now_s: float) -> None:
        evidence = self._evidence.add(failed / rows)
        self._in_a_row = self._in_a_row + 1 if failed == rows else 0
        executions, threshold = self._evidence.executions, self.settings.failure_rate_threshold
        if self._in_a_row >= self.settings.failed_in_a_row:
            reason = f"{self._in_a_row} executions in a row failed wholly"
        elif evidence >= 1 / self.settings.false_alarm:
            reason = (
                f"more than {plain_percent(threshold)} of rows fail: evidence {evidence:.3g} after {executions} "
                f"executions, {1 / self.settings.false_alarm:.3g} is enough"
            )
        else:
            return
        self._change(State.OPEN, now_s, reason)

    def _record_probe(self, rows: int, failed: int, now_s: float) -> None:
        if failed:
            self._change(State.OPEN, now_s, f"{failed} of {rows} rows of a probe failed")
            return
        self._good_probes += 1
        if self._good_probes == self.settings.permitted_number_of_calls_in_half_open_state:
            self._change(State.CLOSED, now_s, f"{self._good_probes} probes in a row were good")

    def _change(self, after: State, now_s: float, reason: str) -> None:
        before, self.state = self.state, after
        if after is State.OPEN:
            self._opened_s = now_s
        self._begin_period()
        if self._on_transition is not None:
            self._on_transition(Transition(now_s, before, after, reason))

    def _begin_period(self) -> None:
        """A state begins with nothing known of it: what was before is another time's, or another model's."""
        self._period += 1
        self._evidence = ExceedanceEvidence(self.settings.failure_rate_threshold)
        self._in_a_row = 0
        self._good_probes = 0
        self._probes_left = self.settings.permitted_number_of_calls_in_half_open_state
