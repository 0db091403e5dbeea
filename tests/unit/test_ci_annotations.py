"""Workflow commands: at the test's place, at most ten, and none that a name gives."""

from __future__ import annotations

import re

import pytest

from pytest_vq.report.annotations import Finding, annotation_commands

COMMAND = re.compile(r"::(?P<kind>error|warning|notice) (?P<properties>[^:]*)::(?P<data>.*)")
HOSTILE = (
    "net\n::error::all is lost",
    "net\r\n::set-env name=PATH::/tmp",
    "x::error file=a,line=1::y",
    "::stop-commands::token",
    "\x1b[31m##[error]red",
    "100 %0A::error::z",
    "a,title=b:c",
    "safe\u202eevil\u2028::error::",
)


def finding(title: str = "FAIL net-int8", message: str = "slower", is_error: bool = True) -> Finding:
    return Finding(is_error, title, message, "tests/test_a.py", 7)


def unescaped(text: str) -> str:
    """As the runner reads it."""
    for sign in (":", ",", "\n", "\r", "%"):
        text = text.replace(f"%{ord(sign):02X}", sign)
    return text


def test_a_failure_stands_at_its_test() -> None:
    assert annotation_commands([finding()]) == ["::error file=tests/test_a.py,line=7,title=FAIL net-int8::slower"]
    unsure = finding("INCONCLUSIVE net-int8", "unsure", is_error=False)
    assert annotation_commands([unsure]) == [
        "::warning file=tests/test_a.py,line=7,title=INCONCLUSIVE net-int8::unsure"
    ]


def test_a_failure_without_a_place_has_none() -> None:
    assert annotation_commands([Finding(True, "FAIL", "x")]) == ["::error title=FAIL::x"]
    assert annotation_commands([Finding(True, "FAIL", "x", "a.py")]) == ["::error file=a.py,title=FAIL::x"]


def test_errors_come_first_and_nine_are_shown() -> None:
    found = [finding(f"INCONCLUSIVE {i}", is_error=False) for i in range(3)] + [finding(f"FAIL {i}") for i in range(8)]
    commands = annotation_commands(found)
    assert len(commands) == 10
    assert [command.split("title=")[1].split("::")[0] for command in commands[:9]] == [
        *(f"FAIL {i}" for i in range(8)),
        "INCONCLUSIVE 0",
    ]
    assert commands[9] == "::notice title=pytest-vq::and 2 more: see the log and the summary of this job"


def test_nine_need_no_word_of_more() -> None:
    assert not any("::notice" in command for command in annotation_commands([finding()] * 9))
    assert annotation_commands([]) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_gives_no_command(name: str) -> None:
    (command,) = annotation_commands([Finding(True, f"FAIL {name}", f"why: {name}", f"{name}.py", 1)])
    assert command.splitlines() == [command]
    found = COMMAND.fullmatch(command)
    assert found is not None
    properties = dict(part.split("=", 1) for part in found["properties"].split(","))
    assert list(properties) == ["file", "line", "title"]
    assert not any(character < " " for character in unescaped(command))
    assert "##[" not in command
    # The runner gives back what was meant, with what is invisible shown as an escape.
    assert unescaped(found["data"]).startswith("why: ")
    assert unescaped(properties["title"]).startswith("FAIL ")


def test_percent_signs_survive() -> None:
    (command,) = annotation_commands([finding(message="+33.3 % of 10 %0A")])
    assert command.endswith("::+33.3 %25 of 10 %250A")
