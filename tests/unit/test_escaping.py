from __future__ import annotations

import html
import re

import pytest

from pytest_vq.report.escaping import markdown, plain

PIPE = "a|b"
BACKTICKS = "a `code` and ``` more"
MENTION = "@org/team"
SCRIPT = "<script>alert(1)</script>"
COMMAND = "net\n::error::all is lost"
ANSI = "\x1b[31mred\x1b[0m\x1b]0;title\x07"
REVERSED = "safe\u202eevil"
HOSTILE = (PIPE, BACKTICKS, MENTION, SCRIPT, COMMAND, ANSI, REVERSED)
each_name = pytest.mark.parametrize("name", HOSTILE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (PIPE, PIPE),
        (BACKTICKS, BACKTICKS),
        (MENTION, MENTION),
        (SCRIPT, SCRIPT),
        (COMMAND, r"net\n::error::all is lost"),
        (ANSI, r"\x1b[31mred\x1b[0m\x1b]0;title\x07"),
        (REVERSED, r"safe\u202eevil"),
        ("a\r\tb\x85c\x7f", r"a\r\tb\x85c\x7f"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("half \ud800", r"half \ud800"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("vit-base 1.05x → ±5 % … 80 °C 视觉", "vit-base 1.05x → ±5 % … 80 °C 视觉"),
        ("", ""),
    ],
)
def test_plain_shows_what_could_steer_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "text", ["::error::x", "  ::error::x", "\t::warning::x", "##[error]x", "a ##[error]x", "##vso[x]"]
)
def test_plain_starts_no_command_to_a_ci_runner(text: str) -> None:
    shown = plain(text)
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    assert "##vso[" not in shown
    assert "error" in shown or "warning" in shown or "vso" in shown


def test_plain_leaves_colons_within_a_line() -> None:
    assert plain("test_x.py::test_net: 1") == "test_x.py::test_net: 1"


@each_name
def test_markdown_reads_as_the_plain_name_does(name: str) -> None:
    assert html.unescape(markdown(name)).replace("\u200b", "") == plain(name)


@each_name
def test_markdown_leaves_nothing_to_interpret(name: str) -> None:
    without_entities = re.sub(r"&#\d+;", "", markdown(name))
    assert not set("|`<>@\\*[]#~&\n\r\x1b\u202e") & set(without_entities)


def test_markdown_hides_mentions_and_references_from_filters_of_the_rendered_text() -> None:
    rendered = html.unescape(markdown("@org/team fixes #12"))
    assert not re.search(r"@\w", rendered)
    assert not re.search(r"#\d", rendered)


@pytest.mark.parametrize("text", ["https://evil.example", "www.evil.example"])
def test_markdown_makes_no_links(text: str) -> None:
    assert "://" not in markdown(text)
    assert "www." not in markdown(text)


def test_markdown_leaves_what_is_harmless_readable() -> None:
    text = "vit_base-patch16 int8+compile: 10.0 ms → 11.0 ms (+10.0 %, 95 % interval +9.8 … +10.2 %); 'a' \"b\" = c"
    assert markdown(text) == text
    assert markdown("_bold_ a_b") == "&#95;bold&#95; a_b"
