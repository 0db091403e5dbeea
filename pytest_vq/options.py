"""Every option, declared once: the command line, the ini keys and the frozen ``Options`` all come from one table.

Precedence: default < ini file < command line. (A test's marker sets tolerances, not options.)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vq.errors import SelectionError
from pytest_vq.schema.recipe import PREFIX
from pytest_vq.schema.shard import WHOLE, Shard

if TYPE_CHECKING:
    import pytest

PROTOCOLS = ("adaptive", "study")
WEIGHTS = ("random", "pretrained")
GATES = ("fail", "report", "off")
CPU_BUDGET_S = 4.0
GPU_BUDGET_S = 10.0
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True, slots=True)
class Options:
    """What this run was asked to do. Paths are absolute; ``models`` and ``precisions`` are resolved late."""

    gpu: bool = False
    models: str | None = None
    precisions: str = "fp32,fp16,int8,int4"
    batch: tuple[int, ...] = (1,)
    weights: str = "random"
    protocol: str = "adaptive"
    budget: float | None = None
    threads: int = 1
    save: bool = False
    baselines: Path = Path("baselines")
    gate: str = "fail"
    strict: bool = False
    output: Path = Path("vq-results")
    runs: int = 1
    report: bool = False
    resume: bool = False
    serving: bool = False
    search: bool = False
    shard: Shard = WHOLE

    @property
    def budget_s(self) -> float:
        """Seconds of timing per pair; the study protocol is bounded by its counts unless a budget was asked for."""
        if self.budget is not None:
            return self.budget
        if self.protocol == "study":
            return float("inf")
        return GPU_BUDGET_S if self.gpu else CPU_BUDGET_S

    def to_json(self) -> dict[str, Any]:
        """The options as plain JSON values, for ``study.json``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: str(value) if isinstance(value, Path | Shard) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how it is spelled, read and explained. ``flag`` options take no value on the command line."""

    name: str  # as on the command line, without the dashes
    field: str
    parse: Callable[[str], Any]
    help: str
    metavar: str | None = None

    @property
    def ini(self) -> str:
        """The ini key: the option's name with ``_`` for ``-``."""
        return self.name.replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """True for options that are switches."""
        return self.parse is _boolean

    def spelled(self, value: Any) -> list[str]:
        """The words of a command line by which `read_options` gives ``value`` again.

        An ini file has no say in it, but for None, which is what there is where neither of the two sets the option.
        """
        if value is None:
            return []
        if self.is_flag:
            return [f"--{self.name}"] if value else ["-o", f"{self.ini}=false"]
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return [f"--{self.name}={text}"]


def _boolean(text: str) -> bool:
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in allowed:
            return text
        near = difflib.get_close_matches(text, allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{text!r} is none of {', '.join(allowed)}{hint}")

    return parse


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number; the smallest valid one is 1") from None
    if number < 1:
        raise ValueError(f"{number} is too small; the smallest valid one is 1")
    return number


def _batches(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_at_least_one(part.strip()) for part in text.split(",")))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None
    if not seconds > 0:
        raise ValueError(f"{text} s is no time to measure in; give a positive number of seconds")
    return seconds


def _text(text: str) -> str:
    if not text.strip(" ,"):
        raise ValueError("it is empty; leave the option out for the default")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


