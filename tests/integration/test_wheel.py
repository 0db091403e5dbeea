"""The wheel, which is what users get: its contents, and one pair measured from it outside this repository."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "pytest_vq")
USER_TEST = """
def test_precision(vq_case, vq_bench):
    assert vq_bench(vq_case).latency_ms > 0
"""


def run(command: list[str | Path], cwd: Path) -> str:
    """The output of ``command``, which must succeed; nothing of this pytest reaches it."""
    foreign = ("PYTEST_", "COV", "PYTHON", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: no earlier build's leftovers in it, and none of this one's left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", source], source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment that holds the wheel, and borrows the dependencies installed here."""
    environment = tmp_path_factory.mktemp("clean") / "env"
    run([sys.executable, "-m", "venv", "--without-pip", environment], environment.parent)
    python = environment / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--no-index", "--no-deps", wheel], environment.parent)
    # A path in a .pth file comes after the environment's own, and .pth files found there are not read: neither a copy
    # of pytest-vq nor its editable install there can stand in for the wheel.
    site = sysconfig.get_path("purelib", vars={"base": str(environment)})
    borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    Path(site, "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    return environment / "bin"


def test_it_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    packed = {name for name in names if ".dist-info/" not in name}
    sources = (path for path in (ROOT / "pytest_vq").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {path.relative_to(ROOT).as_posix() for path in sources}
    assert "pytest_vq/py.typed" in packed
    assert "pytest_vq/catalog/data/vit-digits.safetensors" in packed
    assert "vq = pytest_vq.plugin.entry" in entry_points
    assert "pytest-vq = pytest_vq.cli.main:main" in entry_points
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_measures_a_pair_and_reads_what_it_saved(installed: Path, tmp_path: Path) -> None:
    where = run([installed / "python", "-c", "import pytest_vq; print(pytest_vq.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent), "not the wheel is tested here, but the checkout"

    (tmp_path / "test_mine.py").write_text(USER_TEST, encoding="utf-8")
    options = ["--vq-models=vit-digits", "--vq-precisions=fp16", "--vq-budget=0.5"]
    run([installed / "python", "-m", "pytest", "-p", "no:cacheprovider", *options], tmp_path)
    with (tmp_path / "vq-results" / "results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["precision"]) == ("vit-digits", "fp16")
    assert float(row["latency_ms"]) > 0


def test_its_console_script_lists_the_models(installed: Path, tmp_path: Path) -> None:
    listed = run([installed / "pytest-vq", "models"], tmp_path)
    assert "vit-base-patch16-384" in listed
    assert "vit-digits" in listed
