"""The site on paper: every page of a notebook has its words, its pictures and all of its code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import chromium  # noqa: E402
from tools.book import pdf  # noqa: E402


@pytest.mark.browser
def test_a_notebook_is_printed_with_its_title_and_nothing_is_cut_off(site, tmp_path, open_page, book):
    # In a process of its own: Playwright allows one driver a process.
    command = [sys.executable, "-m", "tools.book.pdf", "02", "--site", str(site), "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.iterdir()
    assert made.name == "02_gradient_fields.pdf"
    assert made.read_bytes().startswith(b"%PDF-")
    assert 1e5 < made.stat().st_size < 5e6
    page = open_page(f"{book}/notebooks/02_gradient_fields.html", width=700)
    page.emulate_media(media="print")
    page.evaluate(pdf.SETTLED)
    assert page.locator("h1").first.is_visible()
    assert not page.locator(".bd-sidebar-primary, .bd-sidebar-secondary, #jb-print-toc").locator("visible=true").count()
    wider = "() => [...document.querySelectorAll('pre')].filter((pre) => pre.scrollWidth > pre.clientWidth + 1).length"
    assert page.evaluate(wider) == 0
    assert page.locator(".cell_output img, .elf-molecule, [data-elf-widget]").locator("visible=true").count() > 5


def test_what_is_not_there_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ELF_CHROMIUM", "chromium")
    (tmp_path / "notebooks").mkdir()
    with pytest.raises(FileNotFoundError, match="has no page of 99; run make book"):
        pdf.print_pages(tmp_path, tmp_path / "out", ["99"])
    monkeypatch.delenv("ELF_CHROMIUM")
    monkeypatch.setattr(chromium, "NAMES", ())
    monkeypatch.setattr("sys.argv", ["pdf", "--site", str(tmp_path)])
    assert pdf.main() == 1
    assert "no Chromium was found" in capsys.readouterr().err
