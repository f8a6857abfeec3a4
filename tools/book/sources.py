"""Assemble what Sphinx reads: jupyter_book/, the notebooks, generated pages, and every script they need."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from course.widgets import web
from tools.book import assets, pages

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ("mathjax", "requirejs", "@jupyter-widgets/html-manager")
LANDING = {
    "landing-forces.png": ("02_gradient_fields", "Noisy, turned benzene"),
    "landing-molecules.png": ("07_molecules", "Four molecules take shape"),
    "landing-spins.png": ("08_spins", "Spin board"),
}
"""Picture of the landing page -> the notebook that it is taken from, and how its alternative text begins."""
FIRST_YEAR = "2025"
BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"


def repository_url() -> str:
    """The one setting of the repository's address: `Repository` of [project.urls] in pyproject.toml, or ""."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/")


class Folder:
    """A folder that holds exactly what is put there, rewritten only where it changed: Sphinx goes by time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._put: set[Path] = set()

    def put(self, name: str | Path, content: bytes | str) -> None:
        """Write one file, text as UTF-8."""
        path = self.path / name
        data = content.encode() if isinstance(content, str) else content
        self._put.add(path)
        if not (path.is_file() and path.read_bytes() == data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def sweep(self) -> None:
        """Remove every file that was not put."""
        for path in [path for path in self.path.rglob("*") if path.is_file() and path not in self._put]:
            path.unlink()


def assemble(goal: Path, url: str) -> None:
    """Fill `goal` with the book's sources; `url` is the repository's address, or "" where it has none.

    Raises:
        AssetError: a JavaScript library is neither in the cache nor to be had.
    """
    folder = Folder(goal)
    for path in sorted((ROOT / "jupyter_book").rglob("*")):
        name = path.relative_to(ROOT / "jupyter_book")
        if path.is_file() and "__pycache__" not in path.parts and name.name not in ("_toc.yml", "_config.yml"):
            text = path.suffix == ".md"
            folder.put(name, fill(path.read_text(encoding="utf-8"), url) if text else path.read_bytes())
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in notebooks:
        folder.put(f"notebooks/{path.name}", for_sphinx(path.read_text(encoding="utf-8")))
    for name, text in pages.generated(ROOT, notebooks).items():
        folder.put(name, text)
    for path in sorted(path for suffix in ("png", "svg") for path in (ROOT / "benchmarks").glob(f"*.{suffix}")):
        folder.put(f"benchmarks-{path.name}", path.read_bytes())
    for name, (stem, alt) in LANDING.items():
        folder.put(name, picture(ROOT / "notebooks" / f"{stem}.ipynb", alt))
    _scripts(folder)
    folder.put("_toc.yml", yaml.safe_dump(toc(notebooks), sort_keys=False, allow_unicode=True))
    folder.put("_config.yml", yaml.safe_dump(config(url), sort_keys=False, allow_unicode=True))
    folder.sweep()


def fill(text: str, url: str) -> str:
    """A page with {{clone}}, {{binder}} and {{playground}} filled in.

    What is between `<!-- with repository -->`, or `<!-- without repository -->`, and `<!-- end -->` stays or goes.
    """
    for word, keep in (("with", bool(url)), ("without", not url)):
        block = re.compile(rf"<!-- {word} repository -->\n(.*?)<!-- end -->\n", re.DOTALL)
        text = block.sub(r"\1" if keep else "", text)
    from course.widgets.playground import Playground  # torch and anywidget, for this alone

    slug = url.removeprefix("https://github.com/")
    binder = f"{BINDER}/v2/gh/{slug}/HEAD?urlpath=lab/tree/notebooks/00_start_here.ipynb"
    text = text.replace("{{playground}}", web.place(Playground())) if "{{playground}}" in text else text
    return text.replace("{{binder}}", binder).replace("{{clone}}", url or "<this repository>")


def for_sphinx(notebook: str) -> str:
    """A notebook as the site's builder needs it; JupyterLab has HTML and the outputs' own metadata for both.

    Folded hints are Sphinx's, so that their formulas are typeset; figures' alternative texts are options of the cell,
    as MyST-NB takes the width alone from an output, and puts the name of the file in the text's place.
    """
    content = json.loads(notebook)
    hint = re.compile(r"<details>\s*<summary>(.*?)</summary>\s*(.*?)\s*</details>", re.DOTALL)
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = hint.sub(r"\n::::{dropdown} \1\n\2\n::::\n", "".join(cell["source"]))
        shown = [output.get("metadata", {}).get("image/png", {}) for output in cell.get("outputs", [])]
        if texts := [options["alt"] for options in shown if "alt" in options]:
            cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(texts)}}
    return json.dumps(content, ensure_ascii=False)


def picture(notebook: Path, alt: str) -> bytes:
    """The one figure of a notebook whose alternative text begins so, as PNG.

    Raises:
        ValueError: there is none, or more than one.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    found = [d["image/png"] for d in data if "image/png" in d and "".join(d.get("text/plain", "")).startswith(alt)]
    if len(found) != 1:
        raise ValueError(f"alt is {alt!r}; {notebook.name} has {len(found)} such figures, it should have one")
    return base64.b64decode("".join(found[0]))


