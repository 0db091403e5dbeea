"""What the plugin adds to a pytest run: installed but unused, and when collecting the suite.

Fresh processes, in alternation, so that a drift of the machine meets both sides alike. Beside wall time stands CPU
time, which other work on the machine disturbs less. Run: ``python tools/overhead.py [repeats]``.
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


def main() -> None:
    """Print both comparisons."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory(prefix="pytest-vq-overhead-") as name:
        empty = Path(name) / "empty"
        empty.mkdir()
        (empty / "test_empty.py").write_text("def test():\n    pass\n", encoding="utf-8")
        (empty / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        # Compiled once, as after any installation, also where this shell forbids Python to keep what it compiled.
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment = kept | {"PYTHONPYCACHEPREFIX": str(Path(name) / "compiled")}

        bare = Side("without", [*PYTEST, "-p", "no:vq"], empty, environment)
        print(f"one empty test, medians of {repeats}:")
        print(compare(bare, Side("with", PYTEST, empty, environment), repeats))
        bare = Side("bare", [*PYTEST, "-p", "no:vq", "--collect-only"], empty, environment)
        suite = Side("suite", [*PYTEST, "bench", "--collect-only"], ROOT, environment)
        print(f"collecting the suite, medians of {repeats}:")
        print(compare(bare, suite, repeats))


if __name__ == "__main__":
    main()
