"""`make book`: assemble the sources in build/book-src, let Jupyter Book make the site in build/book. Needs no network.

Only the first build fetches anything: the pinned JavaScript libraries, see assets.py.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.book import assets
from tools.book.sources import ROOT, assemble, repository_url

NO_ASSETS = 3  # exit status


def main() -> int:
    """Build the site; 1 with a message where that fails, 3 where a JavaScript library is not to be had."""
    parser = argparse.ArgumentParser(prog="python -m tools.book", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "book", help="the site's folder (build/book)")
    parser.add_argument(
        "--repository-url", default=repository_url(), help="default: Repository of [project.urls] in pyproject.toml"
    )
    args = parser.parse_args()
    try:
        build(args.output.resolve(), args.repository_url.rstrip("/"))
    except assets.AssetError as error:
        print(f"make book: {error}", file=sys.stderr)
        return NO_ASSETS
    except subprocess.CalledProcessError as error:
        print(
            f"make book: Jupyter Book stopped with status {error.returncode}; its last words are above", file=sys.stderr
        )
        return 1
    return 0


def build(output: Path, url: str) -> None:
    """Bring the site in `output` up to date; does nothing where its sources and elf are the same as last time.

    Raises:
        AssetError: a JavaScript library is neither in the cache nor to be had.
        CalledProcessError: Jupyter Book failed, or warned.
    """
    begin = time.perf_counter()
    work = output.with_name(output.name + "-work")
    source = output.with_name(output.name + "-src")
    assemble(source, url)
    stamp, wanted = work / "stamp", _fingerprint(source)
    if stamp.is_file() and stamp.read_text() == wanted and (output / "index.html").is_file():
        print(f"the book in {_short(output)} is up to date")
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(work / "_build" / "html", ignore_errors=True)  # else files of earlier builds stay in the site
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(source),
        "--path-output",
        str(work),
    ]
    command += ["--warningiserror", "--keep-going", *([] if "-v" in sys.argv else ["--quiet"])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(command, check=True, cwd=source, env=environment)
    _publish(work / "_build" / "html", output)
    stamp.write_text(wanted)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 1e6
    pages = len(list(output.rglob("*.html")))
    print(
        f"{_short(output)}: {pages} pages, {size:.1f} MB, {time.perf_counter() - begin:.0f} s; open index.html from any"
    )
    print(f"file server: python -m http.server --bind 127.0.0.1 --directory {_short(output)}")


def _fingerprint(source: Path) -> str:
    """Of everything that the site is made from: the sources, and the docstrings of elf."""
    digest = hashlib.sha256()
    for folder, pattern in ((source, "*"), (ROOT / "elf", "*.py"), (ROOT / "tools" / "book", "*.py")):
        for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    digest.update((ROOT / "requirements.lock").read_bytes())
    return digest.hexdigest()


def _publish(html: Path, output: Path) -> None:
    """Replace the site as a whole, without what only Sphinx needs."""
    fresh = output.with_name(output.name + "-fresh")
    for folder in (fresh, output):
        shutil.rmtree(folder, ignore_errors=True)
    unseen = shutil.ignore_patterns(".buildinfo*", ".doctrees", "*.map", "_ext", "*-macros.html")
    shutil.copytree(html, fresh, ignore=unseen)
    for path in (fresh / "references.html", *(fresh / "api").glob("*.html")):
        path.write_text(with_known_roles(path.read_text(encoding="utf-8")), encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copyfile(path, fresh / "_sources" / "notebooks" / path.name)  # what the download button offers
    fresh.rename(output)


def with_known_roles(page: str) -> str:
    """A page that screen readers understand: signatures over several lines are no lists, books are items of theirs.

    Sphinx sets the former as <dl>, and gives the latter a role that ARIA has given up.
    """
    signature = re.compile(r"<dt class=\"sig .*?</dt>", re.DOTALL)
    page = signature.sub(lambda found: re.sub(r"<(dl|dd)>", r'<\1 role="presentation">', found.group()), page)
    return page.replace('role="doc-biblioentry"', 'role="listitem"')


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
