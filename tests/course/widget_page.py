"""A plain page with widgets on it, served under a strict content-security policy, for tests in the browser."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from course.widgets import web

# No inline script, no inline style, no eval, no other origin.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
STYLE = """
body { margin: 16px; font-family: sans-serif; background: #fff; color: #1f2328 }
@media (prefers-color-scheme: dark) { body { background: #16191d; color: #e8eaed } }
"""


def write_page(folder: Path, widgets: Sequence[Any]) -> None:
    """index.html with the widgets (or HTML texts) one after the other, and the files that it needs."""
    web.copy_files(folder / "elf")
    (folder / "page.css").write_text(STYLE)
    body = "\n".join(widget if isinstance(widget, str) else web.place(widget) for widget in widgets)
    (folder / "index.html").write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Widgets</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f'<link rel="stylesheet" href="page.css"></head>\n<body><main>{body}</main>'
        '<script type="module" src="elf/mount.js"></script></body></html>\n',
        encoding="utf-8",
    )


def placed(name: str, state: str) -> str:
    """A place for a widget with any JSON text as its state, sound or not."""
    return f'<div data-elf-widget="{html.escape(name)}"><script type="application/json">{state}</script></div>'


@pytest.fixture
def show(
    tmp_path: Path, serve: Callable[..., contextlib.AbstractContextManager[str]], open_page: Callable[..., Any]
) -> Iterator[Callable[..., Any]]:
    """`show(widget, ..., dark=False, width=1100, ...)`: a page with the widgets, drawn."""
    with contextlib.ExitStack() as stack:

        def show_(*widgets: Any, expect: int | None = None, **options: Any) -> Any:
            write_page(tmp_path, widgets)
            address = stack.enter_context(serve(tmp_path, "/some/sub/path", {"Content-Security-Policy": POLICY}))
            page = open_page(address + "/index.html", **options)
            page.wait_for_function(
                "n => document.querySelectorAll('[data-elf-state]').length === n",
                arg=len(widgets) if expect is None else expect,
            )
            return page

        yield show_
