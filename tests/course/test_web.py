from __future__ import annotations

import json
import re

import nbformat
import pytest
from widget_page import placed

from course.widgets import Playground, web

NOTEBOOKS = sorted((web.HERE.parents[1] / "notebooks").glob("*.ipynb"))
WIDGETS = list(web.WIDGETS)


@pytest.mark.parametrize("name", WIDGETS)
def test_a_notebooks_module_imports_nothing(name):
    text = web.module(name)
    assert not re.search(r"^\s*import\b", text, flags=re.MULTILINE)
    assert text.count("export default widget(render);") == 1
    assert "const make" in text or "function make" in text


@pytest.mark.parametrize("name", web.FILES)
def test_no_file_reaches_the_network_or_writes_html(name):
    source = (web.HERE / name).read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "new Function"):
        assert way not in source
    # A style attribute would need style-src 'unsafe-inline'; el.style does not.
    assert not re.search(r"\bstyle: [`\"']|setAttribute\(\"style", source)
    assert ("import(" in source) == (name == "mount.js")


def test_mount_knows_every_widget():
    listed = re.search(r"MODULES = (\[.*\]);", (web.HERE / "mount.js").read_text())[1]
    assert sorted(json.loads(listed)) == sorted(WIDGETS)


def test_a_place_holds_the_state_and_cannot_end_its_script():
    playground = Playground(names=["</script><b>", "<!--", "c"])
    text = web.place(playground)
    assert text.count("<") == 4
    data = json.loads(re.search(r">(\{.*\})<", text)[1])
    assert data["names"] == playground.names
    assert set(data) == {"target", "prediction", "springs", "presets", "names"}


def test_files_are_copied_as_they_are(tmp_path):
    copies = web.copy_files(tmp_path / "a" / "b")
    assert [path.name for path in copies] == list(web.FILES)
    assert all(path.read_bytes() == (web.HERE / path.name).read_bytes() for path in copies)


def test_a_widget_that_does_not_exist_is_named(tmp_path, serve, open_page):
    web.copy_files(tmp_path / "elf")
    page = '<!doctype html><html lang="en"><title>t</title><link rel="icon" href="data:,">'
    (tmp_path / "index.html").write_text(
        page + placed("../x", "{}") + '<script type="module" src="elf/mount.js"></script>'
    )
    with serve(tmp_path) as address:
        errors: list[str] = []
        opened = open_page(address + "/index.html", allow="no widget is called ../x")
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.reload(wait_until="networkidle")
    assert any("no widget is called ../x; there are playground" in text for text in errors)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_carry_the_present_code_of_their_widgets(path):
    from tools.refresh_widgets import stale

    notebook = nbformat.read(path, as_version=4)
    assert not stale(notebook), "run `python tools/refresh_widgets.py`"
