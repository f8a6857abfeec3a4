"""Pictures of energies: palette, force fields, landscapes, molecules, and the widgets to play with."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from elf._lazy import lazy_submodules

# Loaded on first use: a widget needs anywidget, a figure does not.
_CLASSES = {
    "Dashboard": "widgets.dashboard",
    "FrameSlider": "widgets.frames",
    "Playground": "widgets.playground",
    "SpinBoard": "widgets.board",
    "Trajectory": "widgets.trajectory",
}
_submodule, _submodules = lazy_submodules(__name__)


def __getattr__(name: str) -> Any:
    return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name) if name in _CLASSES else _submodule(name)


def __dir__() -> list[str]:
    return [*_submodules(), *_CLASSES]
