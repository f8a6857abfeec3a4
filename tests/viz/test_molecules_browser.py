"""The 3D views in a real browser: 3Dmol.js from this package draws, and without WebGL the picture stays."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import until
from PIL import Image

from elf.viz import molecules

RING = torch.arange(6) * math.pi / 3
BENZENE = torch.stack([RING.cos(), RING.sin(), torch.zeros(6)], 1)
BENZENE = torch.cat([1.39 * BENZENE, 2.48 * BENZENE])
NUMBERS = torch.tensor([6] * 6 + [1] * 6)
# JupyterLab's own way to say where the files of extensions are.
LAB = (
    '<script id="jupyter-config-data" type="application/json">'
    '{{"fullLabextensionsUrl": "{address}/labextensions"}}</script>'
)
NO_WEBGL = """() => {
  for (const { prototype } of [HTMLCanvasElement, OffscreenCanvas]) {
    const get = prototype.getContext;
    prototype.getContext = function (kind, ...rest) {
      return kind.includes("webgl") ? null : get.call(this, kind, ...rest);
    };
  }
}"""


@pytest.fixture
def view_page(tmp_path: Path, serve: Callable[..., Any], open_page: Callable[..., Any]) -> Any:
    (tmp_path / "labextensions").symlink_to(molecules.LABEXTENSIONS)
    with serve(tmp_path) as address:

        def open_(view: molecules.MoleculeView, *, lab: bool = True, webgl: bool = True, **options: Any) -> Any:
            head = (
                '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">'
            )
            config = LAB.format(address=address) if lab else ""
            script = "" if webgl else f"<script>({NO_WEBGL})()</script>"
            (tmp_path / "index.html").write_text(head + config + script + "<main>" + view.html + "</main></html>")
            return open_page(address + "/index.html", **options)

        yield open_


def colours(locator: Any) -> int:
    with Image.open(io.BytesIO(locator.screenshot())) as shot:
        return len(shot.convert("RGB").getcolors(1 << 22))


def picture_hidden(page: Any) -> bool:
    return page.evaluate("getComputedStyle(document.querySelector('.elf-molecule img')).visibility") == "hidden"


@pytest.mark.parametrize("count", [1, 3])
def test_3dmol_draws(view_page, count):
    forces = [0.2 * torch.ones(12, 3)] * count
    view = molecules.gallery([BENZENE] * count, [NUMBERS] * count, forces=forces, targets=[BENZENE + 0.2] * count)
    page = view_page(view)
    page.wait_for_selector(".elf-molecule canvas")
    page.wait_for_function("() => document.querySelector('.elf-molecule img').style.visibility === 'hidden'")
    until(lambda: colours(page.locator(".elf-molecule")) > 200)
    assert page.locator(".elf-molecule canvas").count() >= 1


def test_dragging_turns_the_molecule(view_page):
    page = view_page(molecules.gallery([BENZENE], [NUMBERS]))
    page.wait_for_selector(".elf-molecule canvas")
    host = page.locator(".elf-molecule")
    until(lambda: colours(host) > 200)
    before, box = host.screenshot(), host.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 220, steps=4)
    page.mouse.up()
    until(lambda: host.screenshot() != before)


@pytest.mark.parametrize(("lab", "webgl"), [(True, False), (False, True)])
def test_without_webgl_or_without_3dmol_the_picture_stays(view_page, lab, webgl):
    view = molecules.gallery([BENZENE], [NUMBERS], alt="benzene")
    # 3Dmol.js tells the console of what it could not do without WebGL.
    page = view_page(view, lab=lab, webgl=webgl, allow="getParameter|clearDepth")
    page.wait_for_timeout(1000)
    assert not picture_hidden(page)
    assert page.locator(".elf-molecule canvas").count() == 0
    assert page.locator(".elf-molecule").get_attribute("aria-label") == "benzene"
    assert colours(page.locator(".elf-molecule")) > 50
