"""The results page: claims by topic, and each result of results/ as a picture and a table, the paper's beside."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from experiments.framework.tables import name_in_words
from tools.book import dot_plots

VALUES = "paper_values.json"  # in jupyter_book/
OPENING = """\
# Results

Every number of ours on this page is from a JSON file in `results/`, written by the command below it. Claims come
first, each judged by a rule that was written down (`experiments/claims.py`;
[notebook 10](notebooks/10_the_paper_rerun.ipynb) takes them one by one), then what they rest on. Where the paper has a
number for the same row it stands in a column of its own. Our runs are smaller and on other networks, so that the
*order* of the rows is what can be compared.

In the pictures a dot is one run, a bar the mean; where there is one dot, there was one run.
"""
TOPICS = {
    "molecules": "Molecules",
    "clouds": "Shapes, rigidity, exact scores",
    "spins": "Spin glasses",
    "cost": "What the loss costs",
}
"""Wing of `experiments/` -> heading."""


def page(root: Path) -> str:
    """Markdown of the page: claims by topic, then a section for each experiment that has a result of any scale."""
    import experiments
    from experiments.claims import CLAIMS

    values = json.loads((root / "jupyter_book" / VALUES).read_text(encoding="utf-8"))
    shown = shown_in(root)
    lines = [OPENING]
    for wing, topic in TOPICS.items():
        names = [name for name, place in experiments.EXPERIMENTS.items() if place.split(".")[1] == wing]
        claimed = [claim for claim in CLAIMS if claim.experiment in names]
        # What a claim rests on comes first.
        names.sort(key=lambda name: name not in {claim.experiment for claim in claimed})
        lines += [f"## {topic}", "", *(claim_line(claim) for claim in claimed), ""]
        for name in names:
            found = [root / "results" / f"{name}.{scale}.json" for scale in ("laptop", "paper")]
            for result in [json.loads(path.read_text(encoding="utf-8")) for path in found if path.is_file()]:
                experiment = experiments.find(name)
                rests = [claim.says for claim in claimed if claim.experiment == name]
                lines += [f"({anchor(name)})=", f"### {_capital(experiment.title)}", ""]
                lines += behind(rests, shown.get(name, []))
                lines += section(result, experiment.table(result), values.get(name, {}))
    return "\n".join(lines)


def anchor(name: str) -> str:
    """Where an experiment's section can be linked to."""
    return f"result-{name.replace('_', '-')}"


def shown_in(root: Path) -> dict[str, list[str]]:
    """Experiment -> the notebooks that read its result."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for name in dict.fromkeys(re.findall(r"load_result\(\s*[\"'](\w+)[\"']", code)):
            found.setdefault(name, []).append(path.name)
    return found


def claim_line(claim: Any) -> str:
    """Verdict, claim, the paper's figures, ours, a link to what it rests on."""
    rests = f" [What it rests on](#{anchor(claim.experiment)})." if claim.agrees is not None else ""
    took = f" *{_capital(claim.took)}.*" if claim.took else ""
    return (
        f"- **{_capital(claim.verdict)}:** {claim.says} ({claim.where})\\\n"
        f"  Paper: {claim.paper}.\\\n"
        f"  Ours: {claim.finds()}.{took}{rests}"
    )


def behind(claims: list[str], notebooks: list[str]) -> list[str]:
    """The claims that rest on a result, and the notebooks that show it."""
    links = [f"[{re.split('_', name)[0]}](notebooks/{name})" for name in notebooks]
    shown = [f"Shown in notebook {', '.join(links)}."] if links else []
    return [" ".join([*(f"*{text}*" for text in claims), *shown]), ""] if claims or shown else []


def section(result: dict[str, Any], table: str, paper: dict[str, Any]) -> list[str]:
    """Picture, table, what the paper says, and the facts, of one result."""
    minutes = result["seconds"] / 60
    took = f"{minutes:.0f} minutes" if minutes >= 2 else f"{result['seconds']:.0f} seconds"
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    name, plot = result["name"], dot_plots.PLOTS[result["name"]]
    lines = ["```{raw} html", dot_plots.svg(name, dot_plots.values(result, plot), plot), "```", ""]
    table = "\n".join(line if line.startswith("|") else f"\n{line}\n" for line in table.strip().splitlines())
    for column in paper.get("columns", []):
        table = beside(table, **column)
    table = re.sub(r"(?<=\| )(mse|mae|kabsch|\w+_[\w.]+)(?= +\|)", lambda name: name_in_words(name.group()), table)
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
    if rows > 12:
        body = [f"`````{{dropdown}} Table of {rows - 1} rows", *body, "`````", ""]
    lines += body
    if "note" in paper:
        lines += [f"*The paper:* {paper['note']}", ""]
    lines += ["```console", f"$ {result['command']}", "```", ""]
    lines += [
        f"Scale **{result['scale']}** · seeds **{result['seeds']}** · {result['device']}, {threads} a run · "
        f"{took} in all · {result['date']} · {versions}",
        "",
    ]
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
