"""Figures of notebooks can be read on light and dark pages and on a phone: the book's style sheet in a real browser."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from elf.viz import style

OFFLINE = Path(__file__).resolve().parents[2] / "jupyter_book" / "offline"
PAGES = {False: "#ffffff", True: "#14181e"}  # the theme's ground, light and dark
TEXT = {"ink": style.INK, **{name: style.legible(color) for name, color in style.COLORS.items()}}
HTML = """<!doctype html><html data-theme="{theme}"><head><meta charset="utf-8"><title>t</title>
<link rel="stylesheet" href="book.css"><script src="names.js"></script>
<style>body {{ margin: 0; background: {ground} }} img {{ max-width: 100% }} .bd-article {{ padding: 1rem }}</style>
</head><body><div class="bd-content"><article class="bd-article"><div class="cell_output">
<a class="reference internal image-reference" href="_images/figure.png">
<img alt="figure" src="_images/figure.png" style="width: {wide}px"></a></div></article></div></body></html>"""


@pytest.fixture
def figure_page(tmp_path, serve, open_page):
    """A page with one figure: a bar of each colour that words may have, on paper."""
    (tmp_path / "_images").mkdir()
    style.use()
    fig, ax = plt.subplots(figsize=(7.6, 3))
    ax.set_axis_off()
    for at, color in enumerate(TEXT.values()):
        ax.barh(0, 1, left=at + 0.25, height=0.6, color=color)
    ax.set(xlim=(0, len(TEXT) + 0.5), ylim=(-1, 1))
    (tmp_path / "_images" / "figure.png").write_bytes(style.png(fig, tight=False))
    plt.close(fig)
    for name in ("book.css", "names.js"):
        shutil.copy(OFFLINE / name, tmp_path / name)

    with serve(tmp_path) as address:

        def show(dark, width=1100, wide=700):
            page = HTML.format(theme="dark" if dark else "light", ground=PAGES[dark], wide=wide)
            (tmp_path / "index.html").write_text(page, encoding="utf-8")
            return open_page(f"{address}/index.html", dark=dark, width=width)

        yield show


def _luminance(rgb):
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (v / 255 for v in rgb)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one, other):
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_figure_has_the_grounds_colour_and_words_of_enough_contrast(dark, figure_page):
    with Image.open(io.BytesIO(figure_page(dark).screenshot())) as shot:
        picture = shot.convert("RGB")
    ground = picture.getpixel((8, 8))  # outside the figure
    assert all(abs(a - b) <= 2 for a, b in zip(ground, picture.getpixel((30, 30)), strict=True)), "a slab"
    middle = picture.crop((16, 130, 716, 150))
    colors = [color for count, color in middle.getcolors(1 << 24) if count > 500 and _contrast(color, ground) > 1.5]
    assert len(colors) == len(TEXT)
    assert min(_contrast(color, ground) for color in colors) >= 4.5


@pytest.mark.parametrize("part", [".elf-frames img", ".text_html > table"])
def test_on_a_dark_page_of_the_site_neither_sliders_pictures_nor_tables_are_slabs(part, book, open_page):
    place = open_page(f"{book}/notebooks/05_rigidity.html", dark=True).locator(f".cell_output {part}").first
    place.scroll_into_view_if_needed()
    with Image.open(io.BytesIO(place.screenshot())) as shot:
        picture = shot.convert("L")
    assert max(picture.crop((0, 0, 4, 4)).tobytes()) < 60
    assert picture.getextrema()[1] > 120  # what is drawn or written is light


@pytest.mark.parametrize("wide", [500, 890])
def test_on_a_phone_words_keep_their_size_and_the_page_does_not_scroll_sideways(wide, figure_page):
    page = figure_page(False, width=390, wide=wide)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    width = page.evaluate("() => document.querySelector('img').getBoundingClientRect().width")
    assert width == pytest.approx(0.75 * wide, abs=1)  # words of 10 points, at 92 pixels an inch, stay 9.6 pixels high
    frame = page.get_by_role("group", name="Figure")
    frame.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.cell_output').scrollLeft > 0")
