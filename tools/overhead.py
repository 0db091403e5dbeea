"""What the plugin adds to a pytest run: installed but unused, and when collecting the suite or thousands of pairs.

Fresh processes, in alternation, so that a drift of the machine meets both sides alike. Beside wall time stands CPU
time, which other work on the machine disturbs less. Run: ``python tools/overhead.py [--many] [repeats]``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


@dataclass(slots=True)
class Side:
    """One of the two commands that are compared, and what its runs took."""

    name: str
    command: list[str]
    cwd: Path
    environment: dict[str, str]
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run it once and note its times."""
        started = time.perf_counter()
        process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        output = process.stdout.read()
        # wait4 also tells the CPU time of this one child.
        _, status, usage = os.wait4(process.pid, 0)
        wall_ms = (time.perf_counter() - started) * 1e3
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(self.command)} failed:\n{output.decode(errors='replace')}")
        self.wall_ms.append(wall_ms)
        self.cpu_ms.append((usage.ru_utime + usage.ru_stime) * 1e3)


def compare(without: Side, with_plugin: Side, repeats: int) -> str:
    """Both sides in alternation, after one run each that fills the caches; their medians and the difference's."""
    for number in range(repeats + 1):
        sides = (without, with_plugin) if number % 2 else (with_plugin, without)
        for side in sides:
            side.run()
    lines = []
    for what, old, new in (
        ("wall", without.wall_ms[1:], with_plugin.wall_ms[1:]),
        ("CPU", without.cpu_ms[1:], with_plugin.cpu_ms[1:]),
    ):
        added = median(b - a for a, b in zip(old, new, strict=True))
        lines.append(
            f"  {what:4} {without.name} {median(old):6.0f} ms   {with_plugin.name} {median(new):6.0f} ms   "
            f"added {added:+6.1f} ms"
        )
    return "\n".join(lines)


MODELS = """
import pytest_vq

for number in range({models}):
    pytest_vq.register_model(f"net-{{number}}", input_shape=(3, 8, 8))(lambda: None)
"""
PAIRS = """
import pytest


@pytest.mark.skip(reason="only the way there is of interest")
def test_pair(vq_case, vq_bench):
    pass
"""
PLAIN = """
import pytest


@pytest.mark.skip(reason="only the way there is of interest")
@pytest.mark.parametrize("number", range({tests}))
def test_plain(number):
    pass
"""
# On both sides: all are collected, selected and put in order, and four are run.
FEW = """
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    yield
    items[:] = items[:4]
"""


def many_pairs(directory: Path, environment: dict[str, str], repeats: int) -> None:
    """Print what collecting so many pairs adds to collecting as many plain tests, without workers and by two."""
    for pairs in (2_500, 5_000, 10_000):
        plain, ours = directory / f"plain-{pairs}", directory / f"pairs-{pairs}"
        for place in (plain, ours):
            place.mkdir()
            (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (plain / "test_many.py").write_text(PLAIN.format(tests=pairs), encoding="utf-8")
        (ours / "test_many.py").write_text(PAIRS, encoding="utf-8")
        (plain / "conftest.py").write_text(FEW, encoding="utf-8")
        (ours / "conftest.py").write_text(FEW + MODELS.format(models=pairs // 4), encoding="utf-8")
        for workers in (0, 2):
            command = [*PYTEST, "-n", str(workers), "-p", "no:randomly"]
            bare = Side("plain", [*command, "-p", "no:vq"], plain, environment)
            print(f"{pairs} pairs beside {pairs} plain tests, -n {workers}, medians of {repeats}:")
            print(compare(bare, Side("pairs", command, ours, environment), repeats))


def main() -> None:
    """Print all comparisons, or with ``--many`` those of many pairs alone."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    with tempfile.TemporaryDirectory(prefix="pytest-vq-overhead-") as name:
        # Compiled once, as after any installation, also where this shell forbids Python to keep what it compiled.
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment = kept | {"PYTHONPYCACHEPREFIX": str(Path(name) / "compiled")}
        if "--many" not in sys.argv:
            few_tests(Path(name), environment, numbers[0] if numbers else 20)
        many_pairs(Path(name), environment, numbers[0] if numbers else 5)


def few_tests(directory: Path, environment: dict[str, str], repeats: int) -> None:
    """Print what an unused plugin adds, and what collecting the suite does."""
    empty = directory / "empty"
    empty.mkdir()
    (empty / "test_empty.py").write_text("def test():\n    pass\n", encoding="utf-8")
    (empty / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    bare = Side("without", [*PYTEST, "-p", "no:vq"], empty, environment)
    print(f"one empty test, medians of {repeats}:")
    print(compare(bare, Side("with", PYTEST, empty, environment), repeats))
    bare = Side("bare", [*PYTEST, "-p", "no:vq", "--collect-only"], empty, environment)
    suite = Side("suite", [*PYTEST, "bench", "--collect-only"], ROOT, environment)
    print(f"collecting the suite, medians of {repeats}:")
    print(compare(bare, suite, repeats))


if __name__ == "__main__":
    main()
