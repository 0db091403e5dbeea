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

# Only these may import pytest: everything else can be used, and tested, without it.
KNOWS_PYTEST = {"plugin", "processes"}


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


def module_id(module: Path) -> str:
    return module.as_posix()


each_module = pytest.mark.parametrize("module", MODULES, ids=module_id)


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
