"""A committed notebook as the tests of its claims read it."""

from __future__ import annotations

import builtins
import symtable
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"
AT_ONCE = {"listcomp", "genexpr", "setcomp", "dictcomp"}  # scopes that run where they stand


def notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def prose(book: Any) -> str:
    """All Markdown, on one line, so that a sentence is found wherever it was broken."""
    return " ".join(" ".join(cell.source for cell in book.cells if cell.cell_type == "markdown").split())


def code(book: Any) -> dict[str, str]:
    """Sources of the code cells by their ids."""
    return {cell.id: cell.source for cell in book.cells if cell.cell_type == "code"}


def printed(book: Any) -> str:
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    return "".join(out.text for out in outputs if out.output_type == "stream")


def widget(book: Any, id: str) -> dict[str, Any]:
    """State of the widget that the cell of this id shows."""
    (cell,) = [cell for cell in book.cells if cell.id == id]
    (view,) = [out.data[VIEW] for out in cell.outputs if VIEW in out.get("data", {})]
    return book.metadata.widgets[VIEW.replace("view", "state")]["state"][view["model_id"]]["state"]


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _scopes(child)


def _names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell binds, and those it takes from elsewhere or lets a function look up later."""
    table = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    later: set[str] = set()
    for scope in _scopes(table):
        taken = {s.get_name() for s in scope.get_symbols() if s.is_global()}
        (used if scope.get_name() in AT_ONCE else later).update(taken)
    return bound, (used - bound) | later


def ambiguous_names(book: Any) -> list[str]:
    """Names that a cell needs and that not just one cell binds: after Run All, to run it again may be another thing."""
    names = {id: _names(source) for id, source in code(book).items()}
    where = defaultdict(list)
    for id, (bound, _) in names.items():
        for name in bound:
            where[name].append(id)
    given = {*dir(builtins), "display"}
    needed = [(id, name) for id, (_, needs) in names.items() for name in needs - given]
    return [f"{id} needs {name} of {where[name]}" for id, name in needed if len(where[name]) != 1]
