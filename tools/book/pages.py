"""Pages made from what the repository holds: results, benchmarks, exercises, the API."""

from __future__ import annotations

import json
import re
from pathlib import Path
from pkgutil import iter_modules

TITLES = {
    "chemistry": "Molecules as chemists see them",
    "data": "Data",
    "energy": "Energies",
    "generative": "Diffusion and flow",
    "geometry": "Geometry",
    "metrics": "Metrics",
    "models": "Networks",
    "spins": "Spins",
    "springs": "Springs",
    "training": "Training",
    "viz": "Pictures",
    "course": "What the notebooks use",
}


def generated(root: Path, notebooks: list[Path]) -> dict[str, str]:
    """Name -> text of every generated page."""
    from tools.book import results

    return {
        "results.md": results.page(root),
        "benchmarks.md": benchmarks(root),
        "exercises.md": exercises(notebooks),
        **api(root),
    }


def benchmarks(root: Path) -> str:
    """benchmarks/README.md as it is, its pictures beside it; a sentence where there is none."""
    path = root / "benchmarks" / "README.md"
    if not path.is_file():
        return (
            "# Benchmarks\n\nThe scripts are in `benchmarks/` of the repository, with what they measured beside them.\n"
        )
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!https?:)([\w./-]+\.(?:png|svg))\)", r"](benchmarks-\1)", text)
    text = re.sub(r'src="(?!https?:)([\w./-]+\.(?:png|svg))"', r'src="benchmarks-\1"', text)
    # Files that are no pages of this site: named, not linked.
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]+\.(?:py|json|md|ipynb|toml)\)", r"\1", text)


def exercises(notebooks: list[Path]) -> str:
    """Every exercise of the course, with a link to the place where its solution is folded."""
    from tools.book.sources import short_title

    lines = [
        "# Exercises",
        "",
        "One to check understanding, one to change the code, one that could become a project: each notebook ends",
        "with some, and with their solutions folded away. Here they are in one list. Try before you unfold.",
    ]
    for path in notebooks:
        found = [(name, re.sub(r"\]\((?=\w+\.ipynb)", "](notebooks/", text)) for name, text in _exercises(path)]
        if found:
            lines += ["", f"## {short_title(path)}", ""]
            lines += [f"- **{name}** {text}" for name, text in found]
            lines += ["", f"[To the solutions](notebooks/{path.name}#exercises)"]
    return "\n".join(lines) + "\n"


def _exercises(path: Path) -> list[tuple[str, str]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    part = re.search(r"^## Exercises\s*$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if part is None:
        return []
    # "**1. Two minutes.** Show by hand ..." or "**Exercise 1 (two minutes).** ...", up to the end of its paragraph.
    paragraphs = re.split(r"\n\s*\n", re.sub(r"<details>.*?</details>", "", part.group(1), flags=re.DOTALL))
    pattern = re.compile(r"\s*\**(?:#+ )?\**(?P<name>(?:Exercise )?\d+\b[^*\n]*?)\*\*\s*(?P<text>.*)", re.DOTALL)
    found = []
    for paragraph in paragraphs:
        match = pattern.match(paragraph)
        if match:
            found.append((match["name"].strip(), " ".join(match["text"].split())))
    return found


def api_names(root: Path) -> list[str]:
    """The packages of elf, by full name, and the course; each has a page."""
    inside = (m.name for m in iter_modules([str(root / "elf")]) if m.ispkg and not m.name.startswith("_"))
    return [*(f"elf.{name}" for name in sorted(inside)), "course"]


def api_page(full: str) -> str:
    """The page of a package without its suffix: api/energy of elf.energy."""
    return f"api/{full.removeprefix('elf.')}"


def api(root: Path) -> dict[str, str]:
    """A page for each package and one that lists them; Sphinx takes the text from the docstrings."""
    index = [
        "# The package",
        "",
        "Made from the docstrings. Shapes are in the annotations: `Float[Tensor, 'batch atoms dim']` is a tensor",
        "of floats with these three axes. An energy is called `energy(prediction, target, mask=None)` and answers",
        "with one value a sample.",
        "",
        "| package | what it holds |",
        "|---|---|",
    ]
    pages: dict[str, str] = {}
    for package in api_names(root):
        name, folder = package.removeprefix("elf."), root.joinpath(*package.split("."))
        index.append(f"| [`{package}`]({name}.md) | {_first_line(folder / '__init__.py')} |")
        title = f"# {TITLES.get(name, name)}: `{package}`"
        lines = [title, "", *_directive("automodule", package, "no-members")]
        for full in _modules(folder, package):
            # What a package offers is documented where it is defined.
            inside = root.joinpath(*full.split(".")).is_dir()
            shown = ["no-members"] if inside else ["members", "show-inheritance"]
            lines += ["", f"## `{full}`", "", *_directive("automodule", full, *shown)]
        pages[f"{api_page(package)}.md"] = "\n".join(lines) + "\n"
    index += ["", "The experiments behind the tables are in `experiments/` of the repository, beside the package."]
    index += [
        "",
        "The commands (`elf info`, `elf run`, `elf train` and others) explain themselves: `elf --help`.",
    ]
    pages["api/index.md"] = "\n".join(index) + "\n"
    return pages


def _modules(folder: Path, package: str) -> list[str]:
    """The public modules in a package's folder and in the packages below it, by full name."""
    found = []
    for module in sorted(iter_modules([str(folder)]), key=lambda module: module.name):
        if not module.name.startswith("_"):
            full = f"{package}.{module.name}"
            found += [full, *(_modules(folder / module.name, full) if module.ispkg else [])]
    return found


def _directive(name: str, argument: str, *options: str) -> list[str]:
    return ["```{eval-rst}", f".. {name}:: {argument}", *(f"   :{option}:" for option in options), "```"]


def _first_line(path: Path) -> str:
    match = re.search(r'"""(.+?)(?:"""|\n)', path.read_text(encoding="utf-8"))
    assert match is not None
    return match.group(1).strip().replace("|", "\\|")
