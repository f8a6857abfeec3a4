"""The site's JavaScript libraries: fetched once with npm, checked by SHA-256, kept in the user's cache.

They are not in the repository, because 5 MB of other people's minified code would be most of it; and no page ever asks
the network for them. After the first fetch the book builds offline.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import platformdirs

PINS = Path(__file__).with_name("assets.json")
MODULES = ("base", "controls", "html-manager")  # of html-manager's script; the rest is for widgets of older versions


class AssetError(RuntimeError):
    """A library that is neither in the cache nor to be had, or that is not the one that was pinned."""


def cache_folder() -> Path:
    """$ELF_BOOK_CACHE, else a folder of the user's cache."""
    return Path(os.environ.get("ELF_BOOK_CACHE") or platformdirs.user_cache_path("elf") / "book")


def pins() -> dict[str, dict]:
    """Package name -> {"version", "sha256" of its tarball, "files": {path in the package: path in the site}}."""
    return json.loads(PINS.read_text(encoding="utf-8"))


def package(name: str) -> bytes:
    """The tarball of a pinned npm package, from the cache, else from npm.

    Raises:
        AssetError: there is no npm, npm cannot fetch it, or its content is not what was pinned.
    """
    pin = pins()[name]
    path = cache_folder() / f"{name.replace('/', '-').lstrip('@')}-{pin['version']}.tgz"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == pin["sha256"]:
        return path.read_bytes()
    content = _fetch(f"{name}@{pin['version']}")
    found = hashlib.sha256(content).hexdigest()
    if found != pin["sha256"]:
        raise AssetError(f"{name}@{pin['version']}: its SHA-256 is {found}; {PINS.name} says {pin['sha256']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)
    return content


def files(name: str) -> dict[str, bytes]:
    """Path in the site -> content, for the pinned files of a package (a folder's path ends in "/")."""
    wanted = pins()[name]["files"]
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(package(name)), mode="r:gz") as archive:
        for member in archive.getmembers():
            inside = member.name.partition("/")[2]
            for source, goal in wanted.items():
                if member.isfile() and (inside == source or (source.endswith("/") and inside.startswith(source))):
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file
                    found[goal + inside.removeprefix(source)] = content.read()
    for source, goal in wanted.items():
        if not any(path.startswith(goal) for path in found):
            raise AssetError(f"{name}: there is no {source} in it; {PINS.name} asks for it")
    return found


def reduced(script: bytes) -> bytes:
    """html-manager's script, reduced to the modules that this site loads, free of eval and of fonts.

    Its main module compiles two JSON schemas into functions, for checks that it never makes: a policy without
    'unsafe-eval' would forbid the whole module for that. Its fonts are not in the site, whose icons the theme draws;
    on a slow machine it would ask for them before the theme comes to it.

    Raises:
        AssetError: the script is not as it was in the pinned version.
    """
    parts = re.split(r'(?=define\("@jupyter-widgets/)', script.decode())
    wanted = [
        part for part in parts if part.startswith(tuple(f'define("@jupyter-widgets/{name}",' for name in MODULES))
    ]
    text, found = re.subn(r"\b(\w+)\.compile\(\w+\),\1\.compile\(\w+\);", "", "".join(wanted))
    text, fonts = re.subn(r"@font-face\{(?:\$\{[\w$]+\}|[^{}])*\}", "", text)
    if (len(wanted), found, fonts) != (len(MODULES), 1, 6):
        raise AssetError(
            f"html-manager: {len(wanted)} modules, {found} schemas and {fonts} fonts found; "
            f"{len(MODULES)}, 1 and 6 expected"
        )
    return text.encode()


def _fetch(spec: str) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise AssetError(
            f"{spec} is not in {cache_folder()}, and there is no npm to fetch it: install Node.js, "
            "which brings npm and is needed once, or copy that folder from a machine that has built the book"
        )
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [npm, "pack", spec, "--silent", "--pack-destination", folder],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if run.returncode or len(archives) != 1:
            words = (run.stderr or run.stdout).strip().splitlines()
            raise AssetError(
                f"{spec} is not in {cache_folder()}, and npm could not fetch it (is the network there?): "
                f"{words[0] if words else f'exit status {run.returncode}'}"
            )
        return archives[0].read_bytes()
