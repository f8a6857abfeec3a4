"""The committed notebooks are executed, clean and complete. That they run is nbval's part: see `make test`."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from reading import ambiguous_names

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 1_000_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def book(path):
    return nbformat.read(path, as_version=4)


def _code(book):
    return [cell for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]


def _printed(cell) -> list[str]:
    return [line for out in cell.outputs if out.output_type == "stream" for line in out.text.splitlines()]


def test_is_valid_and_names_the_kernel_that_everyone_has(path, book):
    nbformat.validate(book)
    assert book.metadata.kernelspec["name"] == "python3"
    assert path.stat().st_size < LARGEST


def test_every_code_cell_was_executed_from_top_to_bottom(book):
    counts = [cell.execution_count for cell in _code(book)]
    assert counts == list(range(1, len(counts) + 1))


def test_cells_can_be_run_again_after_all_of_them(book):
    """A name stands for one thing, so that a reader who goes back to a cell gets what it gave before."""
    assert not ambiguous_names(book)


def test_no_error_and_no_warning_is_committed(book):
    outputs = [out for cell in _code(book) for out in cell.outputs]
    assert not [out.ename for out in outputs if out.output_type == "error"]
    assert not [out.text for out in outputs if out.get("name") == "stderr"]


def test_opens_with_aims_prerequisites_and_run_time(book):
    opening = " ".join(cell.source for cell in book.cells[:4] if cell.cell_type == "markdown").lower()
    assert opening.startswith("# ")
    for part in ("aims", "prerequisites", "run time"):
        assert part in opening


def test_ends_with_exercises_and_references(book):
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    headings = [heading.lower() for heading in re.findall(r"^#{1,6} +(.+?)\s*$", text, flags=re.MULTILINE)]
    assert any(heading.startswith("exercise") for heading in headings)
    assert headings[-1].startswith("references")


def test_solutions_are_folded(book):
    solutions = [cell for cell in _code(book) if "solution" in cell.metadata.get("tags", [])]
    assert solutions
    assert all("hide-cell" in cell.metadata.tags for cell in solutions)
    assert all("assert" in cell.source for cell in solutions)


def test_the_last_code_cell_prints_the_headline_and_no_other_does(book):
    lines = [[line for line in _printed(cell) if line.startswith("HEADLINE: ")] for cell in _code(book)]
    assert len(lines[-1]) == 1
    assert not any(lines[:-1])


def test_some_numbers_are_held_to_what_the_page_shows(path, book):
    checked = [cell for cell in _code(book) if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert checked or path.stem == "standalone"
    assert all(_printed(cell) for cell in checked)


def test_standalone_is_one_short_program_without_elf():
    book = nbformat.read(FOLDER / "standalone.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in _code(book))
    assert not re.search(r"^\s*(import|from)\s+elf\b", source, flags=re.MULTILINE)
    lines = [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) < 160  # "some 150"
