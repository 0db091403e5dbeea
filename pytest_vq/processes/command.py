"""The command line of a pytest in a process of its own. Every such process is started with what is made here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pytest_vq.options import OPTIONS, Options

_FOREIGN = ("PYTEST_", "COV_CORE_", "COVERAGE_")  # what this process's plugins set for themselves


@dataclass(frozen=True, slots=True)
class Invocation:
    """How a run of pytest was started, as far as another process must repeat it to find the same tests."""

    directory: Path  # where it was started
    rootdir: Path
    inifile: Path | None
    import_mode: str
    plugins: tuple[str, ...]  # those named with -p
    keyword: str  # -k
    markers: str  # -m
    deselected: tuple[str, ...]

    def arguments(self) -> list[str]:
        """The words that repeat it, without what is the first process's own: reports, coverage, distribution, order."""
        words = [f"--rootdir={self.rootdir}"]
        words += ["-c", str(self.inifile)] if self.inifile else []
        # Whatever asks by default for what is left out is left out with it.
        words += ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cov"]
        words += [f"--import-mode={self.import_mode}", "--color=no"]
        # "no:" plugins may not be known without addopts.
        words += [word for name in self.plugins if not name.startswith("no:") for word in ("-p", name)]
        words += ["-k", self.keyword] if self.keyword else []
        words += ["-m", self.markers] if self.markers else []
        return words + [f"--deselect={node}" for node in self.deselected]


def pytest_command(
    targets: Sequence[str], given: Mapping[str, Any], *, arguments: Sequence[str] = (), python: Path | None = None
) -> list[str]:
    """The words that start pytest on ``targets`` with the options ``given``, by field of ``Options``.

    ``arguments`` are further words of pytest's; ``python`` is another environment's interpreter. Raises KeyError for
    a field that no option has.
    """
    unknown = set(given) - {option.field for option in OPTIONS}
    if unknown:
        raise KeyError(f"no option sets {', '.join(sorted(unknown))}")
    spelled = [word for option in OPTIONS if option.field in given for word in option.spelled(given[option.field])]
    return [str(python or sys.executable), "-m", "pytest", *targets, *arguments, *spelled]


def ungated(output: Path) -> dict[str, Any]:
    """The options of a process that only measures, into ``output``: another one judges."""
    return {"gate": "off", "runs": 1, "save": False, "report": False, "resume": False, "output": output}


def all_of(options: Options) -> dict[str, Any]:
    """Every option by its field."""
    return {f.name: getattr(options, f.name) for f in fields(options)}


def clean_environment() -> dict[str, str]:
    """This process's environment without what pytest and its plugins put there for themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
