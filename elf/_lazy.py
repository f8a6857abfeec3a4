"""Packages whose submodules load on first use (PEP 562): `import elf; elf.data.qm9.load()` just works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def lazy_submodules(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package's __init__: every module in its folder is an attribute."""
    names = sorted(module.name for module in iter_modules(sys.modules[package].__path__))

    def getattr_(name: str) -> Any:
        if name in names:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return getattr_, lambda: names
