"""Pictures of energies: palette, force fields, landscapes, molecules, and the playground to drag."""

from __future__ import annotations

import importlib
from typing import Any

_SUBMODULES = ("fields", "landscapes", "molecules", "playground", "spins", "style")
__all__ = list(_SUBMODULES)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_SUBMODULES)
