"""Write requirements.lock and requirements-recipes.lock: `make lock` (needs `uv` on the PATH: `pip install uv`)."""

from __future__ import annotations

import subprocess
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
# Which of these belong to torch depends on the platform's build of it; torch's own metadata asks for the right ones.
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton==")
HEADER = f"""\
# Exact versions of everything `make run` and `make test` install, for Python 3.11 and newer on any platform.
# Made by `make lock`: uv pip compile --universal --python-version 3.11, all extras but `recipes`, with {TORCH}.
# CUDA libraries are left to torch's own metadata, which pins the ones its build needs.
# No hashes: {TORCH} is a different file on each platform (CPU, CUDA, macOS), so one list of hashes cannot fit all.
"""


RECIPES = """\
# Beside requirements.lock, what the recipes of the book import, for `pip install --no-deps`: what else these packages
# ask for is in requirements.lock, or is not imported. Made by `make lock`.
"""


def resolved(*arguments: str) -> list[str]:
    """Exact versions, one a line."""
    command = ["uv", "pip", "compile", *arguments, "--universal", "--python-version", "3.11"]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


NOT_LOCKED = ("xtb", "peers")
"""What the course does without."""


def write(name: str, header: str, lines: list[str]) -> None:
    (ROOT / name).write_text(header + "\n".join(lines) + "\n")
    print(f"{name}: {len(lines)} packages")


def main() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    recipes = extras.pop("recipes")
    with tempfile.TemporaryDirectory() as folder:
        pins, wanted = Path(folder, "pins.txt"), Path(folder, "recipes.txt")
        pins.write_text(TORCH + "\n")
        wanted.write_text("\n".join(recipes) + "\n")
        chosen = [word for extra in extras if extra not in NOT_LOCKED for word in ("--extra", extra)]
        lines = resolved("pyproject.toml", "--constraint", str(pins), *chosen)
        write("requirements.lock", HEADER, [line for line in lines if not line.startswith(LEFT_TO_TORCH)])
        write("requirements-recipes.lock", RECIPES, resolved(str(wanted), "--no-deps"))


if __name__ == "__main__":
    main()
