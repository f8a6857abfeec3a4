"""What "guess, then see" opens is what the same notebook goes on to show."""

from __future__ import annotations

from itertools import pairwise

import pytest
from reading import FOLDER, notebook, printed, prose, widget

# notebook, what it shows, the answer as the reader sees it
SHOWN = [
    ("00_start_here", "MSE's best answer is a point", "a point"),
    ("01_boltzmann_and_reverse_kl", "the pair energy with 1.50 and 1.47", "both of the pair energy"),
    ("02_gradient_fields", "half at 3.4 degrees", 3.4),
    ("03_springs", "A factor of more than 200", "more than 200"),
    ("04_symmetry", "MSE gave the best answer to *its* question: the mean", "a dot"),
    ("05_rigidity", r"$2 \cdot 20 - 3 = 37$ rods are the least", 37),
    ("06_diffusion_and_flow", "the gain is the share of rigid motions: $3/4$ here", 3),
    ("07_molecules", "Three hundredths. A molecule needs *all* its bonds", "0.03 angstrom"),
    ("07b_conformers", "the best answer in mean squared error is a point", "a point"),
    ("07c_graph_and_geometry", "81.1 ± 2.7 with turned MSE", 81),
    ("08_spins", "The label that is half wrong", 50),
    ("09_your_own_system", "More of nature's stiffness in the loss, fewer starts that arrive.", "fewer of them arrive"),
    ("10_the_paper_rerun", "The plain network gains most.", "the plain one"),
]


@pytest.mark.parametrize(("name", "words", "answer"), SHOWN, ids=lambda value: str(value)[:12])
def test_the_answer_is_the_page_s(name, words, answer):
    book = notebook(name)
    state = widget(book, "guess")
    assert words in prose(book) + printed(book)
    assert answer == (state["choices"][int(state["answer"])] if state["choices"] else state["answer"])


def test_every_notebook_with_a_guess_is_read_above():
    guessing = {
        path.stem for path in FOLDER.glob("*.ipynb") if "guess" in {c.get("id") for c in notebook(path.stem).cells}
    }
    assert guessing == {name for name, _, _ in SHOWN}


def test_a_guess_comes_right_after_its_question():
    for path in sorted(FOLDER.glob("*.ipynb")):
        cells = notebook(path.stem).cells
        for before, cell in pairwise(cells):
            assert cell.get("id") != "guess" or "**Predict first.**" in before.source, path.stem
