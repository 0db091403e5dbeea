"""What is not loaded: an installed but unused plugin, a collection and the console script import nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_vq.processes.command import clean_environment

ROOT = Path(__file__).parents[2]
# Collecting and listing: whoever only looks must not wait for these.
HEAVY = ("torch", "transformers", "bitsandbytes", "numpy", "scipy", "pynvml")
# In a pytest run that does not use the plugin, not even these.
UNUSED = (*HEAVY, "msgspec", "tabulate", "psutil", "safetensors", "filelock")

# Writes which modules are loaded when the process ends, whoever ends it.
WITNESS = """
import atexit, json, os, sys
def _write():
    with open(os.environ["VQ_WITNESS"], "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules} | set(sys.modules)), file)
atexit.register(_write)
"""
# Other plugins may load what they like; only what comes on top of them is ours.
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:cov"]


def modules_after(arguments: list[str], directory: Path, cwd: Path) -> set[str]:
    """The modules loaded at the end of ``python arguments``, run in ``cwd`` with the witness installed."""
    (directory / "site").mkdir()
    (directory / "site" / "sitecustomize.py").write_text(WITNESS, encoding="utf-8")
    witness = directory / "modules.json"
    environment = clean_environment() | {"VQ_WITNESS": str(witness), "PYTHONPATH": str(directory / "site")}
    run = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return set(json.loads(witness.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["pytest_vq", "pytest_vq.plugin.entry", "pytest_vq.cli.main"])
def test_importing_loads_nothing_heavy(name: str, tmp_path: Path) -> None:
    loaded = modules_after(["-c", f"import {name}"], tmp_path, tmp_path)
    assert name in loaded
    assert loaded.isdisjoint(UNUSED)


def test_installed_but_unused_it_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_empty.py").write_text("def test():\n    pass\n", encoding="utf-8")
    loaded = modules_after([*PYTEST, str(tmp_path)], tmp_path, tmp_path)
    assert "pytest_vq.plugin.entry" in loaded
    assert loaded.isdisjoint(UNUSED)


def test_collecting_the_suite_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = modules_after([*PYTEST, "bench", "--collect-only", "--vq-models=all"], tmp_path, ROOT)
    assert "pytest_vq.catalog.models" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_listing_the_models_loads_nothing_heavy(tmp_path: Path) -> None:
    command = "import sys; from pytest_vq.cli.main import main; sys.exit(main(['models']))"
    loaded = modules_after(["-c", command], tmp_path, tmp_path)
    assert "pytest_vq.catalog.models" in loaded
    assert loaded.isdisjoint(HEAVY)
