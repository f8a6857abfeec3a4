"""Where Chromium is, and how the project starts it: without the network, and without a GPU."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def executable() -> str | None:
    """What ELF_CHROMIUM names, else the first of the usual names that is installed, else None."""
    return os.environ.get("ELF_CHROMIUM") or next((path for path in map(shutil.which, NAMES) if path), None)
