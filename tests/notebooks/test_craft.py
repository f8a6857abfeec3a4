"""The page shows ideas: what is code for its own sake is folded, and the needs of tests stay out of sight."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
README = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
WORDS_A_MINUTE = 200
LINES = 15
WIDTH = 88
FOLDED = {"hide-input", "hide-cell", "remove-cell"}
MARKS = ("noqa", "NBVAL", "fmt:", "type: ignore", "pragma")
DRAWING = {"subplots", "figure", "subplot_mosaic"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def book(path):
    return nbformat.read(path, as_version=4)


def _code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def _tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _visible(book):
    return [cell for cell in _code(book) if not FOLDED & _tags(cell)]


def _draws(source: str) -> bool:
    """Whether a cell makes a figure by itself, line by line, instead of calling a function that has a name."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr in DRAWING for call in calls)


def test_every_figure_says_in_words_what_it_shows(book):
    shown = [(cell.id, out) for cell in _code(book) for out in cell.outputs if "image/png" in out.get("data", {})]
    assert not [name for name, out in shown if len(out.metadata.get("image/png", {}).get("alt", "")) < 20]


def test_no_visible_cell_is_long(book):
    lengths = {cell.id: len(cell.source.splitlines()) for cell in _visible(book)}
    assert not {name: length for name, length in lengths.items() if length > LINES}


def test_no_line_of_code_is_wider_than_the_page(book):
    assert not [line for cell in _code(book) for line in cell.source.splitlines() if len(line) > WIDTH]


def test_no_printed_line_is_wider_than_the_page(book):
    shown = [cell for cell in _code(book) if "remove-cell" not in _tags(cell)]
    printed = [out.text for cell in shown for out in cell.outputs if out.output_type == "stream"]
    assert not [line for text in printed for line in text.splitlines() if len(line) > WIDTH]


def test_at_most_two_panels_stand_side_by_side(book):
    """So that a figure can be read at half width and on a phone."""
    calls = [node for cell in _code(book) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    plots = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "subplots"]
    columns = [call.args[1].value for call in plots if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)]
    assert all(number <= 2 for number in columns)


def test_plotting_is_folded(book):
    assert not [cell.id for cell in _visible(book) if _draws(cell.source)]


def test_what_is_folded_on_the_site_is_folded_in_jupyterlab(book):
    for cell in _code(book):
        hidden = cell.metadata.get("jupyter", {})
        assert bool(hidden.get("source_hidden")) == bool(FOLDED & _tags(cell)), cell.id
        assert bool(hidden.get("outputs_hidden")) == bool({"hide-cell", "remove-cell"} & _tags(cell)), cell.id


def test_marks_for_tools_are_out_of_sight(book):
    assert not [line for cell in book.cells for line in cell.source.splitlines() if any(mark in line for mark in MARKS)]


def test_the_headline_is_a_cell_that_no_reader_sees(book):
    cells = [cell for cell in _code(book) if "HEADLINE" in cell.source + str(cell.outputs)]
    assert len(cells) == 1
    assert "remove-cell" in _tags(cells[0])


def test_reading_and_run_time_are_stated_at_the_top_and_true(path, book):
    """Two hundred words a minute, give or take a minute; the run time is the one that README measured."""
    texts = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    words = sum(len(text.split()) for text in texts)
    (minutes,) = re.findall(r"\*\*Reading time:\*\* about (\d+) minutes\.", texts[0])
    assert abs(int(minutes) - words / WORDS_A_MINUTE) <= 1
    (seconds,) = re.findall(r"\*\*Run time:\*\* about (\d+) s\b", texts[0])
    assert f"(notebooks/{path.name}) |" in README
    (line,) = [line for line in README.splitlines() if f"(notebooks/{path.name})" in line and line.startswith("|")]
    assert line.endswith(f"| {seconds} s |")
