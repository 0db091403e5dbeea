"""The workflows of docs/ci.md and docs/shards.md, as far as reading can tell: they parse, and give no rights away."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_vq.report.comment import MARKER, RESOLVED_LINE

yaml = pytest.importorskip("yaml", reason="PyYAML reads the workflows of docs/ci.md")

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("ci.md", "shards.md"))
WORKFLOWS: dict[str, dict[Any, Any]] = {
    found["name"]: found for found in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
}
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)
# What may write, and why: nothing else may.
WRITES = {("vq-comment", "post"): {"pull-requests"}, ("vq-save", "propose"): {"contents", "pull-requests"}}


def jobs_of(name: str) -> dict[str, Any]:
    jobs: dict[str, Any] = WORKFLOWS[name]["jobs"]
    return jobs


def steps_of(name: str) -> Iterator[dict[str, Any]]:
    for job in jobs_of(name).values():
        yield from job.get("steps", [])


def test_there_are_five_workflows() -> None:
    assert list(WORKFLOWS) == ["vq-gate", "vq-measure", "vq-comment", "vq-save", "vq-shards"]


@each_workflow
def test_a_job_has_the_rights_that_it_names_and_no_others(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}
    for job_name, job in jobs_of(name).items():
        writes = {right for right, kind in job["permissions"].items() if kind != "read"}
        assert writes == WRITES.get((name, job_name), set())


@each_workflow
def test_no_text_of_an_event_stands_in_a_script(name: str) -> None:
    for step in steps_of(name):
        assert "${{" not in step.get("run", "")


@each_workflow
def test_the_scripts_are_bash(name: str) -> None:
    for step in steps_of(name):
        if "run" in step:
            run = subprocess.run(["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False)
            assert run.returncode == 0, run.stderr


@each_workflow
def test_actions_are_pinned_by_their_commit(name: str) -> None:
    for step in steps_of(name):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
    assert re.findall(r"uses: actions/\S+@\S{40} # v\d+\.\d+\.\d+\n", PAGE)


@each_workflow
def test_a_checkout_leaves_no_token_behind(name: str) -> None:
    for step in steps_of(name):
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_no_workflow_gives_a_pull_request_the_rights_of_the_repository() -> None:
    assert "pull_request_target" not in PAGE
    assert "secrets" not in PAGE
    assert list(WORKFLOWS["vq-gate"][True]) == ["pull_request"]  # YAML reads a bare "on" as true


def test_code_of_a_pull_request_reaches_the_gpu_after_an_approval_alone() -> None:
    (gate,) = jobs_of("vq-gate").values()
    assert gate["uses"] == "OWNER/REPO/.github/workflows/vq-measure.yml@main"
    assert not {"runs-on", "steps"} & gate.keys()
    (measure,) = jobs_of("vq-measure").values()
    assert measure["environment"] == "gpu"
    assert measure["permissions"] == {"contents": "read"}


def test_the_gate_reads_the_base_branchs_baselines() -> None:
    scripts = {step["name"]: step["run"] for step in steps_of("vq-measure") if "run" in step}
    assert "git archive HEAD^1 baselines" in scripts["Take the base branch's baselines"]
    assert '--vq-baselines "$RUNNER_TEMP/base/baselines"' in scripts["Gate"]
    assert "pytest-vq" in scripts["Show what changes in the baselines"]


def test_what_comments_runs_the_default_branchs_code_on_a_capped_file() -> None:
    checkouts = [step["with"]["ref"] for step in steps_of("vq-comment") if "checkout@" in step.get("uses", "")]
    assert checkouts == ["${{ github.event.repository.default_branch }}"]
    scripts = {step["name"]: step["run"] for step in steps_of("vq-comment") if "run" in step}
    assert '--arg sha "$HEAD_SHA"' in scripts["Find the pull request of the commit"]
    assert "head -c" in scripts["Take the results"]
    assert "unzip -p results.zip study.json" in scripts["Take the results"]
    assert scripts["Render"].splitlines()[-1] == "pytest-vq report study --output rendered"


def test_the_job_that_may_write_runs_nothing_of_ours() -> None:
    post = jobs_of("vq-comment")["post"]
    assert [step.get("uses") for step in post["steps"]] == [None]
    assert "pip" not in post["steps"][0]["run"]
    assert f'"{RESOLVED_LINE}"' in post["steps"][0]["run"]
    assert MARKER in PAGE


def test_the_matrix_measures_every_shard_and_merges_whatever_came_of_them() -> None:
    jobs = jobs_of("vq-shards")
    numbers = jobs["measure"]["strategy"]["matrix"]["shard"]
    measure, merge = (next(step for step in jobs[job]["steps"] if "run" in step) for job in ("measure", "merge"))
    assert measure["env"]["SHARD"] == f"${{{{ matrix.shard }}}}/{len(numbers)}"
    assert numbers == list(range(1, len(numbers) + 1))
    assert '--vq-shard "$SHARD"' in measure["run"]
    assert jobs["measure"]["strategy"]["fail-fast"] is False
    assert jobs["merge"]["if"] == "${{ !cancelled() }}"
    assert merge["run"].splitlines()[-1].endswith("merge shards/* --output vq-results")
