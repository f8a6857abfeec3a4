"""elf's docstrings are plain text with `code` in single backticks: keep reStructuredText from seeing more in them."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(`[^`]+`)")


def plain(line: str) -> str:
    """One line: `code` becomes a literal; what reStructuredText would take for markup outside of it is escaped.

    |x| is no substitution there, x_ no link, and * no emphasis.
    """
    parts = _CODE.split(line)  # text, code, text, code, ..., text
    for i, part in enumerate(parts):
        if i % 2:
            # An empty escape ends the literal before a letter that follows at once, as in `nodes`^2.
            parts[i] = f"`{part}`" + ("\\ " if parts[i + 1][:1].strip() else "")
        else:
            parts[i] = re.sub(r"([\\*|])|(?<=\w)_(?=\W|$)", lambda found: "\\" + found.group(), part)
    return "".join(parts)


def _process(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    # A block that the writer set off by indentation, such as an example: a literal block.
    text: list[str] = []
    literal = False
    for number, line in enumerate(lines):
        after_blank = number > 0 and not lines[number - 1].strip()
        if line.strip() and not line.startswith(" "):
            literal = False
        elif line.startswith("    ") and after_blank and not literal and not _in_section(text):
            text += ["::", ""]
            literal = True
        text.append(line if literal else plain(line))
    lines[:] = text


def _in_section(text: list[str]) -> bool:
    """Whether the last line that stands at the margin opens a section such as `Args:`."""
    for line in reversed(text):
        if line.strip() and not line.startswith(" "):
            return re.fullmatch(r"[A-Z]\w+:", line.strip()) is not None
    return False


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx. Before napoleon (priority 500), which turns sections into fields."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
