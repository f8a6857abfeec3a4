"""Widgets to play with, each beside its JavaScript; alive in notebooks and on pages without a kernel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from elf._lazy import lazy_submodules

# Loaded on first use: a page that holds one of them needs no other.
_CLASSES = {
    "Dashboard": "dashboard",
    "Descent": "descent",
    "FrameSlider": "frames",
    "Guess": "guess",
    "HeatBath": "bath",
    "Knobs": "knobs",
    "Playground": "playground",
    "SpinBoard": "board",
    "Trajectory": "trajectory",
}
_submodule, _submodules = lazy_submodules(__name__)


def __getattr__(name: str) -> Any:
    return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name) if name in _CLASSES else _submodule(name)


def __dir__() -> list[str]:
    return [*_submodules(), *_CLASSES]
