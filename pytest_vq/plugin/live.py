"""The live line: what is being measured, how far the run is, and how long it will still take."""

from __future__ import annotations

import time

import pytest

from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.wording import figure

_NAMED = 2  # of those that are being measured at once


class Progress:
    """On a terminal one line that rewrites itself; elsewhere (CI logs) one plain line per finished row."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started_s: float | None = None
        self._done = self._kept = 0
        self._running: dict[str, str] = {}  # node id -> what it measures
        self._told = 0  # how many there are to measure, where only workers know it
        self.selected: dict[str, CaseId] = {}  # by node id; empty in xdist's controller, which collects none
        self.compiling: frozenset[str] = frozenset()  # node ids of those that are compiled first

    def start(self, nodeid: str) -> None:
        """A test begins."""
        if self._started_s is None:
            self._started_s = time.monotonic()
        if nodeid in self.selected:
            self._begin(nodeid, str(self.selected[nodeid]))

    def hear(self, nodeid: str, case_id: str, selected: int) -> None:
        """A worker measures ``case_id``, one of so many that are selected: what `start` knows without workers."""
        self._told = selected
        if nodeid not in self._running:
            self._begin(nodeid, case_id)

    def _begin(self, nodeid: str, what: str) -> None:
        self._running[nodeid] = what
        terminal = self._terminal()
        if terminal is not None and terminal.hasmarkup:
            doing = "compiling and measuring" if nodeid in self.compiling else "measuring"
            named = list(self._running.values())[-_NAMED:]
            more = len(self._running) - len(named)
            line = f"{self._count()} {doing} {', '.join(named)}{f' (+{more})' if more else ''}"
            terminal.rewrite(f"{line}{self._left(len(self._running) - 1)}", erase=True)

    def finish(self, nodeid: str, record: Record, kept: bool = False) -> None:
        """A pair or callable has its row; one that was ``kept`` took no time, and tells nothing of the others."""
        self.fail(nodeid)
        self._kept += kept
        terminal = self._terminal()
        if terminal is None:
            return
        line = f"{self._count()} {record.id}  {summarised(record)}{'  kept' if kept else ''}"
        if terminal.hasmarkup:
            terminal.rewrite(f"{line}{self._left(len(self._running))}", erase=True)
        else:
            terminal.write(f"\n{line}{self._left(len(self._running))}", flush=True)

    def fail(self, nodeid: str) -> None:
        """One ended without a row; pytest's own letter says so."""
        self._done += 1
        self._running.pop(nodeid, None)

    @property
    def speaks(self) -> bool:
        """True where this class tells of every row, and pytest's own dots would only be in the way."""
        return self._terminal() is not None

    def _terminal(self) -> pytest.TerminalReporter | None:
        # -q asks for quiet; with -v pytest's own line per test already says it.
        if self._config.get_verbosity() != 0:
            return None
        terminal: pytest.TerminalReporter | None = self._config.pluginmanager.get_plugin("terminalreporter")
        return terminal

    @property
    def _total(self) -> int:
        return len(self.selected) or self._told

    def _count(self) -> str:
        return f"[{self._done}/{self._total}]" if self._total else f"[{self._done}]"

    def _left(self, others: int) -> str:
        """The time left, where ``others`` are being measured beside the one that the line is about."""
        measured = self._done - self._kept
        if not measured or self._done >= self._total or self._started_s is None:
            return ""
        halves = others / 2  # of those that run, half is done on the average
        each_s = (time.monotonic() - self._started_s) / (measured + halves)
        left_s = each_s * (self._total - self._done - halves)
        return f", about {left_s / 60:.0f} min left" if left_s >= 90 else f", about {left_s:.0f} s left"


def compiling_line(pairs: int, on_accelerator: bool) -> str:
    """What a run says before it begins to compile so many pairs."""
    each = "20 to 60 s" if on_accelerator else "10 to 60 s"
    few = "1 pair is" if pairs == 1 else f"{pairs} pairs are"
    return f"{few} compiled before being measured, from a cold cache: {each} each, and again in each fresh process"


def summarised(record: Record) -> str:
    """A row in a few words: ``75.1 ms  0.48x  PASS``."""
    words = [f"{figure(record.timing.latency_ms)} ms"]
    if record.timing.speedup is not None and record.fidelity.sqnr_db is not None:
        words += [f"{record.timing.speedup:.2f}x", f"{record.fidelity.sqnr_db:.1f} dB"]
    if record.preparation.prepare_s is not None:
        words.append(f"prepared in {figure(record.preparation.prepare_s)} s")
    if record.verdict is not None:
        words.append(str(record.verdict))
    return "  ".join(words)
