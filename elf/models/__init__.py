"""Neural networks: what they share is one call signature and masks."""

from __future__ import annotations

from elf._lazy import lazy_submodules

__getattr__, __dir__ = lazy_submodules(__name__)
