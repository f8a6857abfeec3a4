"""Data sets: molecules, polygons, spin glasses. Each loader returns a frozen record of tensors."""

from __future__ import annotations

from elf._lazy import lazy_submodules

__getattr__, __dir__ = lazy_submodules(__name__)
