"""What notebook 00 says, derived a second time."""

from __future__ import annotations

import re

import pytest
import torch
from reading import FOLDER, ambiguous_names, code, notebook, printed, prose

from course.widgets.playground import polygon, rotate


@pytest.fixture(scope="module")
def book():
    return notebook("00_start_here")


def test_both_attempts_have_the_squared_error_that_the_text_names(book):
    made = {"target": (target := polygon(3)), "rotate": rotate, "torch": torch}
    exec(code(book)["cell-04"], made)  # the cell that makes the attempts, and no more
    errors = [float((made[name] - target).square().sum()) for name in "AB"]
    assert errors[0] == pytest.approx(errors[1], rel=1e-12)
    assert f"are **equal**: {errors[0]:.3f}" in prose(book)
    assert errors[0] == pytest.approx(3 * (2 - 2 * 0.7660444431), rel=1e-9)  # three chords of 40 degrees


def test_the_map_is_one_table_and_has_every_notebook(book):
    (table,) = (cell.source for cell in book.cells if cell.source.startswith("## The map of the course"))
    assert table.count("|---|---|") == 1
    linked = set(re.findall(r"\]\((\w+)\.ipynb\)", table))
    assert linked | {"00_start_here"} == {path.stem for path in FOLDER.glob("*.ipynb")}


def test_the_time_of_the_course_is_that_of_the_readme_and_no_machine_s_guess(book):
    minutes = re.search(r"All notebooks together take ([\d.]+ to [\d.]+ minutes)", prose(book))
    assert minutes
    assert minutes.group(1) in (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert "minutes" not in printed(book)


def test_the_answer_is_drawn_in_the_middle_of_the_data(book):
    assert "answer - answer.mean(0)" in code(book)["cell-16"]


def test_cells_can_be_run_again(book):
    assert not ambiguous_names(book)
