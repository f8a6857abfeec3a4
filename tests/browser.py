"""A real browser for tests: Chromium with the network off, driven by Playwright, and a small file server beside it.

    def test_page(open_page, serve):
        with serve(folder, prefix="/some/sub/path") as address:
            page = open_page(address + "/index.html", dark=True, width=390)

`open_page` gives a Playwright page, whose waits are long: no test here depends on the speed of the machine. When the
test ends it fails, and says why, for any request to another host than 127.0.0.1, any response of 400 or more, any page
error, any console error, and any breach of a content-security policy; a test that means to see one of these says so:
`open_page(..., allow="pattern")`.

Chromium is Debian's package (`apt-get install chromium`), or whatever ELF_CHROMIUM names; where there is none these
tests skip, and say so; with CI set they fail instead.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.chromium import FLAGS, executable  # noqa: E402

PATIENCE = 300_000  # milliseconds for what a page should show: however slow the machine is, it comes
# Frames come as late as on a busy machine: a test that looks at once sees the picture of before.
LATE_FRAMES = """(ms) => {
  const ask = window.requestAnimationFrame, drop = window.cancelAnimationFrame, frames = new Map();
  window.requestAnimationFrame = (call) => {
    const id = setTimeout(() => frames.set(id, ask(call)), ms);
    return id;
  };
  window.cancelAnimationFrame = (id) => { clearTimeout(id); drop(frames.get(id)); };
}"""
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".json": "application/json"}


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, prefix: str, headers: dict[str, str], delay: float, **kwargs: Any) -> None:
        self._prefix, self._headers, self._delay = prefix, headers, delay
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        time.sleep(self._delay)
        # Whoever leaves a page does not wait for what it asked for.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().do_GET()

    def translate_path(self, path: str) -> str:
        address = urlsplit(path).path
        inside = address == self._prefix or address.startswith(self._prefix + "/")
        return super().translate_path(address[len(self._prefix) :] or "/") if inside else os.devnull + "/nothing"

    def end_headers(self) -> None:
        for name, value in self._headers.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(
    folder: str | Path, prefix: str = "", headers: dict[str, str] | None = None, delay: float = 0.0
) -> Iterator[str]:
    """Serve a folder's files on 127.0.0.1 under `prefix` ("" or "/some/sub/path"); gives "http://127.0.0.1:port/prefix".

    `headers` go with every answer, a Content-Security-Policy for instance; every answer waits for `delay` seconds.
    """
    options: dict[str, Any] = {"prefix": prefix.rstrip("/"), "headers": headers or {}, "delay": delay}
    handler = functools.partial(_Handler, directory=str(folder), **options)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{prefix.rstrip('/')}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[str]]:
    """`with serve(folder, prefix=..., headers=...) as address:`, see `serving`."""
    return serving


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running Chromium (a Playwright browser), one a test session."""
    path = executable()
    if path is None:
        words = "NO BROWSER: nothing was checked; `apt-get install chromium`, or name one in ELF_CHROMIUM"
        # In CI a browser is part of the bargain: a check that never ran must not look like one that passed.
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    api = pytest.importorskip("playwright.sync_api", reason="NO BROWSER: nothing was checked; pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def watch(page: Any) -> list[str]:
    """What goes wrong on a page from now on: remote requests, bad answers, page errors, console errors."""
    wrong: list[str] = []

    def on_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname != "127.0.0.1":
            wrong.append(f"request to {request.url}")

    def on_response(response: Any) -> None:
        if response.status >= 400 and not response.url.endswith("/favicon.ico"):
            wrong.append(f"answer {response.status} from {response.url}")

    def on_console(message: Any) -> None:
        place = (message.location or {}).get("url", "")
        if message.type == "error" and not place.endswith("/favicon.ico"):
            wrong.append(f"console: {message.text} ({place})")

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("console", on_console)
    page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    return wrong


def until(happened: Callable[[], bool]) -> None:
    """Ask again and again until it has happened, for as long as a page may take."""
    end = time.monotonic() + PATIENCE / 1000
    while not happened():
        if time.monotonic() > end:
            pytest.fail("what the test waits for did not happen")
        time.sleep(0.1)


def settle(page: Any) -> None:
    """Wait until the page has drawn what it has been told, however long its frames take."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def drag(page: Any, grip: Any, dx: float, dy: float) -> None:
    """Take hold of something on the page, and let it go elsewhere."""
    grip.hover()  # waits until it stands still
    box = grip.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=5)
    page.mouse.up()
    settle(page)


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(address, dark=..., width=..., height=..., reduced_motion=..., touch=..., slowed=..., allow=...)`.

    `slowed`: the page's processor is that many times slower than the machine's; unless a test says otherwise, as many
    times as ELF_SLOWED says, which `make e2e` sets. Its frames come ELF_LATE_FRAMES milliseconds late.
    """
    contexts: list[Any] = []
    watched: list[tuple[list[str], str | None]] = []

    def open_(
        address: str,
        *,
        dark: bool = False,
        width: int = 1100,
        height: int = 800,
        reduced_motion: bool = False,
        touch: bool = False,
        slowed: float | None = None,
        allow: str | None = None,
    ) -> Any:
        context = chromium.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height},
            reduced_motion="reduce" if reduced_motion else "no-preference",
            has_touch=touch,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        watched.append((watch(page), allow))
        rate = float(os.environ.get("ELF_SLOWED", 1)) if slowed is None else slowed
        if rate != 1:
            context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
        if late := os.environ.get("ELF_LATE_FRAMES"):
            context.add_init_script(f"({LATE_FRAMES})({float(late)})")
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    wrong = [text for found, allow in watched for text in found if not (allow and re.search(allow, text))]
    # pytest shows values of assertions only in test files and plugins: the words have to be said.
    if wrong:
        pytest.fail("a page of this test went wrong:\n" + "\n".join(wrong), pytrace=False)
