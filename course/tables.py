"""A table of a notebook: rendered on the page, plain text where there is no browser."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from IPython.display import display


def table(head: Sequence[object], *rows: Sequence[object]) -> None:
    """Show a table as HTML, with plain text, an entry after the other, for those who read without a browser.

    Raises ValueError for a row that has not as many entries as the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"row is {list(row)}; it should have {len(head)} entries, as the head has")
    first, *rest = ([escape(str(entry)) for entry in row] for row in (head, *rows))
    top = "".join(f"<th>{entry}</th>" for entry in first)
    body = "".join("<tr>" + "".join(f"<td>{entry}</td>" for entry in row) + "</tr>" for row in rest)
    html = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    plain = "\n".join(" | ".join(map(str, row)) for row in (head, *rows))
    display({"text/html": html, "text/plain": plain}, raw=True)
