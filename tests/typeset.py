"""What is left over when a page is not typeset: marks of Markdown in its text, prose inside its formulas."""

from __future__ import annotations

import re

STRAY = re.compile(r"\$|\*\*|^\| .*\|$", re.MULTILINE)  # the last: a row of a table


def prose_in(formula: str) -> list[str]:
    r"""Words of a formula, of four letters or more, that stand neither in a command nor in \text{...}."""
    formula = re.sub(r"\\(text[a-z]*|math[a-z]+|operatorname|begin|end)\*?\{[^{}]*\}", " ", formula)
    return re.findall(r"[A-Za-z]{4,}", re.sub(r"\\[A-Za-z]+", " ", formula))
