"""The house stands as CONTRIBUTING.md draws it: imports run down, files are short, nothing nests deeper than four."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = (
    ("_lazy", "checks", "files", "elements", "processes", "scales"),
    ("geometry", "spins"),
    ("springs",),
    ("data", "energy", "models"),
    ("chemistry", "generative", "training"),
    ("metrics",),
    ("viz",),
    ("__main__", "cli", "evaluation", "workflow"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
BLOCKS = (
    *(ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.For, ast.AsyncFor, ast.While),
    *(ast.If, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match),
)
DEEPEST = 4
LONGEST = 400
LINES = {"elf": 13_000, "elf/energy": 1_100}


def files(name: str) -> list[Path]:
    return sorted((ROOT / name).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for name in ("elf", "course", "experiments") for path in files(name)}


def imported(tree: ast.Module, module: str) -> Iterator[str]:
    """Modules of this repository that a file imports, wherever in it: those inside functions count as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; it should be absolute"
            # `from package import module` imports both, `from module import name` the module alone.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            submodules = [name for name in names if name in MODULES]
            yield from submodules or [name for name in [str(node.module)] if name in MODULES]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "elf":
            yield from [name for name in [f"elf.{node.attr}"] if name in MODULES]  # `import elf`, then `elf.energy`


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def parsed(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # Imports for annotations alone are never run.
    tree.body = [node for node in tree.body if not only_for_types(node)]
    return tree


IMPORTS = {module: {*imported(parsed(path), module)} - {module} for module, path in MODULES.items()}


def room(module: str) -> str:
    """The room of a module of elf: "energy" of "elf.energy.pair"; "" is elf itself."""
    return module.partition(".")[2].partition(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES if module.startswith("elf.")} == set(FLOOR)


def test_no_import_runs_up() -> None:
    up = [
        f"{module} imports {other}"
        for module in MODULES
        if module.startswith("elf.")
        for other in IMPORTS[module]
        if other.startswith("elf.") and FLOOR[room(other)] > FLOOR[room(module)]
    ]
    assert not up


def test_nothing_below_imports_viz_or_the_command_line() -> None:
    top = ("viz", "cli", "evaluation", "workflow")
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in IMPORTS[module]
        if other.startswith("elf.") and room(other) in top
        if not (module.startswith("course") and room(other) == "viz")
        if module.startswith("experiments")
        or room(module) not in (room(other), "cli", "evaluation", "workflow", "__main__")
    ]
    assert not wrong


def test_no_import_goes_in_a_circle() -> None:
    # A package's __init__ is run before its modules, which may well import it: what counts are the files.
    graph = {module: {other for other in others if other != "elf"} for module, others in IMPORTS.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def package(module: str) -> str:
    return module.partition(".")[0]


def test_packages_import_those_below_alone() -> None:
    """The library neither of the others, which take from it: the course not the experiments, nor they the course."""
    across = {(package(module), package(other)) for module, others in IMPORTS.items() for other in others}
    assert {(one, other) for one, other in across if one != other} == {("course", "elf"), ("experiments", "elf")}


def test_the_command_line_alone_names_what_lies_beside_the_library() -> None:
    names = re.compile(r"""["'](course|experiments)\b[\w.]*["']""")
    namers = {module for module, path in MODULES.items() if package(module) == "elf" and names.search(path.read_text())}
    assert namers == {"elf._lazy", "elf.cli"}  # `_lazy` names the extra that either needs


def depth(node: ast.AST) -> int:
    """How deep blocks nest: class, def, for, while, if, with, try and match count, an elif is no deeper than its if."""
    deepest = 0
    for name, value in ast.iter_fields(node):
        children = [child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)]
        is_elif = (
            isinstance(node, ast.If) and name == "orelse" and len(children) == 1 and isinstance(children[0], ast.If)
        )
        deepest = max([deepest, *(depth(child) - is_elif for child in children)])
    return deepest + isinstance(node, BLOCKS)


def test_depth_counts_blocks_and_takes_an_elif_for_its_if() -> None:
    assert depth(ast.parse("class A:\n def f(self):\n  for i in x:\n   if i:\n    pass")) == 4
    assert depth(ast.parse("if a:\n pass\nelif b:\n pass\nelif c:\n with d:\n  pass")) == 2
    assert depth(ast.parse("if a:\n pass\nelse:\n if b:\n  pass\n c")) == 2


@pytest.mark.parametrize("module", MODULES)
def test_nothing_nests_deeper_than_four(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    deep = {getattr(node, "name", f"line {node.lineno}"): depth(node) for node in tree.body if depth(node) > DEEPEST}
    assert not deep


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_longer_than_400_lines(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST


@pytest.mark.parametrize(("folder", "most"), LINES.items())
def test_the_library_stays_small(folder: str, most: int) -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(folder))
    assert lines <= most, f"{folder} has {lines} lines; it should have at most {most}"
