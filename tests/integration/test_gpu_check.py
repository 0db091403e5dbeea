"""The script of the check on a GPU, as it is rehearsed without one: what it does again, and when it is red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """\
#!/bin/bash
# Instead of python: notes the models that pytest is to measure, and fails those asked for.
[ "$1" = -m ] || exec {python} "$@"
for word in "$@"; do
    case $word in
        --vq-models=*) models=${{word#*=}} ;;
        --vq-output=*) output=${{word#*=}} ;;
    esac
done
echo "$models" >>{notes}
mkdir -p "$output"
printf 'model,precision,verdict\\n"%s",int8,%s\\n' "$models" "${{VERDICT:-PASS}}" >"$output/results.csv"
sleep "${{SLEEP:-0}}"
[ "$models" != "${{FAILING:-}}" ]
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What was measured, a group a line."""
    return tmp_path / "notes"


def check(tmp_path: Path, notes: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Call the script with groups ``a``, ``b,c`` and ``d``."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable, notes=notes))
    stand_in.chmod(0o755)
    own = {"CPU": "1", "PYTHON": str(stand_in), "MODELS": "a b,c d", "OUT": str(tmp_path / "out"), "WHEELS": "none"}
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "gpu_check.sh")],
        env={**os.environ, **own, **given},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_group_that_fails_voids_itself_alone_and_is_done_again(tmp_path: Path, notes: Path) -> None:
    first = check(tmp_path, notes, STAGES="3", FAILING="b,c")
    assert first.returncode == 1
    assert notes.read_text().split() == ["a", "b,c", "d"]
    archive = tmp_path / "first.tar.gz"
    (tmp_path / "out" / "results.tar.gz").rename(archive)
    notes.unlink()
    second = check(tmp_path, notes, STAGES="3", RESUME=str(archive))
    assert second.returncode == 0, second.stdout
    assert notes.read_text().split() == ["b,c"]
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as results:
        assert {f"./done/3-{number}" for number in (1, 2, 3)} <= set(results.getnames())


def test_a_stage_whose_time_is_up_says_how_to_go_on(tmp_path: Path, notes: Path) -> None:
    run = check(tmp_path, notes, STAGES="4", REPEATS="2", LIMIT_4="22", SLEEP="3")
    assert run.returncode == 1
    assert notes.read_text().split() == ["a"]
    assert "the stage's time is up before group 2 (b,c); go on with RESUME=" in run.stdout


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("NO_BASELINE", 1)])
def test_a_gated_run_that_compared_nothing_is_red(tmp_path: Path, notes: Path, verdict: str, code: int) -> None:
    assert check(tmp_path, notes, STAGES="5", VERDICT=verdict).returncode == code


def test_no_stage_takes_longer_than_a_runner_may_allow() -> None:
    script = (ROOT / "tools" / "gpu_check.sh").read_text()
    limits = [int(seconds) for seconds in re.findall(r"LIMIT_\d:-(\d+)", script)]
    assert len(limits) == 7
    assert max(limits) <= 540
