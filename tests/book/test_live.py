"""Every figure of the site answers: drags, sliders, clicks and keys move numbers and pixels, in light and in dark.

No kernel, no other host, below a sub-path, under the content-security policy. `make e2e` repeats these tests, and all
others marked `live`, on a slow processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import drag, settle, until
from figures import check_figures, check_molecule

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WITH_FIGURES = [path for path in NOTEBOOKS if "vnd.jupyter.widget-view+json" in path.read_text(encoding="utf-8")]
PAGES = ["index", *(f"notebooks/{path.stem}" for path in WITH_FIGURES)]
INK = """() => [...document.querySelectorAll(".elf-widget")].map(
  (widget) => Number(getComputedStyle(widget).color.match(/[\\d.]+/)[0]))"""


def numbers(figure: Any, *names: str) -> tuple[float, ...]:
    """What a figure of ours says of itself."""
    return tuple(float(figure.get_attribute(f"data-elf-{name}")) for name in names)


def _slides(page: Any, slider: Any, picture: Any) -> None:
    before, place = picture.screenshot(), slider.input_value()
    slider.press("End" if place != slider.get_attribute("max") else "Home")
    settle(page)
    assert slider.input_value() != place
    until(lambda: picture.screenshot() != before)


def _playground(page: Any, figure: Any) -> None:
    shown = figure.locator('[data-elf-value="energy"]')
    first, words = numbers(figure, "mse", "energy"), shown.inner_text()
    drag(page, figure.locator('[data-elf-panel="mse"] [data-elf-particle="0"]'), 40, 25)
    moved = numbers(figure, "mse", "energy")
    assert abs(moved[0] - first[0]) > 1e-3
    assert moved[1] > 1e-2
    assert shown.inner_text() != words

    figure.get_by_role("button", name="Start again").click()
    page.wait_for_function(
        "([figure, mse]) => figure.dataset.elfBusy === '' && Math.abs(figure.dataset.elfMse - mse) < 1e-9",
        arg=[figure.element_handle(), first[0]],
    )
    drag(page, figure.locator('[data-elf-panel="mse"] [data-elf-knob]'), 60, 60)
    turned = numbers(figure, "mse", "energy")
    assert abs(turned[0] - first[0]) > 1e-2
    assert turned[1] == pytest.approx(first[1], abs=1e-9)  # the energy does not see that it was turned

    springs = figure.get_by_label("Springs", exact=True)
    if springs.count() and first[1] < 1e-9:
        drag(page, figure.locator('[data-elf-panel="mse"] [data-elf-particle="0"]'), 40, 25)
        springs.select_option("exponential")
        panel = figure.locator('[data-elf-panel="energy"]')
        _slides(page, figure.get_by_role("slider", name="Range of the springs"), panel)


def _frames(page: Any, figure: Any) -> None:
    for slider in figure.get_by_role("slider").all():
        _slides(page, slider, figure.locator("img, svg").first)


def _trajectory(page: Any, figure: Any) -> None:
    _frames(page, figure)
    svg = figure.locator("svg").first
    before = svg.inner_html()
    drag(page, svg, 40, 15)
    assert svg.inner_html() != before


def _board(page: Any, figure: Any) -> None:
    (energy,) = numbers(figure, "energy")
    figure.locator('[data-elf-site="0,0"]').click()
    settle(page)
    flipped, flips = numbers(figure, "energy", "flips")
    assert flipped != energy
    assert flips == 1
    figure.get_by_role("button", name="Greedy descent").click()
    page.wait_for_function("(figure) => figure.dataset.elfBusy === ''", arg=figure.element_handle())
    settle(page)
    assert numbers(figure, "energy")[0] <= flipped


def _dashboard(page: Any, figure: Any) -> None:
    # A training that has ended: a picture, to which nothing can be done.
    assert figure.get_attribute("data-elf-phase") != "running"
    assert figure.locator("polyline").get_attribute("points").count(",") > 2


def _knobs(page: Any, figure: Any) -> None:
    for slider in figure.get_by_role("slider").all():
        _slides(page, slider, figure.locator(".elf-panels"))


def _bath(page: Any, figure: Any) -> None:
    _knobs(page, figure)
    before = figure.get_attribute("data-elf-found")
    figure.get_by_role("button", name="Heat").click()
    page.wait_for_function(
        "([figure, found]) => figure.dataset.elfFound !== found", arg=[figure.element_handle(), before]
    )
    figure.get_by_role("button", name="Pause").click()
    page.wait_for_function("(figure) => figure.dataset.elfBusy === ''", arg=figure.element_handle())


def _descent(page: Any, figure: Any) -> None:
    before = figure.get_attribute("data-elf-ends")
    figure.get_by_role("button", name="Swapped").click()
    page.wait_for_function(
        "([figure, ends]) => figure.dataset.elfEnds !== ends && figure.dataset.elfBusy === ''",
        arg=[figure.element_handle(), before],
    )


def _guess(page: Any, figure: Any) -> None:
    choices = figure.get_by_role("radio")
    if choices.count():
        choices.first.check()
    else:
        figure.get_by_role("slider").press("End")
    figure.get_by_role("button", name="See").click()
    page.wait_for_function("(figure) => figure.dataset.elfGuess === 'open'", arg=figure.element_handle())
    assert figure.locator(".elf-result").inner_text()


ANSWERS = {
    "playground": _playground,
    "frames": _frames,
    "trajectory": _trajectory,
    "board": _board,
    "dashboard": _dashboard,
    "knobs": _knobs,
    "bath": _bath,
    "descent": _descent,
    "guess": _guess,
}


def _molecule(page: Any, view: Any) -> None:
    check_molecule(view)
    before = view.screenshot()
    drag(page, view.locator("canvas").first, 60, 20)
    until(lambda: view.screenshot() != before)


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_answers_and_follows_the_page_into_the_dark_and_back(name, book, open_page):
    dark = PAGES.index(name) % 2 == 1  # the theme that the page begins in
    page = open_page(f"{book}/{name}.html", dark=dark)
    if name == "index":
        page.locator('.elf-playground[data-elf-state="ready"]').wait_for()
    else:
        check_figures(page)
    figures = page.locator("[data-elf-kind]").all()
    for figure in figures:
        ANSWERS[figure.get_attribute("data-elf-kind")](page, figure)
    for view in page.locator(".elf-molecule").all():
        _molecule(page, view)
    for now in (dark, not dark):
        theme = "dark" if now else "light"
        page.emulate_media(color_scheme=theme)
        page.wait_for_function("(theme) => document.documentElement.dataset.theme === theme", arg=theme)
        settle(page)
        inks = page.evaluate(INK)
        assert len(inks) == len(figures)
        assert all((ink > 127) == now for ink in inks)  # light letters on a dark page, dark ones on a light page
    for figure in page.locator(".elf-frames, .elf-trajectory").all():
        _frames(page, figure)


def test_search_finds_a_notebook(book, open_page):
    page = open_page(f"{book}/search.html?q=frustration")
    page.locator("#search-results a", has_text="Spins").first.wait_for()


def test_folded_solutions_open(book, open_page):
    page = open_page(f"{book}/notebooks/00_start_here.html")
    solution = page.locator("details.hide", has_text="a turn by 180 degrees costs").first
    assert not solution.locator("pre").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator("pre").first.is_visible()
