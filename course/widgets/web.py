"""How the widgets' JavaScript travels: as one self-contained module in a notebook, as plain files on a page.

In a notebook each widget carries its module's whole text (anywidget; nothing is fetched). A page without a kernel and
without the widget manager takes the files as they are:

    course.widgets.web.copy_files("site/elf")                 # dom.js, playground.js, ... , mount.js
    html = course.widgets.web.place(Playground())     # a <div> with the widget's state as JSON

with one `<script type="module" src="elf/mount.js"></script>` on the page.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHARED = ("dom", "stage")
WIDGETS = ("playground", "board", "frames", "trajectory", "dashboard", "descent", "bath", "knobs", "guess")
FILES = tuple(f"{name}.js" for name in (*SHARED, *WIDGETS, "mount"))
_JUPYTER = {"layout", "tabbable", "tooltip", "comm"}  # traits that every ipywidget has
_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./(\w+)\.js\";\n", flags=re.MULTILINE)


def module(name: str) -> str:
    """The text of `name`.js with what it imports from its neighbours put in front: one module that imports nothing."""
    text = (HERE / f"{name}.js").read_text(encoding="utf-8")
    shared = [(HERE / f"{other}.js").read_text(encoding="utf-8") for other in SHARED if other in _IMPORT.findall(text)]
    parts = [re.sub(r"^export ", "", _IMPORT.sub("", part), flags=re.MULTILINE) for part in shared]
    return "\n".join([*parts, _IMPORT.sub("", text)])


def state(widget: Any) -> dict[str, Any]:
    """The synced traits of a widget that make its picture, as JSON-able values."""
    return {key: value for key, value in widget.get_state().items() if not key.startswith("_") and key not in _JUPYTER}


def place(widget: Any) -> str:
    """HTML that `mount.js` turns into this widget on a page without a kernel.

    The state is JSON in a data block, which no content-security policy forbids and no browser runs.
    """
    data = json.dumps(state(widget), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    name = widget.module_name
    return f'<div data-elf-widget="{name}"><script type="application/json">{data}</script></div>'


def copy_files(folder: str | Path) -> list[Path]:
    """Copy the widgets' JavaScript into `folder` (made if need be); the paths of the copies."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(HERE / name, target / name)) for name in FILES]
