"""Write requirements.lock: `make lock` (needs `uv` on the PATH: `pip install uv`)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
# Which of these belong to torch depends on the platform's build of it; torch's own metadata asks for the right ones.
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton==")
HEADER = f"""\
# Exact versions of everything `make run` and `make test` install, for Python 3.11 and newer on any platform.
# Made by `make lock`: uv pip compile --universal --python-version 3.11 --all-extras, with {TORCH}.
# CUDA libraries are left to torch's own metadata, which pins the ones its build needs.
# No hashes: {TORCH} is a different file on each platform (CPU, CUDA, macOS), so one list of hashes cannot fit all.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        pins.write_text(TORCH + "\n")
        command = ["uv", "pip", "compile", "pyproject.toml", "--constraint", str(pins), "--all-extras", "--universal"]
        command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
        lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    kept = [line for line in lines if not line.startswith(LEFT_TO_TORCH)]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(kept) + "\n")
    print(f"requirements.lock: {len(kept)} packages")


if __name__ == "__main__":
    main()