OPTIONS = (
    Option("gpu", "gpu", _boolean, "measure on the accelerator; an error without one, never a skip"),
    Option(
        "vq-models",
        "models",
        _text,
        "names or globs, comma-separated, or: study, local, all, default (GPU: study and vit-digits; CPU: up to 25M "
        "parameters). Default: local where you registered models of your own, else default",
        "NAMES",
    ),
    Option(
        "vq-precisions",
        "precisions",
        _text,
        "schemes, comma-separated: precisions (int8), with an execution (bf16+compile), globs ('*+compile'), "
        "recipe:FILE, or: study (default: fp32,fp16,int8,int4), best (the few worth comparing on the device), all",
        "NAMES",
    ),
    Option("vq-batch", "batch", _batches, "images per request, comma-separated; default 1", "N[,N]"),
    Option("vq-weights", "weights", _choice(*WEIGHTS), "random (default: offline, seeded) or pretrained", "KIND"),
    Option("vq-protocol", "protocol", _choice(*PROTOCOLS), "adaptive (default) or study (100 + 1,000 calls)", "NAME"),
    Option(
        "vq-budget",
        "budget",
        _seconds,
        "seconds of timing per pair at most; default 10 on a GPU, 4 on a CPU",
        "SECONDS",
    ),
    Option("vq-threads", "threads", _at_least_one, "intra-op threads on the CPU; default 1", "N"),
    Option("vq-save", "save", _boolean, "record this run into the baselines, if every test passed"),
    Option("vq-baselines", "baselines", _path, "directory of the baselines; default baselines/ at the root", "DIR"),
    Option("vq-gate", "gate", _choice(*GATES), "fail (default): a regression fails its test; report; off", "MODE"),
    Option("vq-strict", "strict", _boolean, "NO_BASELINE, INCOMPARABLE and INCONCLUSIVE fail too"),
    Option("vq-output", "output", _path, "directory of this run's results; default vq-results/", "DIR"),
    Option("vq-runs", "runs", _at_least_one, "measure each pair by itself in N fresh processes; default 1", "N"),
    Option("vq-report", "report", _boolean, "write the report beside the results: needs pytest-vq[report]"),
    Option("vq-resume", "resume", _boolean, "go on with the run that was cut short in --vq-output, or begin it"),
    Option(
        "vq-serving", "serving", _boolean, "the serving benchmarks too, which are left out unless their file is named"
    ),
    Option("vq-search", "search", _boolean, "of serving benchmarks: search for the highest rate within the bound anew"),
    Option("vq-shard", "shard", Shard.parse, "measure this share of the pairs: 2/3 is the second of three", "I/N"),
)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option, and its ini key, to pytest."""
    group = parser.getgroup("vq", "pytest-vq: quantized vision models, measured and gated")
    for option in OPTIONS:
        # A None default lets an ini value through where the command line is silent.
        if option.is_flag:
            group.addoption(f"--{option.name}", action="store_true", default=None, dest=option.ini, help=option.help)
        else:
            group.addoption(f"--{option.name}", default=None, dest=option.ini, metavar=option.metavar, help=option.help)
        parser.addini(option.ini, option.help, type="string", default=None)


def any_given(config: pytest.Config) -> bool:
    """True where the command line or the ini file sets any option."""
    return any(config.getoption(o.ini) is not None or config.getini(o.ini) is not None for o in OPTIONS)


def read_options(config: pytest.Config) -> Options:
    """The options of this run. Raises ``SelectionError`` naming the option, its source and the valid values."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given, source, base = config.getoption(option.ini), f"--{option.name}", config.invocation_params.dir
        if given is None:
            given, source, base = config.getini(option.ini), f"ini key {option.ini}", config.rootpath
        try:
            value = option.parse(given) if isinstance(given, str) else given
        except ValueError as error:
            raise SelectionError(f"{source}: {error}") from None
        if value is None:
            value = _DEFAULTS[option.field]
        values[option.field] = _anchored(value, base)
    return Options(**values)


def _anchored(value: Any, base: Path) -> Any:
    """``value`` with its paths made absolute: one on the command line is relative to where one is, others to the root.

    Those of recipes too, so that the options mean the same in a process that is started elsewhere.
    """
    if isinstance(value, str) and PREFIX in value:
        return ",".join(_anchored_recipe(item.strip(), base) for item in value.split(","))
    return base / value if isinstance(value, Path) else value


def _anchored_recipe(item: str, base: Path) -> str:
    return f"{PREFIX}{base / item.removeprefix(PREFIX)}" if item.startswith(PREFIX) else item


_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Options)}
