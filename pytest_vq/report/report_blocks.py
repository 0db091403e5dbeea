"""The parts that ``report.md`` is made of, as raw text, and how they read in GitHub's Markdown. Pure.

Every text is made harmless where it becomes Markdown, so that no section has to remember it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_vq.report.document_blocks import Lines, Table
from pytest_vq.report.escaping import markdown
from pytest_vq.report.side_tables import to_markdown

_HARMLESS_CODE = re.compile(r"[A-Za-z0-9._+=,/ -]+")


@dataclass(frozen=True, slots=True)
class Section:
    """The title of what follows; level 1 is the document's."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Sentences that run on; ``is_loud`` sets them in bold."""

    text: str
    is_loud: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """Something to type."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure beside the document: the path without its ending, and what it shows."""

    path: str
    text: str


ReportBlock = Section | Paragraph | Command | Picture | Lines | Table


def report_markdown(blocks: Iterable[ReportBlock]) -> str:
    """The blocks as one document, an empty line between them."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: ReportBlock) -> str:
    if isinstance(block, Section):
        return f"{'#' * block.level} {markdown(block.text)}"
    if isinstance(block, Paragraph):
        return f"**{markdown(block.text)}**" if block.is_loud else markdown(block.text)
    if isinstance(block, Command):
        # Within backticks nothing can be escaped: only what needs no escaping stands there.
        is_harmless = _HARMLESS_CODE.fullmatch(block.text) is not None
        return f"`{block.text}`" if is_harmless else markdown(block.text)
    if isinstance(block, Picture):
        return f"![{markdown(block.text)}]({block.path}.png)\n\n[as SVG]({block.path}.svg)"
    return to_markdown([block])
