"""Click to descend: the browser's paths are elf's, clicks and keys move the picture, bad state is answered."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from moving import assert_moves, pixels
from widget_page import placed

from course.widgets import Descent, web
from course.widgets.descent import ENERGIES
from elf.viz import fields

ROOT = ".elf-descent"
PATHS = """async ([starts, target]) => {
  const { descent, forces } = await import(new URL("elf/descent.js", location.href).href);
  const both = (make) => starts.map((start) => [make("mse", start), make("energy", start)]);
  return [both((kind, start) => descent(kind, start, target)), both((kind, start) => forces(kind, start, target))];
}"""


def test_the_browser_descends_as_elf_does(show):
    page = show(Descent())
    starts = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts[7] = torch.tensor([0.3, 0.3])  # at one place, where the pair energy has no direction
    target = torch.tensor([-0.5, 0.7], dtype=torch.float64)
    paths, pushes = page.evaluate(PATHS, [starts.tolist(), target.tolist()])
    for start, path, push in zip(starts, paths, pushes, strict=True):
        for energy, found, force in zip(ENERGIES.values(), path, push, strict=True):
            expected = fields.descent_path(energy, start[:, None], target[:, None], steps=150, step_size=0.05)
            np.testing.assert_allclose(found, expected.positions[..., 0], atol=1e-12)
            np.testing.assert_allclose(force, fields.forces(energy, start[:, None], target[:, None])[:, 0], atol=1e-12)


def test_a_click_begins_a_descent_on_both_landscapes(show):
    page = show(Descent())
    second = page.locator(f"{ROOT} .elf-panels svg").nth(2)
    box = second.bounding_box()
    assert_moves(page, "descent", lambda: second.click(position={"x": box["width"] / 4, "y": box["height"] / 2}))
    ends = json.loads(page.locator(ROOT).get_attribute("data-elf-ends"))
    np.testing.assert_allclose(ends[0], [-0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(
        ends[1], [-1.0, 0.0], atol=0.03
    )  # straight to the nearest valley, at a click's precision
    np.testing.assert_allclose(
        page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('start')"), [-1, 0], atol=0.02
    )


def test_the_start_moves_by_keyboard_and_says_where_it_is(show):
    page = show(Descent(start=(0.5, -0.5)), reduced_motion=True)
    start = page.locator(f"{ROOT} .elf-movable")
    assert start.get_attribute("aria-label").startswith("Start: particle 1 at 0.50, particle 2 at −0.50")
    assert_moves(page, "descent", lambda: start.press("Shift+ArrowRight"))
    assert "particle 1 at 1.00" in start.get_attribute("aria-label")
    assert "Pair energy ends at 0.75 and −0.25" in page.locator(f"{ROOT} [aria-live]").inner_text()


@pytest.mark.parametrize("name", ["Swapped", "Both at one place"])
def test_buttons_move_the_picture(name, show):
    page = show(Descent(), reduced_motion=True)
    assert_moves(page, "descent", page.get_by_role("button", name=name).click)


def test_dark_pages_have_a_dark_picture(show):
    assert max(pixels(show(Descent(), dark=True), "descent").resize((1, 1)).getpixel((0, 0))) < 90


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": [0, None]}, "two finite numbers"),
        ({"half": 0}, "above zero"),
        ({"levels": {"mse": ["<b>"], "energy": []}}, "outlines"),
    ],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("descent", json.dumps({**web.state(Descent()), **change})))
    assert words in page.get_by_role("alert").inner_text()


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="two different places"):
        Descent(target=(1, 1))
    with pytest.raises(ValueError, match="half"):
        Descent(half=-1)
    widget = Descent()
    with pytest.raises(ValueError, match="start has shape"):
        widget.start = [0.0]
    assert widget.start == [1.6, 1.2]


def test_words_and_still_picture():
    widget = Descent(start=(0.5, -0.5))
    assert "Pair energy ends at (0.50, -0.50)" in widget.alt
    assert widget.still()[:4] == b"\x89PNG"
    assert all(level.startswith("M") for levels in widget.levels.values() for level in levels[:6])
    with pytest.raises(ValueError, match="closed lines as SVG"):
        widget.levels = {"mse": ["M0 0"], "energy": []}
