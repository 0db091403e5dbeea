"""A rollout's log: a line of JSON for what was seen, and for each decision, which must follow from what is above it.

The first line has the settings. A line that a killed process did not finish is passed over; anything else that is not
as a rollout would have written it is an error with its number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pytest_vq.errors import RolloutError
from pytest_vq.files import acquire, append_line, lock_of
from pytest_vq.serve.rollout import Decision, Observation, Rollout, RolloutSettings, Stage

if TYPE_CHECKING:
    from filelock import BaseFileLock

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The first line."""

    schema_version: int
    rollout: RolloutSettings


@dataclass(frozen=True, slots=True)
class Event:
    """Any other line: exactly one of the first three is there."""

    observed: Observation | None = None
    rolled_back: str | None = None  # by hand, and why
    decided: Decision | None = None
    at_utc: str | None = None  # of a decision


@dataclass(frozen=True, slots=True)
class Replayed:
    """A log gone through again: the rollout as it stands, and its decisions with their times."""

    rollout: Rollout
    events: tuple[Event, ...]  # those that hold a decision
    pending: Decision | None  # made of the last line, and not written before the process ended


def replay(lines: Sequence[bytes], name: str) -> Replayed:
    """Make every decision again. Raises RolloutError, naming the line, where one differs or a line is no rollout's."""
    if not lines:
        raise RolloutError(f"{name} is empty: it is no rollout's log, whose first line has the settings")
    rollout = Rollout(_header(lines[0], name).rollout)
    events: list[Event] = []
    due: Decision | None = None
    for number, line in enumerate(lines[1:], start=2):
        where = f"{name}, line {number}"
        event = _event(line, where)
        if event.decided != due:
            raise RolloutError(
                f"{where}: the lines above it lead to {_said(due)}, and it has {_said(event.decided)}. The log was "
                "altered, or written by another version of pytest-vq: begin a new rollout"
            )
        if event.decided is not None:
            events.append(event)
            due = None
        elif event.observed is not None:
            due = rollout.observe(event.observed)
        else:
            due = rollout.roll_back(event.rolled_back or "")
    return Replayed(rollout, tuple(events), due)


def read_rollout(path: Path) -> Replayed:
    """The rollout in the log at ``path``, replayed. Raises RolloutError."""
    return replay(_whole_lines(_bytes_of(path)), str(path))


class RolloutLog:
    """A rollout that writes down what it sees and decides, or goes on where its log ends. A context manager.

    One process at a time writes a log, from as many threads as it likes. What is seen goes to the system at once,
    decisions to the disk: after a power failure observations may be missing, and a decision never without them.

    Args:
        path: of the log; a new one is begun where there is none.
        settings: of the rollout. A log with others is refused.
        now_utc: the time that is written beside a decision.
    """

    def __init__(self, path: Path, settings: RolloutSettings, now_utc: Callable[[], str]) -> None:
        self._path, self._now_utc = path, now_utc
        self._one_at_a_time = threading.Lock()
        self._lock: BaseFileLock = lock_of(path, "rollout")
        acquire(self._lock, RolloutError, f"another process writes {path}: one at a time may")
        try:
            self.rollout = self._resumed(settings) if path.exists() else self._begun(settings)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            self._lock.release()
            raise RolloutError(f"cannot write {path}: {error.strerror or error}") from error
        except RolloutError:
            self._lock.release()
            raise

    def observe(self, seen: Observation) -> Decision | None:
        """As `Rollout.observe`, written down; nothing is after a rollback."""
        with self._one_at_a_time:
            if self.rollout.stage is Stage.ROLLED_BACK:
                return None
            self._write(Event(observed=seen))
            return self._decided(self.rollout.observe(seen))

    def roll_back(self, reason: str) -> Decision | None:
        """As `Rollout.roll_back`, written down."""
        with self._one_at_a_time:
            if self.rollout.stage is Stage.ROLLED_BACK:
                return None
            self._write(Event(rolled_back=reason))
            return self._decided(self.rollout.roll_back(reason))

    def close(self) -> None:
        """Let another process write."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begun(self, settings: RolloutSettings) -> Rollout:
        append_line(self._path, _encoded(Header(SCHEMA_VERSION, settings)))
        return Rollout(settings)

    def _resumed(self, settings: RolloutSettings) -> Rollout:
        data = _bytes_of(self._path)
        lines = _whole_lines(data)
        replayed = replay(lines, str(self._path))
        if replayed.rollout.settings != settings:
            raise RolloutError(f"{self._path} is of a rollout with other settings: begin a new one for these")
        if unfinished := len(data) - sum(map(len, lines)):
            with self._path.open("r+b") as file:
                file.truncate(len(data) - unfinished)
        if replayed.pending is not None:
            append_line(self._path, _encoded(Event(decided=replayed.pending, at_utc=self._now_utc())))
        return replayed.rollout

    def _decided(self, decision: Decision | None) -> Decision | None:
        if decision is not None:
            append_line(self._path, _encoded(Event(decided=decision, at_utc=self._now_utc())))
        return decision

    def _write(self, event: Event) -> None:
        self._file.write(_encoded(event))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RolloutError(f"there is no {path}: name a rollout's log") from error
    except OSError as error:
        raise RolloutError(f"cannot read {path}: {error.strerror or error}") from error


def _whole_lines(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


def _header(line: bytes, name: str) -> Header:
    raw = _decoded(line, Any, f"{name}, line 1")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or "rollout" not in raw:
        raise RolloutError(f"{name}, line 1: no settings of a rollout; is this a rollout's log?")
    if version > SCHEMA_VERSION:
        raise RolloutError(f"{name} has schema version {version}, this pytest-vq reads up to {SCHEMA_VERSION}: upgrade")
    header: Header = _decoded(line, Header, f"{name}, line 1")
    return header


def _event(line: bytes, where: str) -> Event:
    event: Event = _decoded(line, Event, where)
    given = [part for part in (event.observed, event.rolled_back, event.decided) if part is not None]
    if len(given) != 1:
        raise RolloutError(f"{where}: a line has one of observed, rolled_back and decided; this has {len(given)}")
    return event


def _decoded(line: bytes, kind: Any, where: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RolloutError(f"{where}: {error}") from error


def _encoded(value: Header | Event) -> bytes:
    import msgspec

    plain = msgspec.to_builtins(value)
    if isinstance(value, Event):
        plain = {name: part for name, part in plain.items() if part is not None}
    return msgspec.json.encode(plain) + b"\n"


def _said(decision: Decision | None) -> str:
    if decision is None:
        return "no decision"
    return f"{decision.before} → {decision.after} after {decision.executions} executions ({decision.reason})"
