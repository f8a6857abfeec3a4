import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from jaxtyping import TypeCheckError

import elf


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_quick_and_lazy() -> None:
    out = run(
        "import sys, time, torch\n"
        "start = time.perf_counter(); import elf; print(time.perf_counter() - start)\n"
        "print(*(m for m in sys.modules if m.split('.')[0] in {'elf', 'pandas', 'rdkit', 'matplotlib', 'networkx'}))"
    )
    seconds, modules = out.splitlines()
    assert float(seconds) < 0.3
    assert set(modules.split()) == {"elf", "elf._lazy"}


def test_no_socket_is_opened() -> None:
    run(
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('a socket was opened')\n"
        "class Refuse(socket.socket):\n"
        "    __init__ = refuse\n"
        "socket.socket = Refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse\n"
        "import elf, torch\n"
        "elf.PairEnergy()(torch.zeros(1, 2, 3), torch.ones(1, 2, 3)); elf.scales.current_scale()"
    )


@pytest.mark.parametrize("name", sorted(elf._SUBMODULES))
def test_submodules_load_on_first_use(name: str) -> None:
    assert getattr(elf, name).__name__ == f"elf.{name}"


@pytest.mark.parametrize("name", sorted(elf._FROM_ENERGY))
def test_energies_at_the_top(name: str) -> None:
    assert getattr(elf, name) is getattr(elf.energy, name)


def test_dir_and_unknown_names() -> None:
    assert {"PairEnergy", "springs", "spins", "__version__"} <= set(dir(elf))
    assert elf.__version__ == version("elf-loss")
    with pytest.raises(AttributeError, match="'elf' has no attribute 'pair_energy'"):
        elf.pair_energy  # noqa: B018


def test_annotations_are_checked_while_testing() -> None:
    with pytest.raises(TypeCheckError):
        elf.geometry.pairwise_distances(torch.zeros(3, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    "path", ["data.qm9.load", "generative.samplers", "metrics.molecules", "models.mlp", "viz.style"]
)
def test_modules_of_packages_load_on_first_use(path: str) -> None:
    run(f"import elf; elf.{path}")
    run(f"import elf; assert {path.split('.')[1]!r} in dir(elf.{path.split('.')[0]})")


def test_unknown_module_of_a_package() -> None:
    with pytest.raises(AttributeError, match=r"module 'elf\.data' has no attribute 'qm10'"):
        _ = elf.data.qm10
