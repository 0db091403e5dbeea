"""Workflow commands by which GitHub shows verdicts beside a test's code, and in a run's overview. Pure.

A command is one line of the log. What stands in it may hold names from anywhere, so all of it is made harmless first,
and escaped as the runner unescapes it after that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_vq.report.escaping import plain

SHOWN = 9  # GitHub shows at most ten of a step, and the tenth says how many more there are
_LONGEST_MESSAGE = 4000  # characters; GitHub keeps 64 KiB of each


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to show at a test; ``line`` counts from 1, and both are None where the test's place is not known."""

    is_error: bool
    title: str
    message: str
    file: str | None = None
    line: int | None = None


def annotation_commands(findings: Sequence[Finding]) -> list[str]:
    """The commands for ``findings``, errors first, otherwise in their order; where there are too many, their number."""
    ordered = sorted(findings, key=lambda finding: not finding.is_error)
    commands = [_command(finding) for finding in ordered[:SHOWN]]
    further = len(ordered) - SHOWN
    if further > 0:
        commands.append(f"::notice title=pytest-vq::and {further} more: see the log and the summary of this job")
    return commands


def _command(finding: Finding) -> str:
    kind = "error" if finding.is_error else "warning"
    properties = ",".join(f"{name}={_property(value)}" for name, value in _properties(finding))
    return f"::{kind} {properties}::{_data(finding.message[:_LONGEST_MESSAGE])}"


def _properties(finding: Finding) -> Iterator[tuple[str, str]]:
    if finding.file is not None:
        yield "file", finding.file
        if finding.line is not None:
            yield "line", str(finding.line)
    yield "title", finding.title


def _data(text: str) -> str:
    """``text`` as the value of a command. Nothing invisible is left in it after `plain`, line breaks included."""
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
