"""What a reader does to a widget must change its picture: pixels before and after, in the browser."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from browser import settle
from PIL import Image, ImageChops


def pixels(page: Any, kind: str) -> Image.Image:
    """The drawings of a widget, without its sliders and words, once it has come to rest."""
    page.wait_for_function(f"() => !document.querySelector('.elf-{kind}').dataset.elfBusy")
    settle(page)
    with Image.open(io.BytesIO(page.locator(f".elf-{kind} .elf-panels").screenshot())) as shot:
        return shot.convert("RGB")


def changed(before: Image.Image, after: Image.Image) -> int:
    """How many pixels differ visibly."""
    difference = ImageChops.difference(before, after).convert("L")
    return sum(difference.histogram()[16:])


def assert_moves(page: Any, kind: str, act: Callable[[], Any]) -> None:
    """`act` changes more than a hundred pixels of the widget's drawings."""
    before = pixels(page, kind)
    act()
    assert changed(before, pixels(page, kind)) > 100
