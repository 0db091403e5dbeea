"""The terminal summary: a table a person can read, and the reason of every verdict that is not PASS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_vq.report.escaping import plain
from pytest_vq.report.table import reasons, records_table
from pytest_vq.schema.record import Record
from pytest_vq.schema.verdict import Status

if TYPE_CHECKING:
    from pytest_vq.plugin.run import Run


def write_summary(terminal: pytest.TerminalReporter, run: Run) -> None:
    """Write the table, the reasons and what happened to files and baselines; nothing where nothing was measured."""
    records = [outcome.record for _, outcome in run.rows]
    if not records and not run.failures and not run.notes:
        return
    terminal.section("pytest-vq", sep="=")
    if records:
        environments = [outcome.environment for _, outcome in run.rows]
        devices = " and ".join(sorted({environment.device_name for environment in environments}))
        torches = " and ".join(sorted({str(environment.versions.get("torch")) for environment in environments}))
        first = records[0]
        threads = f", {first.setup.threads} thread(s)" if first.setup.threads else ""
        weights = " and ".join(sorted({r.setup.weights for r in records if r.setup.weights is not None}))
        protocols = " and ".join(dict.fromkeys(record.setup.protocol for record in records))
        terminal.line(
            f"{devices}, torch {torches}{threads}, {protocols} protocol{f', {weights} weights' if weights else ''}"
        )
        terminal.line(records_table(records))
    for line, colour in reasons(records):
        terminal.line(_shown(line), **colour)
    for record in records:
        if record.note is not None:
            terminal.line(_shown(f"NOTE {record.id}: {record.note}"))
    for line in left_out_lines(run.session.left_out):
        terminal.line(_shown(line))
    for failure in run.failures:
        terminal.line(_shown(f"ERROR {failure.id}: {failure.error}: {failure.message}"), red=True)
    _write_counts(terminal, run, records)


def left_out_lines(left_out: Mapping[str, str]) -> list[str]:
    """What a group or a glob would have held beside what was selected, a line for each reason."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return [f"LEFT OUT {', '.join(group)}: {reason}" for reason, group in names.items()]


def _write_counts(terminal: pytest.TerminalReporter, run: Run, records: Sequence[Record]) -> None:
    verdicts = Counter(str(record.verdict) for record in records if record.verdict is not None)
    if verdicts:
        terminal.line(", ".join(f"{count} {status}" for status, count in verdicts.most_common()))
    options = run.session.options
    if verdicts[Status.NO_BASELINE] and not options.save:
        slug = run.rows[0][1].environment.device_slug
        terminal.line(f"no baseline in {options.baselines / slug} for some: record them with --vq-save")
    if records:
        terminal.line(f"results: {options.output}")
    for note in run.notes:
        failed, warned = note.startswith("ERROR"), note.startswith("WARNING")
        terminal.line(_shown(note), red=failed, yellow=warned, bold=warned)


def _shown(text: str) -> str:
    """``text``, line by line, with nothing in it that a terminal or a CI runner obeys: an error may quote anything."""
    return "\n".join(map(plain, text.split("\n")))
