"""How the site is put together: the repository's address, pinned libraries, tables beside the paper's, docstrings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "jupyter_book" / "_ext"))

from docstrings import plain  # noqa: E402

from experiments.catalogue import EXPERIMENTS  # noqa: E402
from experiments.claims import CLAIMS  # noqa: E402
from tools.book import assets, dot_plots, pages, results, sources  # noqa: E402

ADDRESS = "https://github.com/someone/elf"
NOTEBOOK = "notebooks/00_start_here"


def _two_pages(folder: Path, url: str) -> dict[str, str]:
    """The how-to page and one notebook, built as the whole site is."""
    sources.assemble(folder / "src", url)
    toc = {"format": "jb-book", "root": "how_to_run", "chapters": [{"file": NOTEBOOK}]}
    (folder / "src" / "_toc.yml").write_text(yaml.safe_dump(toc))
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(folder / "src")]
    subprocess.run([*command, "--path-output", str(folder), "--quiet"], check=True, cwd=folder, capture_output=True)
    html = folder / "_build" / "html"
    return {name: (html / f"{name}.html").read_text(encoding="utf-8") for name in ("how_to_run", NOTEBOOK)}


def test_launch_buttons_are_there_when_the_repository_has_an_address(tmp_path, site):
    built = _two_pages(tmp_path, ADDRESS)
    assert f"https://mybinder.org/v2/gh/someone/elf/main?urlpath=lab/tree/{NOTEBOOK}.ipynb" in built[NOTEBOOK]
    assert f"https://colab.research.google.com/github/someone/elf/blob/main/{NOTEBOOK}.ipynb" in built[NOTEBOOK]
    assert f"git clone {ADDRESS} elf" in (tmp_path / "src" / "how_to_run.md").read_text()
    assert "open the course on Binder" in built["how_to_run"]


def test_no_launch_button_without_an_address(tmp_path, site):
    built = _two_pages(tmp_path, "")
    for text in built.values():
        assert "mybinder.org" not in text
        assert "colab.research.google.com" not in text
        assert "github.com/executablebooks" not in text
    assert "open the course on Binder" not in built["how_to_run"]


def test_the_address_is_a_setting_of_pyproject(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'elf'\n")
    assert sources.repository_url() == ""
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = 'elf'\n[project.urls]\nRepository = '{ADDRESS}/'\n")
    assert sources.repository_url() == ADDRESS


def test_a_library_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_BOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(assets, "_fetch", lambda spec: b"something else")
    with pytest.raises(assets.AssetError, match="SHA-256"):
        assets.package("requirejs")
    assert not list(tmp_path.iterdir())


def test_without_cache_and_npm_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_BOOK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(assets.AssetError, match=r"no npm to fetch it: install Node\.js"):
        assets.package("requirejs")


def test_without_network_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("ELF_BOOK_CACHE", str(tmp_path / "cache"))
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(assets.AssetError, match=r"is the network there\?\): npm error code ENOTFOUND"):
        assets.package("requirejs")


def test_after_the_first_fetch_npm_is_not_needed(site, monkeypatch):
    monkeypatch.setattr(assets, "_fetch", lambda spec: pytest.fail(f"{spec} was fetched again"))
    for name in assets.pins():
        assert assets.files(name)


def test_the_widgets_library_is_free_of_schemas_that_need_eval_and_of_fonts(site):
    with pytest.raises(assets.AssetError, match="0 modules"):
        assets.reduced(b"something else")
    script = (site / "_static/third_party/html-manager.js").read_text()
    assert "@font-face" not in script
    assert "Font Awesome 5 Free" in script  # the rules that name it are harmless


def test_papers_numbers_stand_beside_ours():
    table = "| loss | energy |\n|------|--------|\n| mse | 1.0 |\n| pair | 2.0 |"
    wide = results.beside(table, "paper", ["loss"], {"mse": "0.9"})
    assert wide.splitlines() == [
        "| loss | energy | paper |",
        "|------|--------|---|",
        "| mse | 1.0 | 0.9 |",
        "| pair | 2.0 | - |",
    ]
    with pytest.raises(ValueError, match="rows has"):
        results.beside(table, "paper", ["loss"], {"mae": "0.9"})
    with pytest.raises(ValueError, match="key is"):
        results.beside(table, "paper", ["springs"], {"mse": "0.9"})


@pytest.fixture(scope="module")
def results_page():
    return results.page(ROOT)


def test_every_experiment_has_its_picture():
    """Also one whose result is not there yet: the site would break on the day it comes."""
    assert set(dot_plots.PLOTS) == set(EXPERIMENTS)


def test_every_result_has_its_table_and_a_picture_of_its_runs(results_page):
    for path in (ROOT / "results").glob("*.laptop.json"):
        name = path.name.split(".")[0]
        assert f"elf reproduce {name} " in results_page
        result, plot = json.loads(path.read_text(encoding="utf-8")), dot_plots.PLOTS[name]
        rows = dot_plots.values(result, plot)
        dots = [dot for row in rows.values() for dot in row]
        assert 1 <= len(rows) <= 30, name
        drawing = ElementTree.fromstring(dot_plots.svg(name, rows, plot))
        marks = [use for use in drawing.iter("{http://www.w3.org/2000/svg}use") if "#" in str(use.attrib)]
        assert len(marks) >= len(dots) + len(rows), name
        assert all(row in "".join(drawing.itertext()) for row in rows)
        assert plot.label in drawing.attrib["aria-label"]


def test_a_dot_is_a_run_in_the_unit_of_the_axis():
    result = json.loads((ROOT / "results" / "two_gifts.laptop.json").read_text(encoding="utf-8"))
    rows = dot_plots.values(result, dot_plots.PLOTS["two_gifts"])
    runs = {(c["cell"]["network"], c["cell"]["loss"], c["cell"]["seed"]): c["result"] for c in result["cells"]}
    assert rows["plain, MSE"] == [100 * runs["plain", "mse", seed]["atom_stability"] for seed in range(5)]
    assert dot_plots.sentence({"a": [1.0, 2.0], "b": [30.0]}) == "a 1.5, b 30"
    share = dot_plots.values(
        {"cells": [{"cell": {"loss": "mse"}, "result": {"share": 0.002}}]}, dot_plots.PLOTS["molecule_step"]
    )
    assert share == {"MSE": [0.2]}


def test_pictures_share_a_page_without_sharing_names(results_page):
    names = re.findall(r' id="([^"]+)"', results_page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', results_page)) <= set(names)


def test_every_claim_links_to_what_it_rests_on_and_back(results_page):
    for claim in CLAIMS:
        assert claim.says in results_page
        assert claim.finds() in results_page
        if claim.agrees is not None:
            section = results_page.split(f"({results.anchor(claim.experiment)})=")[1].split("\n(result-")[0]
            assert f"*{claim.says}*" in section
            assert f"](#{results.anchor(claim.experiment)})" in results_page
    assert "](notebooks/07_molecules.ipynb)" in results_page.split("(result-two-gifts)=")[1].split("\n(result-")[0]


def test_headings_of_tables_are_words(results_page):
    tables = re.findall(r"^\|.*\|\n\|[-|]+\|$", results_page, re.MULTILINE)
    assert len(tables) >= len(list((ROOT / "results").glob("*.laptop.json")))
    assert [table for table in tables if "_" in table] == []


def test_signatures_over_several_lines_are_no_lists_and_books_are_items_of_one():
    from tools.book.__main__ import with_known_roles

    page = (
        '<dl class="py"><dt class="sig sig-object py"><dl>\n<dd>x</dd>\n</dl></dt>\n<dd><dl><dd>y</dd></dl></dd></dl>'
    )
    plainer = '<dl role="presentation">\n<dd role="presentation">x</dd>\n</dl></dt>\n<dd><dl><dd>y</dd></dl></dd></dl>'
    assert with_known_roles('<div role="doc-biblioentry">') == '<div role="listitem">'
    assert with_known_roles(page) == '<dl class="py"><dt class="sig sig-object py">' + plainer


def test_the_footer_s_year_is_that_of_the_newest_result():
    newest = max(json.loads(path.read_text())["date"] for path in (ROOT / "results").glob("*.laptop.json"))
    assert sources.config("")["copyright"].endswith(newest[:4])
    assert "copyright" not in (ROOT / "jupyter_book" / "_config.yml").read_text()


def test_pictures_of_the_landing_page_are_the_course_s_own():
    for stem, alt in sources.LANDING.values():
        assert sources.picture(ROOT / "notebooks" / f"{stem}.ipynb", alt).startswith(b"\x89PNG")
    page = (ROOT / "jupyter_book" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r":img-top: (\S+)", page)) == set(sources.LANDING)
    with pytest.raises(ValueError, match="has 0 such figures"):
        sources.picture(ROOT / "notebooks" / "07_molecules.ipynb", "A unicorn")


@pytest.mark.parametrize(
    ("line", "escaped"),
    [
        ("sum |y_i - y_j| of `k_ij`", r"sum \|y_i - y_j\| of ``k_ij``"),
        ("*args and x_ here", r"\*args and x\_ here"),
        ("`nodes`^2", r"``nodes``\ ^2"),
    ],
)
def test_docstrings_are_plain_text(line, escaped):
    assert plain(line) == escaped


def test_every_notebook_with_exercises_is_on_the_exercises_page():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    text = pages.exercises(notebooks)
    for path in notebooks:
        assert f"(notebooks/{path.name}#exercises)" in text
    assert text.count("\n- **") >= 3 * len(notebooks)
