"""Install the library alone, from a clone, into a fresh environment of each Python named, and try it there.

    python tools/alone.py python3.11 python3.12 python3.13
    python tools/alone.py python3.12 --torch .venv          # with the torch of that environment, of the same Python

Builds the sdist, the wheel and, from the sdist, the wheel again; installs the clone as README says; then, with the
checkout out of sight, runs README's first program and imports every module of `elf`: what fails must name its extra.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Top-level files of torch and all that it asks for, but what the library is to bring by itself.
CLOSURE = """
import json, re
from importlib.metadata import PackageNotFoundError, distribution
found, asked = {}, ["torch"]
while asked:
    name = re.split(r"[^A-Za-z0-9._-]", asked.pop())[0].lower().replace("_", "-")
    if name in found or name in ("numpy", "typing-extensions"):
        continue
    try:
        lent = distribution(name)
    except PackageNotFoundError:  # of another platform
        continue
    tops = {file.parts[0] for file in lent.files if file.parts[0] not in ("..", "__pycache__")}
    found[name] = [str(lent.locate_file(top)) for top in sorted(tops)]
    asked += [text for text in lent.requires or () if "extra ==" not in text]
print(json.dumps(sorted({path for paths in found.values() for path in paths})))
"""
TRY = """
import importlib, json, pkgutil, sys
from importlib.metadata import distributions
from pathlib import Path
import elf
home = Path(elf.__file__).parent
assert Path(sys.prefix) in home.parents, home
modules = sorted(module.name for module in pkgutil.walk_packages([str(home)], "elf.", onerror=lambda name: None))
missing = {}
for name in modules:
    if name != "elf.__main__":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert "pip install 'elf-loss[" in str(error), f"{name}: {error}"
            missing.setdefault(str(error), []).append(name)
print(json.dumps({"modules": len(modules), "missing": missing}))
"""


def run(*command: object, **settings: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **settings)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:4]))} ... failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def built(python: str | Path, clone: Path, folder: Path, environment: dict[str, str]) -> None:
    """The sdist and both wheels; the wheels hold the same, and all of elf that git tracks."""
    pip = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    run(*pip, folder / "wheel", clone, env=environment)
    make = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(python, "-c", make, folder / "sdist", cwd=clone, env=environment)
    (sdist,) = (folder / "sdist").glob("*.tar.gz")
    run(*pip, folder / "again", sdist, env=environment)
    names = []
    for wheel in (folder / "wheel", folder / "again"):
        (path,) = wheel.glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            names.append({name for name in archive.namelist() if ".dist-info/" not in name})
    tracked = set(run("git", "ls-files", "elf", cwd=clone).split())
    assert names[0] == names[1] == tracked, sorted(names[0] ^ tracked) or sorted(names[0] ^ names[1])
    print(f"  {sdist.name} and {path.name}: {len(tracked)} files")


def alone(python: str, lender: Path | None) -> None:
    print(run(python, "--version").strip(), flush=True)
    with tempfile.TemporaryDirectory(prefix="elf alone ") as name:
        folder = Path(name)
        clone, venv, elsewhere = folder / "clone", folder / "venv", folder / "elsewhere"
        run("git", "clone", "--quiet", ROOT, clone)
        run(python, "-m", "venv", venv)
        inside = venv / "bin" / "python"
        if lender is not None:
            (site,) = venv.glob("lib/python*/site-packages")
            for path in map(Path, json.loads(run(lender / "bin" / "python", "-c", CLOSURE))):
                (site / path.name).exists() or (site / path.name).symlink_to(path)
        run(inside, "-m", "pip", "install", "--quiet", "--target", folder / "backend", "setuptools>=77")
        built(inside, clone, folder, {**os.environ, "PYTHONPATH": str(folder / "backend")})
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ELF_"))}
        run(inside, "-m", "pip", "install", "--quiet", clone, env=environment)
        run("rm", "-rf", clone)
        elsewhere.mkdir()
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        first = re.search(r"^```python\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE).group(1)
        python_here = [inside, "-W", "error", "-c"]
        print("  README:", " | ".join(run(*python_here, first, cwd=elsewhere, env=environment).splitlines()))
        found = json.loads(run(*python_here, TRY, cwd=elsewhere, env=environment))
        print(f"  {found['modules']} modules import, but for")
        for error, modules in found["missing"].items():
            print(f"    {len(modules)}: {error}")
        run(venv / "bin" / "elf", "--help", cwd=elsewhere, env=environment)
        lines = run(inside, "-m", "pip", "list", "--format=freeze", cwd=elsewhere, env=environment).split()
        print("  beside:", " ".join(line for line in lines if re.match("torch|numpy|jaxt|typing|scipy|rdkit", line)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--torch", type=Path, metavar="VENV", help="borrow torch from there, instead of fetching it")
    arguments = parser.parse_args()
    for python in arguments.pythons:
        alone(python, arguments.torch and arguments.torch.resolve())


if __name__ == "__main__":
    sys.exit(main())
