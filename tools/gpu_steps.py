"""The steps of ``gpu_check.sh`` that are easier in Python than in a shell; each is one function and one subcommand."""

from __future__ import annotations

import csv
import platform
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def install(site: str) -> str | None:
    """Give this checkout the metadata by which pytest finds the plugin, in the directory ``site``.

    That is what an editable install would do, but needs no build backend that the machine may lack.
    """
    project = _project()
    found = re.search(
        r'^__version__ = "(.+)"', (ROOT / "pytest_vq/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    if found is None:
        return "pytest_vq/__init__.py states no __version__"
    info = Path(site) / f"pytest_vq-{found[1]}.dist-info"
    info.mkdir()
    header = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {found[1]}"]
    (info / "METADATA").write_text("\n".join(header) + "\n", encoding="utf-8")
    plugins = [f"{name} = {target}" for name, target in project["entry-points"]["pytest11"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *plugins]) + "\n", encoding="utf-8")
    return None


def report(device: str) -> str | None:
    """Print the versions that matter, and refuse a machine that lacks a package, a new enough one, or the GPU."""
    import torch

    print("python", platform.python_version(), sys.executable)
    unmet = []
    for requirement in map(Requirement, _project()["dependencies"]):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        print(requirement, "->", version or "missing")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            unmet.append(str(requirement))
    print("torch built for CUDA", torch.version.cuda)
    for index in range(torch.cuda.device_count()):
        print(torch.cuda.get_device_properties(index))
    if unmet:
        return f"carry wheels of: {', '.join(unmet)}"
    return "torch sees no GPU" if device == "gpu" and not torch.cuda.is_available() else None


def groups() -> str | None:
    """Print the models that a GPU measures by default, a category a line, with commas between them."""
    from pytest_vq.catalog.models import select_models

    categories: dict[str, list[str]] = {}
    for model in select_models("default", accelerator=True):
        categories.setdefault(model.category, []).append(model.name)
    print("\n".join(",".join(names) for names in categories.values()))
    return None


def all_ran(junit: str) -> str | None:
    """Refuse a JUnit file in which nothing ran, or a test was skipped: green that proves nothing."""
    text = Path(junit).read_text(encoding="utf-8")
    tests, skipped = text.count("<testcase "), text.count("<skipped ")
    return f"{skipped} of {tests} tests were skipped" if skipped or not tests else None


def caught(table: str, provoked: str) -> str | None:
    """Refuse a ``results.csv`` in which the failed rows are not exactly those that were slowed down."""
    slowed = {part.split("=")[0] for part in provoked.split(",")}
    with Path(table).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = sorted(f"{row['model']}-{row['precision']}" for row in rows if row["precision"] in slowed)
    failed = sorted(f"{row['model']}-{row['precision']}" for row in rows if row["verdict"] == "FAIL")
    print(f"slowed down: {', '.join(expected)}; failed: {', '.join(failed)}")
    return None if expected and failed == expected else "the gate did not fail exactly what was slowed down"


def compared(*tables: str) -> str | None:
    """Refuse ``results.csv`` files in which not one pair was compared with its baseline: green that proves nothing."""
    verdicts: Counter[str] = Counter()
    for table in tables:
        if not Path(table).is_file():
            return f"{table} is not there: nothing was measured"
        with Path(table).open(encoding="utf-8", newline="") as file:
            verdicts.update(row["verdict"] or "none" for row in csv.DictReader(file))
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()) or "no rows")
    judged = verdicts.total() - sum(verdicts[name] for name in ("NO_BASELINE", "INCOMPARABLE", "none"))
    return None if judged else "not one pair was compared with a baseline"


STEPS: dict[str, Callable[..., str | None]] = {
    step.__name__: step for step in (install, report, groups, all_ran, compared, caught)
}

if __name__ == "__main__":
    sys.exit(STEPS[sys.argv[1]](*sys.argv[2:]))
