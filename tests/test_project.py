"""The files around the code agree with each other, and nothing in the repository belongs to one machine."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What the course does without is in no lock: tests of its use replace it, and use it where it is installed.
EXTRAS = [texts for extra, texts in PROJECT["optional-dependencies"].items() if extra not in ("xtb", "peers")]
TEXTS = sum(EXTRAS, PROJECT["dependencies"])
WANTED = [Requirement(text) for text in TEXTS if not text.startswith(PROJECT["name"])]  # an extra may name others
LOCKS = [(ROOT / name).read_text().splitlines() for name in ("requirements.lock", "requirements-recipes.lock")]
LOCK = [line for lines in LOCKS for line in lines if not line.startswith("#")]
LOCKED = [Requirement(line) for line in LOCK]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda requirement: requirement.name)
def test_every_dependency_is_in_the_lock_at_a_version_it_allows(wanted):
    pins = [pin for pin in LOCKED if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert pins
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert wanted.specifier.contains(exact.version), f"{pin} is not {wanted}"


def test_the_lock_pins_every_package_exactly_and_names_no_index_and_no_cuda_library():
    assert all(re.fullmatch(r"[a-z0-9.-]+==[^ *]+( ; .+)?", line) for line in LOCK)
    assert "torch==2.13.0" in LOCK
    assert not [line for line in LOCK if re.match(r"nvidia-|cuda-|triton", line)]


@pytest.mark.parametrize("pin", [pin for pin in LOCKED if not pin.marker or pin.marker.evaluate()], ids=str)
def test_the_environment_running_these_tests_is_the_locked_one(pin):
    assert pin.specifier.contains(version(pin.name)), f"{version(pin.name)} is installed"


def test_conda_users_get_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    names = {entry.partition("=")[0]: entry.partition("=")[2] for entry in conda}
    assert set(names) == {"python", "pip"}
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(names["python"])


def test_citation_and_package_have_the_same_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert Version(citation["version"]) == Version(PROJECT["version"]) == Version(version("elf-loss"))


def test_ci_runs_the_command_of_the_readme():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert commands[-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


BINARY = {".png", ".safetensors", ".npz", ".gif", ".woff2"}


def _tracked_texts():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        path = ROOT / name
        if path.suffix in BINARY or name.endswith("-min.js") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        yield name, re.sub(r'"image/png": "[^"]*"', "", text) if path.suffix == ".ipynb" else text


# Written in two pieces so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.~])/(?:root|work|home|Users|tmp)" + r"/\w",
    "an unfinished mark": r"\b(?:TO" + r"DO|FIX" + r"ME)\b",
    "a package registry's address": r"pypi" + r"\.org|pythonhosted" + r"\.org|registry\.npmjs" + r"\.org",
    "a pickle": r"torch" + r"\.load\(|import pick" + r"le|pickle\.load",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what):
    pattern = re.compile(FORBIDDEN[what])
    found = [(name, match.group()) for name, text in _tracked_texts() if (match := pattern.search(text))]
    assert not found


def test_python_blocks_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_gives_a_reason_for_every_dependency():
    rows = " ".join(re.findall(r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert not [wanted.name for wanted in WANTED if not re.search(rf"\b{re.escape(wanted.name)}\b", rows)]


def test_files_named_in_the_readme_exist():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", readme)
    names = [first or second for first, second in links]
    assert names
    assert not [name for name in names if not (ROOT / name).exists()]


def test_a_test_that_hangs_fails(tmp_path):
    shutil.copytree(ROOT / "tests", tmp_path, dirs_exist_ok=True, ignore=lambda *_: ["book", "lab", "experiments"])
    conftest = (tmp_path / "conftest.py").read_text()
    assert "else 900" in conftest
    (tmp_path / "conftest.py").write_text(conftest.replace("else 900", "else 1"))
    (tmp_path / "test_hangs.py").write_text("def test_hangs():\n    while True:\n        pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_hangs.py"]
    environment = {name: value for name, value in os.environ.items() if name != "ELF_FUZZ"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert "test_hangs took longer than 1 s" in done.stdout


def test_test_files_have_names_of_their_own():
    """Pytest imports them by name alone: a second file of the same name stops the run, whatever its folder."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_the_readme_s_picture_moves_is_small_and_begins_with_a_still_that_tells_the_story():
    import io

    import matplotlib as mpl
    from PIL import Image, ImageChops

    from elf.viz import style
    from tools import make_readme_picture as tool

    assert tool.PICTURE.stat().st_size < 1_000_000
    with Image.open(tool.PICTURE) as moving:
        assert moving.n_frames == 1 + 2 * tool.FRAMES
        first = moving.convert("RGB")
    target = tool.triangle()
    right = tool.turned(target, 40)
    mse, pair = (tool.ENERGIES[name](right[None], target[None]).item() for name in ("MSE", "pair energy"))
    assert mse > 0.4
    assert abs(pair) < 1e-6
    wrong = tool.distorted(target, 3 * mse)
    with mpl.rc_context():
        style.use()
        drawn = Image.open(io.BytesIO(tool.frame(right, wrong, target, ""))).convert("RGB")
    assert drawn.size == first.size
    # Fonts may differ from machine to machine by a little.
    assert np.asarray(ImageChops.difference(drawn, first)).any(axis=-1).mean() < 0.05


def test_the_readme_s_picture_follows_the_losses_downhill():
    from tools import make_readme_picture as tool

    target = tool.triangle()
    right = tool.turned(target, 40)
    wrong = tool.distorted(target, 1.4)
    for name, energy in tool.ENERGIES.items():
        for start in (right, wrong):
            values = [energy(x[None], target[None]).item() for x in [start, *tool.descent(name, start, target)]]
            assert all(after <= before + 1e-6 for before, after in itertools.pairwise(values))
    assert (tool.descent("pair energy", right, target)[-1] - right).abs().max() < 1e-5
