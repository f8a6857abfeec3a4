"""Make .venv from the two locks, once: every make target that needs Python calls this first.

The stamp inside .venv is written last, so an environment without it is a failed or interrupted install and is made
again. While the stamp agrees, nothing is installed and no network is needed. Standard library only.
"""

import json
import os
import platform
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "elf-stamp.json"
LOCK, RECIPES = "requirements.lock", "requirements-recipes.lock"


def end_with_parent(parent: int, end: Callable[[], object]) -> None:
    """Call `end` as soon as this process's parent is another one: a parent that was killed can tell nobody.

    Else pip would go on writing into .venv, beside the pip of the next make. Asked again and again, as this is what
    every system can answer.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        end()

    threading.Thread(target=watch, daemon=True).start()


def run_module(python: str, *command: str) -> None:
    """`python -m command` in a group of processes of its own, which ends with this process."""
    child = [python, str(Path(__file__).resolve()), str(os.getpid()), *command]
    with subprocess.Popen(child, cwd=ROOT, process_group=0) as process:
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def as_child(parent: int, module: str, *arguments: str) -> None:
    """What `run_module` runs."""
    end_with_parent(parent, lambda: os.killpg(os.getpgrp(), signal.SIGKILL))  # pip's own children too
    sys.argv = [module, *arguments]
    sys.path[0] = ""
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def wanted() -> dict:
    """What the stamp says of a complete environment of this checkout."""
    import tomllib  # not in a Python too old for us, which has been turned away by now

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # A change of ruff's settings installs nothing.
    metadata = {**{key: project[key] for key in ("build-system", "project")}, "packages": project["tool"]["setuptools"]}
    return {
        "folder": str(ROOT),  # environments cannot be moved
        "python": f"{platform.python_version()} in {sys.base_prefix}",
        "project": sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest(),
        "lock": sha256((ROOT / LOCK).read_bytes() + (ROOT / RECIPES).read_bytes()).hexdigest(),
    }


def found() -> dict:
    """What the stamp says, or nothing where there is no stamp that can be read."""
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def install(want: dict, have: dict) -> None:
    """Bring .venv to the wanted state; the stamp is gone while that is under way."""
    same_home = have.get("folder") == want["folder"] and have.get("python") == want["python"]
    STAMP.unlink(missing_ok=True)
    if not same_home:
        if VENV.exists():
            print("elf: .venv is incomplete or made elsewhere; making it again", flush=True)
            shutil.rmtree(VENV)
        base = getattr(sys, "_base_executable", sys.executable)  # not the python in the folder just removed
        run_module(base, "venv", str(VENV))
    print(f"elf: installing {LOCK} into .venv (once; a few minutes and 2 GB)", flush=True)
    pip = [str(VENV / "bin" / "python"), "pip", "install", "--disable-pip-version-check"]
    if not sys.stdout.isatty():
        pip.append("--quiet")
    run_module(*pip, "--requirement", LOCK)
    # Their own metadata ask for much that they do not import.
    run_module(*pip, "--no-deps", "--requirement", RECIPES)
    # The build backend comes from the lock: --no-build-isolation, else pip would fetch another one.
    run_module(*pip, "--no-deps", "--no-build-isolation", "--editable", ".")
    part = STAMP.with_suffix(".part")
    part.write_text(json.dumps(want, indent=1), encoding="utf-8")
    os.replace(part, STAMP)


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - older ones get this far, to be told so
        print(
            f"elf needs Python 3.11 or newer; {sys.executable} is {platform.python_version()}. "
            "Name another one, say: make run PYTHON=python3.12",
            file=sys.stderr,
        )
        return 2
    want, have = wanted(), found()
    if want == have:
        return 0
    end_with_parent(os.getppid(), lambda: os._exit(1))  # make
    try:
        install(want, have)
    except KeyboardInterrupt:
        print("elf: interrupted; the next make starts the install again", file=sys.stderr)
        return 130
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"elf: the install failed ({error}); the next make starts it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else as_child(int(sys.argv[1]), *sys.argv[2:]))
