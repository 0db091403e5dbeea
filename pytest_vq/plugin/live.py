"""The live line: what is being measured, how far the run is, and how long it will still take."""

from __future__ import annotations

import time

import pytest

from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.wording import figure


class Progress:
    """On a terminal one line that rewrites itself; elsewhere (CI logs) one plain line per finished row."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started_s: float | None = None
        self._done = 0
        self._kept = 0
        self.selected: dict[str, CaseId] = {}  # by node id; empty in xdist's controller, which collects none
        self.compiling: frozenset[str] = frozenset()  # node ids of those that are compiled first

    def start(self, nodeid: str) -> None:
        """A test begins."""
        if self._started_s is None:
            self._started_s = time.monotonic()
        terminal = self._terminal()
        if terminal is not None and terminal.hasmarkup and nodeid in self.selected:
            doing = "compiling and measuring" if nodeid in self.compiling else "measuring"
            terminal.rewrite(f"{self._count()} {doing} {self.selected[nodeid]}{self._left()}", erase=True)

    def finish(self, record: Record, kept: bool = False) -> None:
        """A pair or callable has its row; one that was ``kept`` took no time, and tells nothing of the others."""
        self._done += 1
        self._kept += kept
        terminal = self._terminal()
        if terminal is None:
            return
        line = f"{self._count()} {record.id}  {summarised(record)}{'  kept' if kept else ''}{self._left()}"
        if terminal.hasmarkup:
            terminal.rewrite(line, erase=True)
        else:
            terminal.write(f"\n{line}", flush=True)

    def fail(self) -> None:
        """One ended without a row; pytest's own letter says so."""
        self._done += 1

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

    def _count(self) -> str:
        return f"[{self._done}/{len(self.selected)}]" if self.selected else f"[{self._done}]"

    def _left(self) -> str:
        measured = self._done - self._kept
        if not measured or self._done >= len(self.selected) or self._started_s is None:
            return ""
        left_s = (time.monotonic() - self._started_s) / measured * (len(self.selected) - self._done)
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
