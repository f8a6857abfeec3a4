"""The results page: each result of results/ as a table, the paper's numbers beside ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

VALUES = "paper_values.json"  # in jupyter_book/
OPENING = """\
# Results

Every number of ours on this page is from a JSON file in `results/`, written by the command beside it. Where the paper
has a number for the same row it stands in a column of its own. Our runs are smaller and on other networks, so that the
*order* of the rows is what can be compared.
"""


def page(root: Path) -> str:
    """Markdown of the page: a section for each experiment that has a result of any scale."""
    import experiments

    values = json.loads((root / "jupyter_book" / VALUES).read_text(encoding="utf-8"))
    lines = [OPENING]
    for name in experiments.EXPERIMENTS:
        found = [root / "results" / f"{name}.{scale}.json" for scale in ("laptop", "paper")]
        present = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.is_file()]
        if not present:
            continue
        lines += [f"## {_capital(experiments.find(name).title)}", ""]
        for result in present:
            lines += section(result, experiments.find(name).table(result), values.get(name, {}))
    return "\n".join(lines)


def section(result: dict[str, Any], table: str, paper: dict[str, Any]) -> list[str]:
    """Facts, table, and what the paper says, of one result."""
    minutes = result["seconds"] / 60
    took = f"{minutes:.0f} minutes" if minutes >= 2 else f"{result['seconds']:.0f} seconds"
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    lines = ["```console", f"$ {result['command']}", "```", ""]
    lines += [
        f"Scale **{result['scale']}** · seeds **{result['seeds']}** · {result['device']}, {threads} a run · "
        f"{took} in all · {result['date']} · {versions}",
        "",
    ]
    table = "\n".join(line if line.startswith("|") else f"\n{line}\n" for line in table.strip().splitlines())
    for column in paper.get("columns", []):
        table = beside(table, **column)
    # Can be reached and scrolled from the keyboard.
    body = [
        f'<div class="wide-table" tabindex="0" role="region" aria-label="Table: {result["name"]}">',
        "",
        table,
        "",
        "</div>",
        "",
    ]
    rows = table.count("\n|")
    if rows > 16:
        body = [f"`````{{dropdown}} Table of {rows - 1} rows", *body, "`````", ""]
    lines += body
    if "note" in paper:
        lines += [f"*The paper:* {paper['note']}", ""]
    return lines


def beside(table: str, column: str, key: list[str], rows: dict[str, str]) -> str:
    """The Markdown table with one more column, filled where `rows` has the values that a row has in the columns `key`.

    Of several tables, the first that has these columns.

    Raises:
        ValueError: no table has such columns, or there is no row for one of the values.
    """
    lines = table.splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("|") and set(key) <= set(_cells(line))]
    if not heads:
        raise ValueError(f"key is {key}; they should be columns of the table: {lines[:1]}")
    head = heads[0]
    names = _cells(lines[head])
    used = set()
    for index in range(head, len(lines)):
        if not lines[index].startswith("|"):
            break
        if index == head:
            more = column
        elif re.fullmatch(r"[|\-: ]+", lines[index]):
            lines[index] += "---|"
            continue
        else:
            cells = dict(zip(names, _cells(lines[index]), strict=True))
            name = " ".join(cells[part] for part in key)
            used.add(name)
            more = rows.get(name, "-")
        lines[index] += f" {more} |"
    if missing := set(rows) - used:
        raise ValueError(f"rows has {sorted(missing)}; the table has only {sorted(used)} in columns {key}")
    return "\n".join(lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
