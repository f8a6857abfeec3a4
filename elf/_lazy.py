"""Packages whose submodules load on first use (PEP 562), and what is said where a part of elf lacks its extra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

_FILES = ("safetensors", "platformdirs")
_FIGURES = ("matplotlib", "mpl_toolkits", "cycler", "PIL")
EXTRAS: dict[str, tuple[str, ...]] = {
    "molecules": ("rdkit", "qm9pack", "pandas", "networkx", "scipy", *_FILES),
    "spins": ("pymatching", "scipy", "tqdm", *_FILES),
    "train": ("lightning_fabric", "tqdm", *_FILES),
    "viz": (*_FIGURES, "py3Dmol", "IPython"),
    "chem": ("fcd", "posebusters"),
    "xtb": ("tblite",),
    "course": (
        *("anywidget", "ipywidgets", "traitlets"),
        *("jupyterlab", "ipykernel", "jupyter_client", "nbclient", "nbconvert", "nbformat"),
    ),
}
"""Extra of the distribution -> the modules it brings that elf and the course import, each on first use."""


class _NamesTheExtra(MetaPathFinder):
    """The last finder asked: nobody has the module, and it is elf, or what lies beside it, that wants it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        extras = [extra for extra, modules in EXTRAS.items() if fullname in modules]
        if extras and _importer().partition(".")[0] in ("elf", "course", "experiments"):
            bring = " or ".join(f"pip install 'elf-loss[{extra}]'" for extra in extras)
            raise ModuleNotFoundError(
                f"No module named {fullname!r}, which this part of elf needs: {bring}", name=fullname
            )


def _importer() -> str:
    """The module whose import statement is under way."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("importlib", __name__)):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "")


def name_missing_extras() -> None:
    """Let a ModuleNotFoundError inside elf say which extra brings the module. Called once, by `import elf`."""
    if not any(isinstance(finder, _NamesTheExtra) for finder in sys.meta_path):
        sys.meta_path.append(_NamesTheExtra())


def lazy_submodules(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package's __init__: every module in its folder is an attribute."""
    names = sorted(module.name for module in iter_modules(sys.modules[package].__path__))

    def getattr_(name: str) -> Any:
        if name in names:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return getattr_, lambda: names
