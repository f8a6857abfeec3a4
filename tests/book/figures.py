"""What several tests ask of the figures on a page of the site."""

from __future__ import annotations

import io
from typing import Any

from browser import until
from PIL import Image

MISSING = """() => {
  const widgets = document.querySelectorAll("script[type='application/vnd.jupyter.widget-view+json']").length;
  const drawn = document.querySelectorAll(".widget-subarea").length;
  const ours = [...document.querySelectorAll("[data-elf-kind]")];
  const wrong = ours.filter((one) => one.dataset.elfState !== "ready").length;
  return { widgets, missing: widgets - drawn, wrong, ours: ours.length };
}"""


def check_figures(page: Any) -> None:
    """Every widget of a notebook's page stands there, and those of ours are alive."""
    page.wait_for_function("() => document.documentElement.dataset.widgets === 'ready'")
    page.wait_for_function("() => document.querySelectorAll('[data-elf-state=ready]').length > 0")
    found = page.evaluate(MISSING)
    assert found["widgets"] >= found["ours"] > 0
    assert found["missing"] == found["wrong"] == 0
    assert page.locator(".elf-missing").count() == 0


def check_molecule(view: Any) -> None:
    """3Dmol has drawn this molecule."""
    view.scroll_into_view_if_needed()
    view.locator("canvas").first.wait_for(state="visible")
    until(lambda: _colours(view) > 200)


def _colours(view: Any) -> int:
    with Image.open(io.BytesIO(view.screenshot())) as picture:
        return len(picture.convert("RGB").getcolors(1 << 24))
