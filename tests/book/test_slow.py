"""A slow machine, a slow server, a reader in a hurry: every figure comes in the end, and no error with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import LATE_FRAMES, serving
from figures import check_figures

PAGE = "notebooks/02_gradient_fields.html"
MANY = "notebooks/06_diffusion_and_flow.html"  # four figures of ours and some of ipywidgets
DELAY = 0.15  # seconds before each answer of the slow server
# The page is busy for longer than anywidget is patient, just when a widget's module is about to load.
BUSY = """() => {
  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => {
    for (const end = performance.now() + 2500; performance.now() < end && blob.type === "text/javascript";);
    return make.call(URL, blob);
  };
}"""


@pytest.fixture(scope="module")
def slow_book(site, policy) -> Iterator[str]:
    with serving(site, "/some/sub/path", {"Content-Security-Policy": policy}, delay=DELAY) as address:
        yield address


# Where all pages are slowed, the others need not be asked again.
@pytest.mark.parametrize("name", [pytest.param(PAGE, marks=pytest.mark.live), MANY])
def test_a_busy_page_loses_no_figure(name, book, open_page):
    page = open_page("about:blank")
    page.add_init_script(f"({BUSY})()")
    page.goto(f"{book}/{name}")
    check_figures(page)


@pytest.mark.parametrize("slowed", [4, pytest.param(6, marks=pytest.mark.live)])
def test_figures_come_on_a_slow_machine_and_answer(slowed, book, open_page):
    page = open_page(f"{book}/{PAGE}", slowed=slowed)
    check_figures(page)
    playground = page.locator(".elf-playground").first
    before = playground.get_attribute("data-elf-mse")
    playground.locator('[data-elf-panel="mse"] [data-elf-particle="0"]').press("ArrowRight")
    page.wait_for_function("([node, mse]) => node.dataset.elfMse !== mse", arg=[playground.element_handle(), before])


def through_history(move: Callable[..., Any], **options: Any) -> None:
    """`page.go_back` or `go_forward`, asked again while the browser is just changing the page that it would ask."""
    from playwright.sync_api import Error

    while True:
        try:
            move(**options)
            return
        except Error as error:
            if "Not attached to an active page" not in str(error):
                raise
            time.sleep(0.05)


@pytest.mark.live
def test_reloading_leaving_and_coming_back_while_it_loads(slow_book, open_page):
    page = open_page("about:blank")
    page.goto(f"{slow_book}/{PAGE}", wait_until="commit")
    page.goto(f"{slow_book}/{PAGE}", wait_until="domcontentloaded")
    page.reload(wait_until="domcontentloaded")
    page.goto(f"{slow_book}/index.html", wait_until="commit")
    through_history(page.go_back, wait_until="domcontentloaded")
    through_history(page.go_forward, wait_until="domcontentloaded")
    through_history(page.go_back)
    check_figures(page)


@pytest.mark.live
def test_a_library_that_does_not_come_leaves_words_and_a_way_on(book, open_page):
    page = open_page("about:blank", allow=r"did not load|net::ERR_FAILED")
    page.route(re.compile("/html-manager.js"), lambda route: route.abort())
    page.goto(f"{book}/{PAGE}")
    missing = page.get_by_role("alert").first
    missing.wait_for()
    assert "This figure did not load." in missing.inner_text()
    page.unroute_all()
    with page.expect_navigation():
        missing.get_by_role("button", name="Load the page again").click()
    check_figures(page)


@pytest.mark.live
def test_a_module_that_does_not_come_leaves_words(book, open_page):
    page = open_page("about:blank", allow=r"did not load|net::ERR_FAILED")
    page.route(re.compile("/playground.js"), lambda route: route.abort())
    page.goto(f"{book}/index.html")
    page.get_by_role("alert").wait_for()
    assert "This figure did not load." in page.get_by_role("alert").inner_text()


def test_icons_that_come_late_ask_for_no_font(book, open_page):
    """Until the theme draws an icon, the widgets' library would ask for fonts that are not in the site."""
    asked = list[str]()
    page = open_page("about:blank")
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(f"({LATE_FRAMES})(150)")
    page.goto(f"{book}/{MANY}")
    check_figures(page)
    assert any("html-manager" in url for url in asked)
    assert [url for url in asked if re.search(r"@jupyter-widgets/.*\.(woff2?|ttf|eot|svg)", url)] == []
