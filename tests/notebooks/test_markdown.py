"""Notebooks and the book's pages are typeset: no mark of Markdown is left over, no prose inside mathematics."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from typeset import STRAY, prose_in

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.book.sources import for_sphinx  # noqa: E402

FILES = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "jupyter_book").glob("*.md")])


def _texts(path: Path) -> list[str]:
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    cells = json.loads(for_sphinx(path.read_text(encoding="utf-8")))["cells"]
    return [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]


def _tokens(text: str) -> Iterator[Token]:
    """As the book reads it: CommonMark with tables and dollars; a `$$` inside a paragraph opens nothing."""
    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=False)
    for token in parser.parse(re.sub(r"<code>.*?</code>", "", text)):
        yield from token.children or [token]


def faults(text: str) -> list[str]:
    found = []
    for token in _tokens(text):
        if token.type in ("text", "html_block", "html_inline"):
            found += [token.content] if STRAY.search(token.content) else []
        elif token.type.startswith("math"):
            found += prose_in(token.content)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_everything_is_typeset(path):
    assert not [fault for text in _texts(path) for fault in faults(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Suppose that\n$$p = e^{-E}$$\nand **so** on",
        "the price is $5",
        "a **bold word that never ends",
        "$$\np = 1 and therefore nothing\n$$",
        "<details>A point at distance $r$</details>",
    ],
)
def test_faults_are_found(text):
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "so\n\n$$p(y) = \\frac{e^{-E/T}}{Z} \\quad \\text{where it rises}$$\n\nand **so** on",
        "`$OUT` and $k_{ij}$, $D_{\\mathrm{KL}}(q \\,\\|\\, p)$",
        "| a | b |\n|---|---|\n| $x$ | **y** |",
    ],
)
def test_good_text_is_let_through(text):
    assert not faults(text)
