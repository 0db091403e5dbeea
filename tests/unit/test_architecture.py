"""The house rules, read from the source: what stands on which floor, and how long things may get."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from pkgutil import resolve_name

import pytest

import pytest_vq

PACKAGE = Path(pytest_vq.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

# From the ground up: a module imports from its own room, from lower floors, and from the loose modules of its own
# floor. Imports inside functions and under TYPE_CHECKING count, and so do dotted paths ("module:name") to load later.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "schema/"),
    ("files", "options", "registering", "wording", "catalog/", "precision/"),
    ("device/", "store/", "gate/"),
    ("execution/", "report/", "processes/"),
    ("measure/",),
    ("advise/", "serve/"),
    ("plugin/", "cli/"),
    ("__init__",),
)
MAX_LOOSE_MODULES = 6
MAX_MODULE_LINES = 250
MAX_FUNCTION_LINES = 40

# A string that is, from end to end, the name of something of ours; with a colon it is a path to load.
OWN_NAME = re.compile(r"pytest_vq(\.\w+)+(:\w+)?")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def place_of(module: Path) -> str:
    """The room of a module, or its own name where it stands loose."""
    return f"{module.parts[0]}/" if len(module.parts) > 1 else module.stem


def floor_of(module: Path) -> int:
    return next(number for number, floor in enumerate(FLOORS) if place_of(module) in floor)


def own_names(path: Path) -> set[str]:
    """The strings in a file that name something of ours."""
    constants = (node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and OWN_NAME.fullmatch(value)}


def imported_names(module: Path) -> Iterator[str]:
    """Dotted names that ``module`` imports, wherever and whenever; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(tree_of(PACKAGE / module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively; the house imports absolutely"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    yield from (name.partition(":")[0] for name in own_names(PACKAGE / module) if ":" in name)


def module_of(name: str) -> Path:
    """The module of ours that a dotted name leads to: the longest part of it that is one."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        path = Path(*parts[:length]).with_suffix(".py")
        if path in MODULES:
            return path
        package = Path(*parts[:length], "__init__.py")
        if package in MODULES:
            return package
    return Path("__init__.py")


def ours_imported_by(module: Path) -> set[Path]:
    names = (name for name in imported_names(module) if name.split(".")[0] == "pytest_vq")
    return {module_of(name) for name in names} - {module}


def may_import(importer: Path, imported: Path) -> bool:
    if place_of(importer) == place_of(imported):
        return True
    above, below = floor_of(importer), floor_of(imported)
    return below < above or (below == above and len(imported.parts) == 1)


def module_id(path: Path) -> str:
    return path.as_posix()


each_module = pytest.mark.parametrize("module", MODULES, ids=module_id)


def test_the_floors_name_every_part_of_the_house_once() -> None:
    named = Counter(place for floor in FLOORS for place in floor)
    assert named == Counter({place_of(module) for module in MODULES})


def test_few_modules_stand_loose() -> None:
    assert len([module for module in MODULES if len(module.parts) == 1]) <= MAX_LOOSE_MODULES


def test_no_two_modules_bear_one_name() -> None:
    names = Counter(module.stem for module in MODULES if module.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


@each_module
def test_imports_nothing_from_above(module: Path) -> None:
    wrong = [module_id(other) for other in ours_imported_by(module) if not may_import(module, other)]
    assert wrong == [], f"{module} stands on floor {floor_of(module)} and imports {', '.join(wrong)}"


def test_no_imports_go_round_in_a_circle() -> None:
    # A room's __init__ is loaded with every module of it, and holds no code: it is no station of a circle.
    graph = {module: {other for other in ours_imported_by(module) if other.stem != "__init__"} for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@each_module
def test_loads_modules_by_import_statements_and_paths_alone(module: Path) -> None:
    names = {node.id for node in ast.walk(tree_of(PACKAGE / module)) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree_of(PACKAGE / module)) if isinstance(node, ast.Attribute)}
    assert not {"import_module", "__import__"} & (names | attributes)


@pytest.mark.parametrize(
    "path",
    [path for room in ("pytest_vq", "tests", "bench", "tools") for path in sorted((ROOT / room).rglob("*.py"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_names_of_ours_in_strings_exist(path: Path) -> None:
    for name in own_names(path):
        resolve_name(name)  # raises ImportError or AttributeError


@each_module
def test_only_pytests_side_knows_pytest(module: Path) -> None:
    knows = {name.split(".")[0] for name in imported_names(module)} & {"pytest", "_pytest"}
    # The options are declared to pytest's parser and read from its config, which the annotations name.
    assert not knows or place_of(module) in {"plugin/", "options"}


@each_module
def test_what_decides_and_renders_is_pure(module: Path) -> None:
    libraries = {name.split(".")[0] for name in imported_names(module)}
    impure = {"torch", "subprocess", "os", "time", "pynvml", "transformers", "bitsandbytes"}
    assert place_of(module) not in {"schema/", "gate/", "report/"} or not libraries & (impure - {"torch"})
    assert place_of(module) not in {"gate/", "report/"} or "torch" not in libraries


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
    calls = (node for node in ast.walk(tree_of(PACKAGE / module)) if isinstance(node, ast.Call))
    lines = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not lines or place_of(module) == "cli/", f"{module} prints in lines {lines}"


@each_module
def test_names_the_errors_it_catches(module: Path) -> None:
    handlers = (node for node in ast.walk(tree_of(PACKAGE / module)) if isinstance(node, ast.ExceptHandler))
    bare = [node.lineno for node in handlers if node.type is None]
    assert not bare, f"{module} has a bare except in lines {bare}"
