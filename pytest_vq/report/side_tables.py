"""A comparison's blocks as text for a terminal, or as GitHub's Markdown; every name in them is made harmless. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_vq.report.document_blocks import Block, Heading, Lines, Table
from pytest_vq.report.escaping import markdown, plain
from pytest_vq.report.text import plain_table


def to_text(blocks: Iterable[Block]) -> str:
    """The blocks as plain text, an empty line between them."""
    return "\n\n".join(_text_of(block) for block in blocks)


def to_markdown(blocks: Iterable[Block]) -> str:
    """The blocks as Markdown."""
    return "\n\n".join(_markdown_of(block) for block in blocks)


def _text_of(block: Block) -> str:
    if isinstance(block, Heading):
        title = plain(block.text)
        return f"{title}\n{'=' * len(title)}"
    if isinstance(block, Lines):
        return "\n".join(map(plain, block.lines))
    rows = [[plain(cell) for cell in row] for row in block.rows]
    return plain_table(rows, [plain(header) for header in block.headers], block.align)


def _markdown_of(block: Block) -> str:
    if isinstance(block, Heading):
        return f"### {markdown(block.text)}"
    if isinstance(block, Lines):
        return "\n".join(f"- {markdown(line)}" for line in block.lines)
    return _markdown_table(block)


def _markdown_table(table: Table) -> str:
    rule = ["---:" if side == "right" else "---" for side in table.align]
    cells = [[markdown(cell) for cell in row] for row in (table.headers, *table.rows)]
    return "\n".join(_row(row) for row in (cells[0], rule, *cells[1:]))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
