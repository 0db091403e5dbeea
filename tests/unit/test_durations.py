"""``durations.json``: what is kept of what pairs took, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import ENVIRONMENT, make_record

from pytest_vq.cli.main import main
from pytest_vq.errors import BaselineError
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.durations import DURATIONS, read_durations, record_durations


def record(root: Path, precision: str = "int8", held_s: float | None = 3.0, build_s: float | None = None) -> None:
    row = make_record("net", precision, device_held_s=held_s, build_s=build_s)
    record_durations(root, [(row, ENVIRONMENT)])


def test_a_row_takes_what_held_the_device_and_what_building_took(tmp_path: Path) -> None:
    record(tmp_path, "fp32", held_s=3.24, build_s=1.1)
    record(tmp_path, "int8", held_s=12.34)
    assert read_durations(tmp_path) == {"cpu": {"net-fp32": 4.3, "net-int8": 12.0}}


def test_a_row_that_does_not_tell_leaves_nothing(tmp_path: Path) -> None:
    record(tmp_path, held_s=None, build_s=2.0)
    assert not (tmp_path / DURATIONS).exists()
    assert read_durations(tmp_path) == {}


def test_kinds_of_devices_are_apart(tmp_path: Path) -> None:
    record(tmp_path)
    card = replace(ENVIRONMENT, device="cuda")
    record_durations(tmp_path, [(make_record("net", "int8", device_held_s=1.0), card)])
    assert read_durations(tmp_path) == {"cpu": {"net-int8": 3.0}, "cuda": {"net-int8": 1.0}}


def test_a_small_change_changes_no_file(tmp_path: Path) -> None:
    record(tmp_path, held_s=3.0)
    before = (tmp_path / DURATIONS).read_bytes()
    record(tmp_path, held_s=3.6)
    assert (tmp_path / DURATIONS).read_bytes() == before
    record(tmp_path, held_s=4.0)
    assert read_durations(tmp_path) == {"cpu": {"net-int8": 4.0}}


def test_the_file_is_sorted_a_line_a_pair(tmp_path: Path) -> None:
    for precision in ("int8", "fp32", "int4"):
        record(tmp_path, precision)
    lines = (tmp_path / DURATIONS).read_text().splitlines()
    pairs = [line.strip() for line in lines if "net-" in line]
    assert pairs == ['"net-fp32": 3.0,', '"net-int4": 3.0,', '"net-int8": 3.0']


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold durations"),
        ('{"schema_version": 99}', "upgrade pytest-vq"),
        ('{"schema_version": 1, "durations_s": {"cpu": {"net-int8": -1}}}', "-1.0 s is no duration"),
        ('{"schema_version": 1, "durations_s": {"cpu": {"net-int8": "long"}}}', "does not hold durations"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_kept(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / DURATIONS).write_text(text)
    with pytest.raises(BaselineError, match=words):
        read_durations(tmp_path)
    with pytest.raises(BaselineError, match=words):
        record(tmp_path)
    assert (tmp_path / DURATIONS).read_text() == text


def test_nobody_takes_the_file_for_baselines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path)
    assert json.loads((tmp_path / DURATIONS).read_text())["schema_version"] == 1
    assert BaselineStore(tmp_path).devices() == []
    assert main(["baselines", "list", "--baselines", str(tmp_path)]) == 0
    assert "no baselines" in capsys.readouterr().out
