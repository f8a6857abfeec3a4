"""tools/bootstrap.py: an environment is trusted only when its install ran to the end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elf.files import is_running

ROOT = Path(__file__).resolve().parent.parent


def _load(folder: Path):
    spec = importlib.util.spec_from_file_location("bootstrap", folder / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _copy(folder: Path) -> Path:
    (folder / "tools").mkdir(parents=True)
    for name in ("tools/bootstrap.py", "Makefile", "pyproject.toml", "requirements.lock", "requirements-recipes.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the files that matter, and a stand-in for the commands that would be run: `calls` names them."""
    module = _load(_copy(tmp_path / "a folder"))
    module.calls, module.failure = [], None

    def run(python, *command):
        kinds = {"requirements.lock": "lock", "requirements-recipes.lock": "recipes", ".": "elf"}
        kind = "venv" if "venv" in command else kinds[command[-1]]
        assert ("--no-deps" in command) == (kind in ("recipes", "elf"))
        module.calls.append(kind)
        if kind == "venv":
            (module.VENV / "bin").mkdir(parents=True)
        elif module.failure is not None:
            raise module.failure

    monkeypatch.setattr(module, "run_module", run)
    return module


def test_installs_once_and_then_calls_nothing(checkout):
    assert checkout.main() == 0
    assert checkout.calls == ["venv", "lock", "recipes", "elf"]
    assert checkout.main() == 0
    assert checkout.calls == ["venv", "lock", "recipes", "elf"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(subprocess.CalledProcessError(1, "pip"), 1), (OSError("disk full"), 1), (KeyboardInterrupt(), 130)],
    ids=["pip fails", "disk full", "interrupted"],
)
def test_a_half_made_environment_is_made_again_from_nothing(checkout, failure, status, capsys):
    checkout.failure = failure
    assert checkout.main() == status
    assert "the next make starts" in capsys.readouterr().err
    half_made = checkout.VENV / "half made"
    half_made.touch()
    checkout.failure = None
    assert checkout.main() == 0
    assert not half_made.exists()
    assert checkout.calls == ["venv", "lock", "venv", "lock", "recipes", "elf"]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-recipes.lock"])
def test_a_new_lock_is_installed_over_the_old_one_and_a_failure_there_is_not_trusted(checkout, name):
    assert checkout.main() == 0
    lock = checkout.ROOT / name
    lock.write_text(lock.read_text() + "extra==1.0\n")
    checkout.calls.clear()
    checkout.failure = subprocess.CalledProcessError(1, "pip")
    assert checkout.main() == 1
    assert checkout.calls == ["lock"]
    checkout.failure = None
    assert checkout.main() == 0
    assert checkout.calls == ["lock", "venv", "lock", "recipes", "elf"]


def test_settings_of_the_tools_install_nothing(checkout):
    assert checkout.main() == 0
    checkout.calls.clear()
    pyproject = checkout.ROOT / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("line-length = 120", "line-length = 100"))
    assert checkout.main() == 0
    assert checkout.calls == []


def test_a_moved_or_damaged_environment_is_made_again(checkout, monkeypatch):
    assert checkout.main() == 0
    moved = checkout.ROOT.with_name("moved")
    checkout.ROOT.rename(moved)
    there = _load(moved)
    monkeypatch.setattr(there, "run_module", lambda python, *command: checkout.calls.append(command[0]))
    (there.VENV / "marker").touch()
    with pytest.raises(FileNotFoundError, match="elf-stamp"):  # the stand-in made no folder to put the stamp in
        there.install(there.wanted(), there.found())
    assert not there.VENV.exists()


def test_an_old_python_is_told_so(checkout, monkeypatch, capsys):
    monkeypatch.setattr(checkout.sys, "version_info", (3, 9, 2))
    assert checkout.main() == 2
    assert "needs Python 3.11 or newer" in capsys.readouterr().err
    assert checkout.calls == []


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PIP_NO_INDEX": "1"}
    return subprocess.run(
        ["make", "-C", str(folder), "setup", *arguments], env=env, capture_output=True, text=True, timeout=300
    )


def test_make_with_a_lock_that_cannot_be_installed_fails_and_leaves_no_stamp(tmp_path):
    folder = _copy(tmp_path / "a folder")
    (folder / "requirements.lock").write_text("elf-has-no-such-dependency==1.0\n")
    done = _make(folder, f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert "elf-has-no-such-dependency" in done.stderr
    assert "the install failed" in done.stderr
    assert not list(folder.rglob("elf-stamp*"))


KINDS = ("KILL", "TERM", "INT")
PIP = """
import os, subprocess, sys, time
build = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(os.environ["PIDS"] + ".part", "w") as file:
    file.write(f"{os.getpid()} {build.pid} {os.getppid()}")
os.replace(os.environ["PIDS"] + ".part", os.environ["PIDS"])
time.sleep(600)
"""


# Ctrl-C reaches make and bootstrap.py at once, and make waits for the latter.
@pytest.mark.parametrize(
    ("whom", "how"), [("make", "SIGKILL"), ("make", "SIGTERM"), *(("bootstrap", f"SIG{how}") for how in KINDS)]
)
def test_pip_and_its_children_end_with_what_started_them(tmp_path, whom, how):
    """A stand-in for pip, and for what pip starts, in an environment that lacks only the install."""
    folder = _copy(tmp_path / "a folder")
    venv, fake, pids = folder / ".venv", tmp_path / "fake" / "pip", tmp_path / "pids"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (venv / "bin" / "python").chmod(0o755)
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "__main__.py").write_text(PIP)
    (venv / "elf-stamp.json").write_text(json.dumps({**_load(folder).wanted(), "lock": "another"}))
    env = {**os.environ, "PYTHONPATH": str(fake.parent), "PIDS": str(pids)}
    command = ["make", "-C", str(folder), "setup", f"PYTHON={sys.executable}"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as make:
        _wait_until(pids.exists)
        pip, build, bootstrap = map(int, pids.read_text().split())
        os.kill(make.pid if whom == "make" else bootstrap, signal.Signals[how])
        make.wait(timeout=120)
    _wait_until(lambda: not any(map(is_running, (pip, build, bootstrap))))
    assert not list(folder.rglob("elf-stamp*"))


def _wait_until(what) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_make_without_the_named_python_says_so(tmp_path):
    done = _make(_copy(tmp_path), "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "no no-such-python was found" in done.stderr
