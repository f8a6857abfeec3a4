"""Figures stay alive on the site: no kernel, no other host, below a sub-path, under the content-security policy."""

from __future__ import annotations

import pytest
from browser import settle
from moving import assert_moves

PANEL = '[data-elf-panel="mse"]'


def _drag(page, selector: str, dx: float, dy: float) -> None:
    grip = page.locator(selector).first
    grip.hover()  # waits until it stands still
    box = grip.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=5)
    page.mouse.up()
    settle(page)


def _numbers(playground) -> tuple[float, float]:
    return tuple(float(playground.get_attribute(f"data-elf-{name}")) for name in ("mse", "energy"))


@pytest.mark.parametrize("name", ["index", "notebooks/00_start_here"])
def test_dragging_changes_the_numbers(name, book, open_page):
    page = open_page(f"{book}/{name}.html")
    playground = page.locator(".elf-playground").first
    playground.wait_for()
    shown = page.locator('[data-elf-value="energy"]').first
    mse, energy = _numbers(playground)
    assert mse > 1 > 1e-9 > energy  # the target, turned
    before = shown.inner_text()

    _drag(page, f'.elf-playground {PANEL} [data-elf-particle="0"]', 40, 25)
    moved = _numbers(playground)
    assert abs(moved[0] - mse) > 1e-3
    assert moved[1] > 1e-2
    assert shown.inner_text() != before

    playground.get_by_role("button", name="Start again").click()
    page.wait_for_function(
        "([node, mse]) => node.dataset.elfBusy === '' && Math.abs(node.dataset.elfMse - mse) < 1e-9",
        arg=[playground.element_handle(), mse],
    )
    _drag(page, f".elf-playground {PANEL} [data-elf-knob]", 60, 60)
    turned = _numbers(playground)
    assert abs(turned[0] - mse) > 1e-2
    assert turned[1] < 1e-9


def test_the_playground_follows_the_page_into_the_dark(book, open_page):
    page = open_page(f"{book}/index.html", dark=True)
    page.locator(".elf-playground").first.wait_for()
    light = page.evaluate(
        "() => Number(getComputedStyle(document.querySelector('.elf-playground')).color.match(/[\\d.]+/)[0])"
    )
    assert light > 127  # light letters on a dark page


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
