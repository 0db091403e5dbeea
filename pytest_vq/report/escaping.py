"""Names from elsewhere in text that somebody reads: no name may split a row, mention anybody, or give a command. Pure.

A model's name, a path, a version or an error's words may hold anything, and end in a CI log or in a comment.
"""

from __future__ import annotations

import re
import unicodedata

# Control characters (which hold newlines and the start of ANSI escapes), those that reorder text or are not seen
# (bidirectional marks, zero-width ones), line and paragraph separators, and halves of surrogate pairs.
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Cs")
# A CI runner takes a line that starts with "::", blanks aside, and "##[" or "##vso[" anywhere, as a command to it.
_COMMAND = re.compile(r"^(\s*):(?=:)|#(?=#(?:vso)?\[)")
# What Markdown, HTML or GitHub's own filters read as more than a character. An underscore within a word is none.
_SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~@&$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.|(?<=WWW)\.")
# Mentions and references to issues are looked for in the rendered text too: an entity alone does not hide them.
_LINKING = "@#"
_NOTHING_WIDE = "&#8203;"


def plain(text: str) -> str:
    r"""``text`` for a terminal or a log, on one line: what could steer either is a visible escape, ``\x1b``."""
    visible = "".join(_escape(c) if unicodedata.category(c) in _INVISIBLE else c for c in text)
    return _COMMAND.sub(lambda found: f"{found.group(1) or ''}{_escape(found.group(0)[-1])}", visible)


def markdown(text: str) -> str:
    """``text`` for one cell or one line of GitHub's Markdown, where it reads as it is and does nothing."""
    return _SPECIAL.sub(lambda found: _entity(found.group(0)), plain(text))


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
        return named.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _entity(character: str) -> str:
    return f"&#{ord(character)};" + (_NOTHING_WIDE if character in _LINKING else "")
