"""Every control of the small figures moves their picture: what the page shows, before and after."""

from __future__ import annotations

import pytest
from moving import assert_moves

MOVES = [  # page, widget, role and name of what is used, and how
    ("02_gradient_fields", "descent", ("button", "Swapped"), "click"),
    ("02_gradient_fields", "knobs", ("slider", "turn"), "End"),
    ("02_gradient_fields", "knobs", ("slider", "noise"), "End"),
    ("01_boltzmann_and_reverse_kl", "bath", ("slider", "temperature"), "End"),
    ("01b_heat_bath", "bath", ("slider", "step"), "End"),
    ("03_springs", "knobs", ("slider", "pull"), "End"),
    ("03_springs", "knobs", ("slider", "twist"), "End"),
    ("04_symmetry", "knobs", ("slider", "θ"), "End"),
    ("05_rigidity", "knobs", ("slider", "lift"), "End"),
    ("05_rigidity", "knobs", ("slider", "atom"), "Home"),
]


@pytest.mark.parametrize(("name", "kind", "control", "how"), MOVES)
def test_every_control_of_the_figures_moves_their_picture(name, kind, control, how, book, open_page):
    page = open_page(f"{book}/notebooks/{name}.html", reduced_motion=True)
    figure = page.locator(f".elf-{kind}")
    figure.wait_for()
    figure.scroll_into_view_if_needed()
    role, words = control
    part = figure.get_by_role(role, name=words)
    assert_moves(page, kind, part.click if how == "click" else lambda: part.press(how))
