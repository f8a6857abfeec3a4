from __future__ import annotations

import base64
import io
import json

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from PIL import Image
from widget_page import placed

from course.widgets import FrameSlider, web
from course.widgets.frames import flip

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def picture(value: float) -> tuple[Figure, str]:
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, value], [0, 1])
    return figure, f"a line to {value}"


def slider(**options) -> FrameSlider:
    return flip(picture, [1.0, 2.0, 3.0], lambda value: f"x = {value:g}", name="end of the line", **options)


def test_pictures_labels_and_words_travel():
    widget = slider(start=1, dpi=100)
    assert plt.get_fignums() == []
    assert widget.labels == ["x = 1", "x = 2", "x = 3"]
    assert widget.alt == "a line to 2.0"
    assert widget.width == 184  # two inches
    assert [base64.b64decode(p)[:4] for p in widget.pictures] == [b"\x89PNG"] * 3
    assert len(set(widget.pictures)) == 3
    bundle, metadata = widget._repr_mimebundle_()
    assert bundle["image/png"] == widget.pictures[1]
    assert metadata["image/png"]["alt"] == bundle["text/plain"] == "a line to 2.0"
    widget.frame = 2
    assert widget.still() == base64.b64decode(widget.pictures[2])
    assert "x = 3" in repr(widget)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], [], []), "pictures is empty"),
        (([PNG], ["a", "b"], ["c"]), "labels has 2 for 1 pictures"),
        (([PNG], ["a"], []), "alts has 0"),
    ],
)
def test_bad_sliders_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        FrameSlider(*arguments)
    with pytest.raises(ValueError, match="frame is 3"):
        slider(start=3)
    widget = slider()
    with pytest.raises(ValueError, match="frame is -1"):
        widget.frame = -1
    with pytest.raises(ValueError, match="choice is 1"):
        widget.choice = 1
    with pytest.raises(ValueError, match="one a picture for each of 2 choices"):
        FrameSlider([PNG] * 3, ["a"], ["b"] * 3, choices=["c", "d"])


def test_a_menu_chooses_between_rows_of_pictures(show):
    def draw(value: float, power: int) -> tuple[Figure, str]:
        return picture(value**power)

    widget = flip(draw, [1.0, 2.0], choices={"line": 1, "square": 2}, name="x", question="kind", choice=1, start=1)
    assert widget.alts == ["a line to 1.0", "a line to 2.0", "a line to 1.0", "a line to 4.0"]
    assert widget.alt == "a line to 4.0"
    page = show(widget)
    image, menu = page.locator(".elf-frames img"), page.get_by_label("kind")
    assert image.get_attribute("alt") == "a line to 4.0"
    menu.select_option("line")
    assert image.get_attribute("alt") == "a line to 2.0"
    page.get_by_role("slider", name="x").fill("0")
    assert image.get_attribute("src").endswith(widget.pictures[0])
    assert page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('choice')") == 0


def test_the_slider_flips_through_the_pictures(show):
    widget = slider(start=2, fps=30)
    page = show(widget)
    image, control = page.locator(".elf-frames img"), page.get_by_role("slider", name="end of the line")
    for index in (2, 0, 1):
        control.fill(str(index))
        assert image.get_attribute("src").endswith(widget.pictures[index])
        assert image.get_attribute("alt") == widget.alts[index]
        assert control.get_attribute("aria-valuetext") == widget.labels[index]
        assert page.locator("[data-elf-label]").inner_text() == widget.labels[index]
    assert page.evaluate("document.querySelector('.elf-frames img').naturalWidth") > 100
    assert page.evaluate("document.querySelector('[data-elf-widget]').widget.model.get('frame')") == 1
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('.elf-frames').dataset.elfFrame === '2'")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pictures": []}, "one or more"),
        ({"pictures": ["<b>"] * 3}, "base64"),
        ({"labels": ["a"]}, "labels should be 3 texts"),
    ],
)
def test_bad_state_is_answered_by_a_message(show, change, words):
    page = show(placed("frames", json.dumps({**web.state(slider()), **change})))
    assert words in page.get_by_role("alert").inner_text()
    assert page.locator("img").count() == 0


def test_pictures_are_no_white_slab_on_a_dark_page(show):
    page = show(slider(), dark=True)
    with Image.open(io.BytesIO(page.locator(".elf-frames img").screenshot())) as shot:
        picture = shot.convert("L")
    assert max(picture.crop((0, 0, 4, 4)).tobytes()) < 40  # the widget's paper is #16191d
    assert picture.getextrema()[1] > 120  # the axes are drawn light
