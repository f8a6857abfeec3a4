"""What works with the four dependencies of the library alone, and what is said where an extra is missing."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from elf._lazy import EXTRAS
from tools import alone

ROOT = Path(__file__).resolve().parent.parent
# Torch brings networkx with it; the rest must be absent.
HIDDEN = sorted({module for modules in EXTRAS.values() for module in modules} - {"networkx"})
HIDE = f"""
import sys
from importlib.machinery import PathFinder

class Bare:
    find_distributions = staticmethod(PathFinder.find_distributions)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not PathFinder] + [Bare()]
"""


def run_bare(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", HIDE + code]
    # Where a cache folder is named, nobody asks platformdirs for one.
    env = {**os.environ, "ELF_CACHE": "unused"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)


def test_energies_geometry_and_statistics_need_no_extra() -> None:
    done = run_bare(
        "import torch, elf\n"
        "x, y = torch.randn(2, 5, 3, requires_grad=True), torch.randn(2, 5, 3)\n"
        "for energy in (elf.PairEnergy(), elf.HeightEnergy(), elf.AlignedHarmonic(), elf.Harmonic(), elf.Absolute()):\n"
        "    energy(x, y).sum().backward()\n"
        "elf.geometry.pairwise_distances(y); elf.geometry.align(y, y); elf.generative.points\n"
        "elf.spins.lattice, elf.models.mlp, elf.data.batching, elf.scales; import elf.files\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "module", "extra"),
    [
        ("elf.data.qm9.load()", "qm9pack", "molecules"),
        ("elf.chemistry.bonds; elf.metrics.strain; elf.viz.style", "matplotlib", "viz"),
        ("from course.widgets import Playground", "traitlets", "course"),
        (
            "s = elf.training.FitSettings(1, 1e-3); elf.training.fit(torch.nn.Linear(1, 1), None, None, s)",
            "lightning_fabric",
            "train",
        ),
        (
            "import torch; c = elf.spins.Couplings(torch.ones(1, 3, 2), torch.ones(1, 2, 3))\n"
            "elf.spins.ground_state(c, 'matching')",
            "scipy",
            "spins",
        ),
        ("from course import notebooks", "nbformat", "course"),
        ("from experiments.molecules import gifts", "scipy", "molecules"),
        ("elf.chemistry.xtb.gfn2_energy(torch.tensor([8]), torch.zeros(1, 1, 3))", "tblite", "xtb"),
    ],
)
def test_what_is_missing_names_its_extra(code: str, module: str, extra: str) -> None:
    done = run_bare(f"import elf, torch\n{code}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"elf-loss[{extra}]" in last, last
    assert module in last


def test_other_peoples_imports_keep_their_own_words() -> None:
    done = run_bare("import elf\ntry:\n    import pandas\nexcept ModuleNotFoundError as error:\n    print(error)")
    assert done.stdout == "No module named 'pandas'\n", done.stderr


def test_extras_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev", "book", "recipes", "peers"}
    names = [requirement.split(">=")[0] for requirement in project["dependencies"]]
    assert names == ["torch", "numpy", "jaxtyping", "typing-extensions"]
    assert not [text for text in project["dependencies"] if "<" in text or "==" in text], "users' own versions fit"
    assert (ROOT / "elf" / "py.typed").is_file()


def test_every_module_that_elf_imports_is_in_some_extra() -> None:
    known = {module for modules in EXTRAS.values() for module in modules}
    known |= {
        "elf",
        "experiments",
        "torch",
        "numpy",
        "jaxtyping",
        "typing_extensions",
        "filelock",
        *sys.stdlib_module_names,
    }
    unknown = {}
    for path in sorted((ROOT / "elf").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in {name.partition(".")[0] for name in names} - known:
                unknown.setdefault(name, str(path.relative_to(ROOT)))
    assert not unknown


def test_sdist_and_wheel_build_and_hold_all_of_elf_and_nothing_else(tmp_path: Path, capsys) -> None:
    """What `tools/alone.py`, which needs the network, does first; it goes on to install and try them."""
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    alone.built(sys.executable, clone, tmp_path, dict(os.environ))
    assert "elf_loss-" in capsys.readouterr().out
    (clone / "pyproject.toml").write_text((clone / "pyproject.toml").read_text().replace('"**/*.js", ', ""))
    for name in ("build", "elf_loss.egg-info"):
        shutil.rmtree(clone / name, ignore_errors=True)
    with pytest.raises(AssertionError, match=r"molecules\.js"):
        alone.built(sys.executable, clone, tmp_path / "without scripts", dict(os.environ))
