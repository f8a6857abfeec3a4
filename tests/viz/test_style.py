from __future__ import annotations

import base64
import io
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from course.widgets import web
from elf.viz import style

# Machado, Oliveira, Fernandes 2009 (doi:10.1109/TVCG.2009.113), severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(color: str) -> np.ndarray:
    value = np.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    ratio = XYZ @ rgb / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lab_of_known_colours() -> None:
    # sRGB red is L 53.24, a 80.09, b 67.20 under D65 (Lindbloom's calculator).
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.02)


@pytest.mark.parametrize("sight", SIGHT)
def test_palette_is_told_apart(sight: str) -> None:
    seen = {name: lab(np.clip(SIGHT[sight] @ linear(color), 0, 1)) for name, color in style.COLORS.items()}
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 25, (first, second)


def test_the_measure_can_fail() -> None:
    # The classic clash: pure red and a green of like lightness merge for deuteranopes.
    pair = [lab(np.clip(SIGHT["deuteranopia"] @ linear(color), 0, 1)) for color in ("#C00000", "#6B6B00")]
    assert np.linalg.norm(pair[0] - pair[1]) < 25


def test_contrast_on_paper() -> None:
    for name, color in style.COLORS.items():
        luminance = float(XYZ[1] @ linear(color))
        assert 1.05 / (luminance + 0.05) > 2.9, name


@pytest.mark.parametrize("color", [*style.COLORS.values(), style.INK, "white", "#ffff00"])
def test_words_have_the_contrast_that_reading_asks_for(color: str) -> None:
    assert 1.05 / (float(XYZ[1] @ linear(style.legible(color))) + 0.05) >= 4.5


def test_legible_colours_stay_as_they_are() -> None:
    assert style.legible(style.COLORS["energy"]) == style.COLORS["energy"].lower()


def test_widgets_wear_the_palette() -> None:
    source = (web.HERE / "dom.js").read_text(encoding="utf-8")
    light = dict(re.findall(r"--elf-(\w+): (#\w{6});", source.split("const LIGHT")[1].split("`;")[0]))
    assert {name: light[name] for name in ("target", "prediction", "mse", "energy")} == {
        name: style.COLORS[name] for name in ("target", "prediction", "mse", "energy")
    }


def test_show_carries_alt_text_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: dict = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **more: caught.update(data=data, **more))
    style.use()
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1, 2], [0, 1, 3])
    style.show(fig, alt="a line that rises")
    assert caught["metadata"]["image/png"]["alt"] == "a line that rises" == caught["data"]["text/plain"]
    assert not plt.get_fignums()
    with Image.open(io.BytesIO(base64.b64decode(caught["data"]["image/png"]))) as picture:
        shown = caught["metadata"]["image/png"]["width"]
        assert shown == round(picture.width / style.DPI * style.CSS_PIXELS_PER_INCH)
        assert picture.width == pytest.approx(3 * style.DPI, rel=0.25)
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_show_wants_words() -> None:
    fig, _ = plt.subplots()
    with pytest.raises(ValueError, match="alt"):
        style.show(fig, alt=" ")
    plt.close(fig)


def test_dots_stand_at_their_values_from_top_to_bottom_with_a_bar_at_the_mean():
    fig, ax = plt.subplots()
    style.dots(ax, {"mse": [1.0, 2.0, 6.0], "mine": [4.0]}, {"mine": "#123456"})
    points, bar, other, _ = ax.lines
    assert points.get_xdata().tolist() == [1.0, 2.0, 6.0]
    assert list(points.get_ydata()) == [0, 0, 0]
    assert list(bar.get_xdata()) == [3.0]
    assert (points.get_color(), other.get_color()) == (style.COLORS["mse"], "#123456")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["mse", "mine"]
    top, bottom = (ax.transData.transform((0, height))[1] for height in (0, 1))
    assert top > bottom
    plt.close(fig)
    with pytest.raises(ValueError, match=r"rows\['none'\] is empty; it should have at least one number"):
        style.dots(plt.figure().gca(), {"none": []})
    plt.close("all")


def test_lines_join_the_means_of_dots_that_stand_at_their_values():
    ax = plt.figure().gca()
    assert style.lines(ax, {1.0: [2.0, 4.0], 10.0: [7.0]}, "#123456", shift=1.5, linestyle="--") == 7.0
    line, *dots = ax.get_lines()
    assert line.get_xydata().tolist() == [[1.0, 3.0], [10.0, 7.0]]
    assert line.get_linestyle() == "--"
    assert [part.get_xydata().tolist() for part in dots] == [[[1.5, 2.0], [1.5, 4.0]], [[15.0, 7.0]]]
    assert {part.get_color() for part in ax.get_lines()} == {"#123456"}
    for nothing in ({}, {1.0: []}):
        with pytest.raises(ValueError, match="at least one number"):
            style.lines(ax, nothing, "#123456")
    plt.close(ax.figure)
