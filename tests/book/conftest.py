"""The built site, once a test run, and the addresses at which the tests open it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import serving

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for tools.book

PREFIX = "/some/sub/path"


def build(*options: str) -> subprocess.CompletedProcess[str]:
    """`make book`, one at a time: several test processes may want it, the first builds, the others find it done."""
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / "book.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "tools.book", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site; with ELF_BUILT set, whoever set it has just built it."""
    from tools.book.__main__ import NO_ASSETS

    if os.environ.get("ELF_BUILT"):
        return ROOT / "build" / "book"
    done = build()
    if done.returncode == NO_ASSETS and not os.environ.get("CI"):
        pytest.skip(f"NO BOOK: nothing was checked. {done.stderr.strip()}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return ROOT / "build" / "book"


@pytest.fixture(scope="session")
def policy(site: Path) -> str:
    """The content-security policy that comes with the site."""
    return (site / "content-security-policy.txt").read_text().strip()


@pytest.fixture(scope="session")
def book(site: Path, policy: str) -> Iterator[str]:
    """The site's address: below a sub-path, and under its policy."""
    with serving(site, PREFIX, {"Content-Security-Policy": policy}) as address:
        yield address
