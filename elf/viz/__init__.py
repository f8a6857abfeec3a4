"""Pictures of energies: palette, force fields, landscapes, molecules, and the curve of a training."""

from __future__ import annotations

from elf._lazy import lazy_submodules

__getattr__, __dir__ = lazy_submodules(__name__)
