"""Put the widgets' present JavaScript into the notebooks: `python tools/refresh_widgets.py [NOTEBOOK ...]`.

A notebook carries the module of each widget in it. After a change of course/widgets/*.js this brings all of
them up to date without running anything; what the widgets show is kept.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
MIME = "application/vnd.jupyter.widget-state+json"


def stale(notebook: Any) -> list[dict[str, Any]]:
    """The states of the course's widgets in a notebook whose module is not the present one; each gets it."""
    found = []
    saved = notebook.metadata.get("widgets", {}).get(MIME, {}).get("state", {})
    for model in saved.values():
        state = model["state"]
        name, _, kind = str(state.get("_anywidget_id", "")).rpartition(".")
        if not name.startswith("course."):
            continue
        present = getattr(importlib.import_module(name), kind)._esm
        if state["_esm"] != str(present):
            state["_esm"] = str(present)
            found.append(state)
    return found


def main(names: list[str]) -> None:
    for path in [Path(name) for name in names] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if count := len(stale(notebook)):
            nbformat.write(notebook, path)
            print(f"{path.name}: {count} widgets")


if __name__ == "__main__":
    main(sys.argv[1:])
