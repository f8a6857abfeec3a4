"""Molecules as chemists see them: graphs with bond orders, stereo centres, bond tables, force fields, vibrations."""

from __future__ import annotations

from elf._lazy import lazy_submodules

__getattr__, __dir__ = lazy_submodules(__name__)
