"""Every page of the site in a real browser: nothing missing, nothing broken, nothing asked of another host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from browser import settle
from bs4 import BeautifulSoup
from figures import check_molecule
from typeset import STRAY, prose_in

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.book import sources  # noqa: E402

SCREENSHOTS = ROOT / "build" / "screenshots"
WIDGET = "application/vnd.jupyter.widget-view+json"
TALLEST = 12_000  # of a screenshot, in pixels: Chromium draws no larger ones
CUT = """() => [...document.querySelectorAll(".bd-article div.highlight pre")]
  .filter((text) => text.offsetParent && text.scrollWidth > text.clientWidth + 1)
  .map((text) => text.textContent.slice(0, 60))"""


def _docnames(entries: list[dict]) -> list[str]:
    return [name for entry in entries for name in (entry["file"], *_docnames(entry.get("sections", [])))]


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = ["index", *_docnames([chapter for part in sources.toc(NOTEBOOKS)["parts"] for chapter in part["chapters"]])]


def _settled(page) -> None:
    """Wait until math is typeset and widgets stand there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !window.MathJax?.startup?.promise || window.MathJax.startup.promise.then(() => true)")
    if page.locator(f'script[type="{WIDGET}"]').count():
        page.wait_for_function("() => document.documentElement.dataset.widgets === 'ready'")


def _widgets_there(page) -> None:
    """Each output of a cell that is a widget shows one, with something in it."""
    for place in page.locator(f'.cell_output:has(script[type="{WIDGET}"])').all():
        places, shown = (
            place.locator(f'script[type="{WIDGET}"]').count(),
            place.locator("> .widget-subarea, * > .widget-subarea"),
        )
        assert shown.count() == places
        for widget in shown.all():
            assert widget.locator("svg, canvas, input, button, img, .noUi-target, .widget-html-content").count()


def _screenshot(page, name: str, kind: str) -> None:
    folder = SCREENSHOTS / kind
    folder.mkdir(parents=True, exist_ok=True)
    width = page.viewport_size["width"]
    height = min(TALLEST, page.evaluate("() => document.documentElement.scrollHeight"))
    page.screenshot(
        path=folder / f"{name.replace('/', '-')}.png",
        full_page=True,
        clip={"x": 0, "y": 0, "width": width, "height": height},
    )


@pytest.mark.parametrize("name", PAGES)
def test_page(name, book, open_page):
    page = open_page(f"{book}/{name}.html", width=1280)  # fails for remote requests, errors, missing files
    _settled(page)

    assert page.locator("article h1").count() == 1
    _widgets_there(page)
    formulas = page.locator("span.math, div.math")
    assert page.locator("mjx-container").count() >= formulas.count()
    assert page.locator("mjx-merror, .math:has-text('Math input error')").count() == 0
    for picture in page.locator("article img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("(image) => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
        alt = picture.get_attribute("alt")
        assert alt, "a picture has no words"
        assert "_images/" not in alt, f"a file's name is no description: {alt}"
    for view in page.locator(".elf-molecule").all():
        check_molecule(view)
    if name.startswith("notebooks/"):
        assert not page.evaluate(CUT), "code, or what it prints, is wider than its place beside both sidebars"
    page.evaluate("() => window.scrollTo(0, 0)")
    _screenshot(page, name, "light")

    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    _screenshot(page, name, "dark")

    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 390, "height": 844})
    settle(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
    _screenshot(page, name, "phone")


def _untypeset(html: str) -> list[str]:
    """What a reader would see of Markdown's marks, and the prose that got into formulas."""
    article = BeautifulSoup(html, "html.parser").find("article") or BeautifulSoup(html, "html.parser")
    found = [words for formula in article.select(".math") for words in prose_in(formula.extract().get_text())]
    for other in article.select("pre, code, script, style, .cell_input, .cell_output, .headerlink, dt.sig"):
        other.extract()
    return found + [text for text in article.find_all(string=STRAY) if text.strip()]


@pytest.mark.parametrize("name", PAGES)
def test_no_mark_is_left_over_and_no_prose_inside_mathematics(name, site):
    assert not _untypeset((site / f"{name}.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ("<p>On the $d$-rigidity of <b>graphs</b></p>", 1),
        ("<p>| loss | error |\n|---|---|</p>", 1),
        ("<p>and **so** on, <code>$OUT</code></p>", 1),
        (r'<p>Suppose <span class="math">\(p = 1 Add that over the data\)</span></p>', 3),
        (r'<p>So <span class="math">\(D_{\mathrm{KL}} \text{ where it rises}\)</span></p><pre>$ make</pre>', 0),
    ],
)
def test_what_is_left_over_is_found(html, count):
    assert len(_untypeset(f"<article>{html}</article>")) == count


@pytest.mark.parametrize("name", ["genindex", "py-modindex", "search"])
def test_index_pages(name, book, open_page):
    page = open_page(f"{book}/{name}.html")
    page.wait_for_load_state("networkidle")
    assert page.locator("h1:visible").count() == 1


def test_every_notebook_is_a_page_and_its_widgets_are_there():
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS} <= set(PAGES)
    assert len(PAGES) == len(set(PAGES))
    assert yaml.safe_load((ROOT / "jupyter_book" / "_toc.yml").read_text())["root"] == "index"
