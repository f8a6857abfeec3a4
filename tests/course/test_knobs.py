"""Pictures with knobs: the browser unpacks what Python packs; sliders, drags, picks move it; bad state is answered."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from moving import assert_moves
from widget_page import placed

from course.widgets import Knobs, web
from course.widgets.knobs import scene, tag

ROOT = ".elf-knobs"
WATER = torch.tensor([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]], dtype=torch.float64)
NUMBERS = torch.tensor([8, 1, 1])


def knobs(**options: Any) -> Knobs:
    """Water, stretched in three steps and pushed in two."""
    sizes = torch.linspace(1, 2, 6, dtype=torch.float64)
    x = WATER * sizes[:, None, None]
    return Knobs(
        {"stretch": ["1", "2", "3"], "push": ["a", "b"]},
        [scene(x, NUMBERS, arrows=0.5 * x, outline=WATER, title="water", tone="mse")],
        [tag("price", sizes, "mse", "Å"), tag("other", 3 - sizes)],
        **{"at": [1, 1], "about": "Stretched water", **options},
    )


def test_coordinates_arrive_in_the_browser_to_a_thousandth(show):
    widget = knobs()
    page = show(widget)
    script = 'async (text) => (await import(new URL("elf/knobs.js", location.href).href)).unpack(text)'
    found = np.array(page.evaluate(script, widget.panels[0]["frames"])).reshape(6, 3, 3)
    lengths = np.linalg.norm(found[:, 0] - found[:, 1], axis=-1)  # in the principal frame: lengths stay
    expected = float((WATER[0] - WATER[1]).norm()) * np.linspace(1, 2, 6)
    np.testing.assert_allclose(lengths, expected, atol=2e-3)


@pytest.mark.parametrize("name", ["stretch", "push"])
def test_sliders_move_the_picture_and_the_tags(name, show):
    page = show(knobs(at=[0, 0]))
    slider = page.get_by_role("slider", name=name)
    assert_moves(page, "knobs", lambda: slider.press("End"))
    place, value = {"stretch": ([2, 0], "1.80 Å"), "push": ([0, 1], "1.20 Å")}[name]
    assert page.locator(f"{ROOT} .elf-tags .elf-number").first.inner_text() == value
    assert page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('at')") == place
    assert f"price: {value}" in page.locator(f"{ROOT} [aria-live]").inner_text()


def test_a_drag_in_the_picture_turns_both_knobs(show):
    page = show(knobs(at=[0, 0]))
    box = page.locator(f"{ROOT} svg").bounding_box()

    def drag() -> None:
        page.mouse.move(box["x"] + 20, box["y"] + box["height"] - 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 10, steps=4)
        page.mouse.up()

    assert_moves(page, "knobs", drag)
    assert page.locator(ROOT).get_attribute("data-elf-place") == "2 1"


def test_a_press_picks_a_dot(show):
    flat = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64).expand(6, 3, 2)
    lifted = flat + torch.arange(6, dtype=torch.float64)[:, None, None] * torch.tensor([0.0, 0.1]).double()
    widget = Knobs({"lift": ["0", "1"], "which": ["a", "b", "c"]}, [scene(lifted)], picks=True)
    page = show(widget)
    box = page.locator(f"{ROOT} svg").bounding_box()
    press = {"x": box["width"] * 0.85, "y": box["height"] / 2}
    assert_moves(page, "knobs", lambda: page.locator(f"{ROOT} svg").click(position=press))
    assert page.locator(ROOT).get_attribute("data-elf-place") == "0 2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sliders": []}, "one or two"),
        ({"at": [0, 7]}, "a place on each slider"),
        ({"panels": []}, "one or more"),
        ({"tags": [{"name": "x", "values": [1], "top": 1}]}, "6 numbers each"),
        ({"panels": [{**knobs().panels[0], "frames": "AAAA"}]}, "one picture for each place"),
        ({"panels": [{**knobs().panels[0], "edges": [[0, 9]]}]}, "edges should join dots"),
    ],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("knobs", json.dumps({**web.state(knobs()), **change})))
    assert words in page.get_by_role("alert").inner_text()


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="one or two"):
        Knobs({}, [])
    with pytest.raises(ValueError, match="panels is empty"):
        Knobs({"a": ["1"]}, [])
    with pytest.raises(ValueError, match="3 points for each of 2 places"):
        Knobs({"a": ["1", "2"]}, [scene(WATER[None], NUMBERS)])
    with pytest.raises(ValueError, match="'x' has 2 values"):
        Knobs({"a": ["1"]}, [scene(WATER[None])], [tag("x", torch.ones(2))])
    with pytest.raises(ValueError, match="below 32"):
        scene(100 * WATER[None])
    with pytest.raises(ValueError, match="top is 0"):
        tag("x", torch.zeros(2))
    widget = knobs()
    with pytest.raises(ValueError, match="at is"):
        widget.at = [3, 0]
    assert widget.at == [1, 1]


def test_what_is_a_rounding_error_beside_the_full_bar_is_zero():
    values = torch.tensor([1.47e-31, -3e-15, 1e-9, 60.0], dtype=torch.float64)
    assert tag("share", values, top=100)["values"] == [0.0, 0.0, 1e-9, 60.0]


def test_words_and_still_picture():
    widget = knobs()
    assert widget.alt == "Stretched water. stretch 2, push b: price 1.6 Å, other 1.4."
    assert widget.still()[:4] == b"\x89PNG"
