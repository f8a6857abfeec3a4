"""`make pdf`: print the notebooks' pages of the built site to build/pdf, a PDF each, with Chromium (by Playwright).

Widgets and molecules are printed as they stand when the page opens; folded code and solutions stay folded. What paper
needs, the site's style sheet says under `@media print`.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import sys
import threading
from pathlib import Path
from typing import Any

from tools.book.sources import ROOT
from tools.chromium import FLAGS, executable

SETTLED = """async () => {
  for (const image of document.images) {
    image.loading = "eager";
    if (!image.complete) await new Promise((done) => { image.onload = image.onerror = done; });
  }
  const widgets = [...document.querySelectorAll("[data-elf-widget]")];
  for (const widget of widgets) {
    while (!widget.querySelector("[data-elf-state]")) await new Promise((done) => setTimeout(done, 50));
  }
}"""
PAPER: dict[str, Any] = {
    "format": "A4",
    "print_background": True,
    "scale": 0.8,
    "margin": {"top": "14mm", "bottom": "16mm", "left": "15mm", "right": "15mm"},
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": '<span style="font-size:8px;margin:auto"><span class="title"></span> &middot; '
    '<span class="pageNumber"></span> of <span class="totalPages"></span></span>',
}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def print_pages(site: Path, output: Path, names: list[str] | None = None) -> list[Path]:
    """A PDF of each notebook's page, or of those whose names begin so.

    Raises:
        FileNotFoundError: no Chromium, or no such page in the site.
    """
    from playwright.sync_api import sync_playwright

    if (chromium := executable()) is None:
        raise FileNotFoundError("no Chromium was found; `apt-get install chromium`, or name one in ELF_CHROMIUM")
    every = sorted((site / "notebooks").glob("*.html"))
    pages = [page for page in every if not names or page.stem.startswith(tuple(names))]
    if not pages:
        raise FileNotFoundError(f"{site} has no page of {', '.join(names or ['a notebook'])}; run make book")
    output.mkdir(parents=True, exist_ok=True)
    made = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            for path in pages:
                page = browser.new_page(color_scheme="light")
                page.goto(f"http://127.0.0.1:{server.server_address[1]}/notebooks/{path.name}")
                page.evaluate(SETTLED)
                made.append(output / f"{path.stem}.pdf")
                page.pdf(path=made[-1], **PAPER)
                page.close()
                print(f"{made[-1].name}: {made[-1].stat().st_size / 1e6:.1f} MB", flush=True)
            browser.close()
        server.shutdown()
    return made


def main() -> int:
    """Print; 1 with a message where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tools.book.pdf", description=__doc__)
    parser.add_argument("names", nargs="*", help="how the notebooks' names begin: 02 07b; by default all of them")
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "book")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "pdf")
    args = parser.parse_args()
    try:
        print_pages(args.site, args.output, args.names)
    except FileNotFoundError as error:
        print(f"make pdf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