def _scripts(folder: Folder) -> None:
    library = "offline/third_party"
    for name in PUBLISHED:
        for path, content in assets.files(name).items():
            folder.put(f"{library}/{path}", assets.reduced(content) if path == "html-manager.js" else content)
    static = ROOT / "elf" / "viz" / "labextensions" / "elf-3dmol" / "static"
    for path in sorted(static.iterdir()):
        folder.put(f"{library}/{path.name}", path.read_bytes())
    for name in web.FILES:
        folder.put(f"offline/elf/{name}", (web.HERE / name).read_bytes())


def short_title(path: Path) -> str:
    """Of a notebook, for the sidebar: '02 Gradient fields' from '# 02 Gradient fields: where do the forces point?'."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading = "".join(cells[0]["source"]).splitlines()[0].lstrip("# ")
    words = re.sub(r"^\d+\s+", "", heading).split(":")[0].strip()
    number = re.match(r"\d+[a-z]?(?=_)", path.name)
    return f"{number.group()} {words}" if number else words


def toc(notebooks: list[Path]) -> dict[str, Any]:
    """jupyter_book/_toc.yml with the notebooks and the API pages listed."""
    table = yaml.safe_load((ROOT / "jupyter_book" / "_toc.yml").read_text(encoding="utf-8"))

    def expand(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        whole: list[dict[str, Any]] = []
        for entry in entries:
            if "notebooks" in entry:
                chosen = [path for path in notebooks if path.match(f"{entry['notebooks']}.ipynb")]
                whole += [{"file": f"notebooks/{path.stem}", "title": short_title(path)} for path in chosen]
            elif "api" in entry:
                whole += [{"file": pages.api_page(name), "title": name} for name in pages.api_names(ROOT)]
            else:
                nested = {"sections": expand(entry["sections"])} if "sections" in entry else {}
                whole.append({**entry, **nested})
        return whole

    for part in table["parts"]:
        part["chapters"] = expand(part["chapters"])
    return table


def years() -> str:
    """For the footer: from the course's first year to that of its newest result."""
    dates = [json.loads(path.read_text(encoding="utf-8")).get("date", "") for path in (ROOT / "results").glob("*.json")]
    newest = max(date[:4] for date in dates)
    return FIRST_YEAR if newest == FIRST_YEAR else f"{FIRST_YEAR} to {newest}"


def config(url: str) -> dict[str, Any]:
    """jupyter_book/_config.yml; with an address also the launch buttons and the links to the repository."""
    settings = yaml.safe_load((ROOT / "jupyter_book" / "_config.yml").read_text(encoding="utf-8"))
    settings["copyright"] = years()
    if url:
        settings["sphinx"]["config"]["html_theme_options"] |= {
            "repository_url": url,
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {"binderhub_url": BINDER, "colab_url": COLAB, "notebook_interface": "jupyterlab"},
        }
    return settings
