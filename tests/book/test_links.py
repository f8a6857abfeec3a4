"""The site's files: links resolve, nothing is loaded from another host, and it is small."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}


class _Page(HTMLParser):
    """Ids, links, and addresses that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and set(values.get("rel", "").split()) & {"stylesheet", "icon", "preload", "modulepreload"}:
            self.loaded.append(values["href"])
        if values.get(LOADED.get(tag, ""), "").strip():
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, _Page]:
    return {
        path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if "_static" not in path.parts
    }


def _broken(pages: dict[Path, _Page], addresses: str) -> list[str]:
    broken = []
    for path, page in pages.items():
        for address in getattr(page, addresses):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                broken.append(f"{path.name}: {address}: no such file")
            elif anchor and target in pages and anchor not in pages[target].ids:
                broken.append(f"{path.name}: {address}: no such place on that page")
    return broken


def test_links_resolve(pages):
    assert sum(len(page.links) for page in pages.values()) > 500
    assert not _broken(pages, "links")


def test_what_pages_load_is_there_and_from_here(pages):
    assert not _broken(pages, "loaded")
    remote = {address for page in pages.values() for address in page.loaded if urlsplit(address).netloc}
    assert not remote


def test_styles_load_nothing_from_elsewhere(site):
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert not re.findall(r"(?:@import\s+|url\()\s*['\"]?\s*(?:https?:)?//", text), sheet


def test_no_link_goes_through_the_root_of_the_server(pages):
    absolute = {address for page in pages.values() for address in page.links + page.loaded if address.startswith("/")}
    assert not absolute


def test_is_small(site):
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    notebooks = len([*(site / "notebooks").glob("*.html")])
    assert notebooks >= 16
    assert size < 13_000_000 + 1_000_000 * notebooks  # most of the first are the libraries that make it work offline


def test_a_broken_link_would_be_seen(tmp_path):
    path = tmp_path / "a.html"
    page = _Page('<a href="b.html">b</a> <a href="#here">c</a> <a href="#there">d</a> <p id="there"><img src="x.png">')
    assert len(_broken({path: page}, "loaded")) == 1
    path.write_text("")
    assert [text.split(": ", 1)[1] for text in _broken({path: page}, "links")] == [
        "b.html: no such file",
        "#here: no such place on that page",
    ]
