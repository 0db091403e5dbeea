"""The house rules, read from the source: who may import whom, and how long things may get."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_vq

PACKAGE = Path(pytest_vq.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 250
MAX_FUNCTION_LINES = 40

# Package or module -> what of ours it may import, beside itself; a dotted name allows that one module or function only.
# TYPE_CHECKING imports do not count.
ALLOWED: dict[str, set[str]] = {
    "__init__": {"catalog", "errors", "record"},
    "errors": set(),
    "nvml": set(),
    "spec": {"errors"},
    "record": {"errors"},
    "verdict": {"record"},
    "files": {"errors"},
    "options": {"errors"},
    "catalog": {"spec", "errors"},
    "precision": {"spec", "record", "errors", "measure.size"},
    "environment": {"record", "nvml"},
    "measure": {"record", "spec", "errors", "options", "catalog", "precision", "environment", "nvml"},
    "baseline": {"record", "verdict", "errors", "files"},
    "report": {"record", "errors", "files", "precision.precisions"},
    # pytest's side knows the whole house, and the house does not know pytest's side.
    "session": {"spec", "record", "verdict", "errors", "files", "options", "measure", "baseline", "report", "fresh"},
    "child": {"errors", "report"},
    "fresh": {"child", "record", "errors", "options", "report", "session"},
    "run": {"record", "errors", "files", "report", "session", "fresh"},
    "fixtures": {"spec", "record", "errors", "report", "session"},
    "hooks": {"spec", "errors", "catalog", "precision", "measure", "report", "session", "run"},
    "plugin": {"errors", "options", "hooks", "fixtures", "session"},
    "cli": {"__init__", "errors", "catalog", "ab", "cli_baselines", "selftest", "report"},
    "selftest": {"child", "record", "verdict", "errors", "files", "baseline", "report"},
    "provoke": {"spec", "measure"},
    "ab": {"child", "record", "errors", "catalog", "precision.precisions", "baseline", "report"},
    "cli_baselines": {"record", "errors", "baseline", "report"},
}
# Only these may import pytest: everything else can be used, and tested, without it.
KNOWS_PYTEST = {"provoke", "plugin", "hooks", "fixtures", "session", "run", "fresh", "report"}


def tree_of(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def house_name(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: all but the bodies of ``if TYPE_CHECKING``."""
    yield node
    children = node.orelse if isinstance(node, ast.If) and is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from runtime_nodes(child)


def imported(module: Path) -> set[str]:
    """Dotted names that ``module`` imports at run time; ``from a import b`` counts as ``a.b``."""
    names: set[str] = set()
    for node in runtime_nodes(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively; the house imports absolutely"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def may_import(module: Path, name: str) -> bool:
    """True where ``name``, a dotted name inside pytest_vq without ``pytest_vq.``, is in the table for ``module``."""
    part = name.split(".")[0]
    if part not in {house_name(path) for path in MODULES}:
        part = "__init__"  # a name that the package itself defines
    allowed = ALLOWED[house_name(module)] | {house_name(module)}
    return part in allowed or ".".join(name.split(".")[:2]) in allowed


def module_id(module: Path) -> str:
    return module.as_posix()


each_module = pytest.mark.parametrize("module", MODULES, ids=module_id)


def test_the_table_names_every_part_of_the_house() -> None:
    assert {house_name(path) for path in MODULES} == set(ALLOWED)


@each_module
def test_imports_only_what_it_may(module: Path) -> None:
    ours = {name.removeprefix("pytest_vq.") for name in imported(module) if name.startswith("pytest_vq.")}
    unexpected = {name for name in ours if not may_import(module, name)}
    assert not unexpected, f"{module} imports {', '.join(sorted(unexpected))}"


@each_module
def test_only_pytests_side_knows_pytest(module: Path) -> None:
    knows = any(name.split(".")[0] == "pytest" for name in imported(module))
    assert not knows or house_name(module) in KNOWS_PYTEST


@each_module
def test_is_short_enough_to_read(module: Path) -> None:
    text = (PACKAGE / module).read_text(encoding="utf-8")
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno is not None}
    too_long = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES]
    if (lines := len(text.splitlines())) > MAX_MODULE_LINES:
        too_long.append(f"the module: {lines} lines")
    assert not too_long, f"{module}: {'; '.join(too_long)}"


@each_module
def test_prints_nothing_outside_the_console_script(module: Path) -> None:
    calls = (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call))
    lines = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not lines or house_name(module) == "cli", f"{module} prints in lines {lines}"


@each_module
def test_names_the_errors_it_catches(module: Path) -> None:
    handlers = (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ExceptHandler))
    bare = [node.lineno for node in handlers if node.type is None]
    assert not bare, f"{module} has a bare except in lines {bare}"
