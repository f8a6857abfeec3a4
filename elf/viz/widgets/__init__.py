"""Widgets to play with, each beside its JavaScript; alive in notebooks and on pages without a kernel."""

from __future__ import annotations

from elf._lazy import lazy_submodules

__getattr__, __dir__ = lazy_submodules(__name__)
